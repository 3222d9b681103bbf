"""Magister through its public way: `compose.load` as the commands do, then the engine's token socket."""

from __future__ import annotations

import asyncio
import time
from importlib import metadata
from typing import Any

import torch

from bench.workers.serve import Subject, Timed, serve
from magister.cli import compose
from magister.cli.placement import Placement
from magister.types import Prompt, Sampling


class Magister:
    """A model loaded as `magister chat` loads it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """`model` is a name or a folder, `placement` fields of `Placement`."""
        loaded = compose.load(settings["model"], Placement(**settings.get("placement", {})), own_process=True)
        self._engine = loaded.engine
        self._loop = asyncio.Runner()
        self.facts = {
            "version": metadata.version("magister"),
            "torch": torch.__version__,
            "kernels": loaded.kernels.name,
            "running": self._engine.limits.running,
            **settings.get("placement", {}),
        }

    def generate(self, prompts: list[list[int]], tokens: int, n: int) -> Timed:
        """See `Subject.generate`; `computed` tokens went through the network, `guessed` were guesses."""
        before = self._engine.load()
        first, total = self._loop.run(self._all(prompts, tokens, n))
        after = self._engine.load()
        extra = {"computed": after.tokens - before.tokens, "guessed": after.guessed - before.guessed}
        return Timed(first, total, extra)

    async def _all(self, prompts: list[list[int]], tokens: int, n: int) -> tuple[float, float]:
        how = Sampling(temperature=0.0, max_tokens=tokens, ignore_end=True, n=n)
        start = time.perf_counter()

        async def one(ids: list[int]) -> float:
            first, count = 0.0, 0
            async for chunk in self._engine.generate(Prompt(ids=tuple(ids)), how):
                first = first or time.perf_counter() - start
                count += len(chunk.ids)
            assert count == tokens * n, f"{count} tokens came, {tokens * n} were asked for"
            return first

        firsts = await asyncio.gather(*(one(ids) for ids in prompts))
        return min(firsts), time.perf_counter() - start


def make(settings: dict[str, Any]) -> Subject:
    """The system as `serve` wants it."""
    return Magister(settings)


if __name__ == "__main__":
    serve(make)
