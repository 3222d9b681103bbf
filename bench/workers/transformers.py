"""transformers' own `generate`, greedy, with a streamer that notes the time of every token."""

from __future__ import annotations

import time
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig

from bench.workers.serve import Subject, Timed, serve


class Clock:
    """A streamer that keeps the time: the first call brings the prompt, every other one a token."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, ids: Any) -> None:
        """Called with every token."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Called once."""


class Transformers:
    """A model in one of its precisions."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """`model` is a folder, `threads` torch's, `dtype` float32 or bfloat16."""
        torch.set_num_threads(settings["threads"])
        dtype = getattr(torch, settings["dtype"])
        model: Any = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=dtype)
        self._model = model.eval()
        self.facts = {
            "version": transformers.__version__,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "dtype": settings["dtype"],
        }

    def generate(self, prompts: list[list[int]], tokens: int, n: int) -> Timed:
        """See `Subject.generate`."""
        ids = torch.tensor(prompts).repeat_interleave(n, 0)
        clock = Clock() if len(ids) == 1 else None
        config: Any = GenerationConfig
        plan = config(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0, eos_token_id=None)
        start = time.perf_counter()
        with torch.inference_mode():
            self._model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=plan, streamer=clock)
        total = time.perf_counter() - start
        return Timed(clock.times[1] - start if clock else total, total)


def make(settings: dict[str, Any]) -> Subject:
    """The system as `serve` wants it."""
    return Transformers(settings)


if __name__ == "__main__":
    serve(make)
