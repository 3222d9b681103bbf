"""vLLM on the CPU, through its offline interface: all prompts handed over at once, tokens in and out."""

from __future__ import annotations

import time
from typing import Any

import vllm
from vllm import LLM, SamplingParams

from bench.workers.serve import Subject, Timed, serve


class VLLM:
    """An engine of vLLM's; its prefix cache is off, since every question would find the last one's blocks."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """`model` is a folder, `context` tokens a sequence, `running` sequences at a time, `dtype` torch's name."""
        self._engine = LLM(
            model=settings["model"],
            skip_tokenizer_init=True,
            dtype=settings["dtype"],
            max_model_len=settings["context"],
            max_num_seqs=settings["running"],
            enable_prefix_caching=False,
        )
        self.facts = {
            "version": vllm.__version__,
            "dtype": settings["dtype"],
            "threads": settings["threads"],
        }

    def generate(self, prompts: list[list[int]], tokens: int, n: int) -> Timed:
        """See `Subject.generate`. The time of the first token is not seen from here: it is given as the total."""
        how = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False, n=n)
        asked: list[Any] = [{"prompt_token_ids": ids} for ids in prompts]
        start = time.perf_counter()
        self._engine.generate(asked, how, use_tqdm=False)
        total = time.perf_counter() - start
        return Timed(total, total)


def make(settings: dict[str, Any]) -> Subject:
    """The system as `serve` wants it."""
    return VLLM(settings)


if __name__ == "__main__":
    serve(make)
