"""llama.cpp, asked at its own C interface through llama-cpp-python: a decode loop with its greedy sampler, no text.

The leanest way there is from Python: llama-cpp-python's `Llama` class copies all logits of every step.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

import llama_cpp as api

from bench.workers.serve import Subject, Timed, serve

KINDS = {"bf16": 30, "f16": 1, "q8_0": 8}
"""ggml's numbers of the types that keys and values may have."""


class LlamaCpp:
    """One context with one sequence."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """`model` is a GGUF, `context` tokens of room, `threads` for everything, `kv` the type of keys and values."""
        api.llama_backend_init()
        self._log = api.llama_log_callback(lambda level, text, data: None)
        api.llama_log_set(self._log, None)
        self._model = api.llama_model_load_from_file(settings["model"].encode(), api.llama_model_default_params())
        if not self._model:
            raise ValueError(f"model: llama.cpp does not load {settings['model']}")
        room = api.llama_context_default_params()
        room.n_ctx = settings["context"]
        room.n_batch = room.n_ubatch = settings.get("batch", 512)
        room.n_threads = room.n_threads_batch = settings["threads"]
        room.type_k = room.type_v = KINDS[settings.get("kv", "f16")]
        room.no_perf = True
        self._context = api.llama_init_from_model(self._model, room)
        if not self._context:
            raise ValueError("llama.cpp makes no context of these settings")
        self._batch = room.n_batch
        self._sampler = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        api.llama_sampler_chain_add(self._sampler, api.llama_sampler_init_greedy())
        flags = [flag for flag in api.llama_print_system_info().decode().split(" | ") if flag.strip().endswith("= 1")]
        self.facts = {
            "version": api.__version__,
            "threads": settings["threads"],
            "units": ", ".join(flag.removesuffix(" = 1").strip() for flag in flags),
        }

    def generate(self, prompts: list[list[int]], tokens: int, n: int) -> Timed:
        """See `Subject.generate`. One prompt, once: more sequences are not measured here."""
        assert len(prompts) == n == 1
        api.llama_memory_clear(api.llama_get_memory(self._context), True)
        start = time.perf_counter()
        ids = (api.llama_token * len(prompts[0]))(*prompts[0])
        for at in range(0, len(ids), self._batch):
            part = ctypes.cast(ctypes.byref(ids, at * ctypes.sizeof(api.llama_token)), ctypes.POINTER(api.llama_token))
            self._decode(part, min(self._batch, len(ids) - at))
        new = (api.llama_token * 1)()
        new[0] = api.llama_sampler_sample(self._sampler, self._context, -1)
        first = time.perf_counter() - start
        for _ in range(tokens - 1):
            self._decode(new, 1)
            new[0] = api.llama_sampler_sample(self._sampler, self._context, -1)
        return Timed(first, time.perf_counter() - start)

    def _decode(self, ids: Any, count: int) -> None:
        code = api.llama_decode(self._context, api.llama_batch_get_one(ids, count))
        if code:
            raise RuntimeError(f"llama_decode failed with code {code}")


def make(settings: dict[str, Any]) -> Subject:
    """The system as `serve` wants it."""
    return LlamaCpp(settings)


if __name__ == "__main__":
    serve(make)
