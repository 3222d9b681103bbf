"""Random requests for as long as one likes: `python -m tests.engine.soak --requests 2000`.

Lengths, kinds, caps, stops, cancels and numbers of choices are random, arrivals too, in an engine too small for them
that shares blocks, guesses ahead and preempts. What must hold: replies that are not cancelled finish, the pool audits
clean and whole all along, and memory stays where it was after the first quarter.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.engine.world import FIRST, PIECES, VOCABULARY, Make, compiled_runner, random_model, torch_runner

from magister.engine.engine import Engine, Load
from magister.engine.limits import Limits
from magister.model.cache import KVFormat
from magister.types import FinishReason, Prompt, Sampling

LIMITS = Limits(context=96, blocks=60, block_size=4, step_tokens=24, running=8, speculation=4, row_cost=0.02)
TOGETHER = 24
"""Requests in flight."""
RUNNERS: dict[str, Make] = {
    "torch": torch_runner(),
    "int8": torch_runner(KVFormat.INT8),
    "compiled": compiled_runner(KVFormat.BF16),
}


class Outcome(NamedTuple):
    """How a soak ended."""

    finished: dict[str, int]
    """Choices by why they ended; those of cancelled requests are not among them."""
    cancelled: int
    load: Load
    seconds: float
    memory: tuple[int, ...]
    """Resident bytes after each quarter."""


@dataclass
class _Diary:
    finished: dict[str, int] = field(default_factory=dict)
    cancelled: int = 0


def soak(requests: int, seed: int = 0, make: Make | None = None) -> Outcome:
    """Sends so many requests; asserts on the way."""
    began = time.perf_counter()
    diary, memory = _Diary(), []
    with Engine((make or torch_runner())(random_model(), LIMITS), VOCABULARY, LIMITS) as engine:
        for quarter in range(4):
            count = requests * (quarter + 1) // 4 - requests * quarter // 4
            asyncio.run(_quarter(engine, random.Random(seed * 4 + quarter), count, diary))
            memory.append(_resident())
        load = engine.load()
    assert (load.running, load.waiting, load.free_blocks) == (0, 0, LIMITS.blocks), load
    return Outcome(diary.finished, diary.cancelled, load, time.perf_counter() - began, tuple(memory))


async def _quarter(engine: Engine, chance: random.Random, count: int, diary: _Diary) -> None:
    beginnings = [_ids(chance, 40) for _ in range(5)]
    door = asyncio.Semaphore(TOGETHER)

    async def one(luck: random.Random) -> None:
        async with door:
            await asyncio.sleep(luck.random() * 0.003)
            await _live(engine, luck, beginnings, diary)

    async def inspect() -> None:
        while True:
            await asyncio.sleep(0.05)
            await asyncio.to_thread(engine.load)

    inspector = asyncio.ensure_future(inspect())
    await asyncio.wait_for(asyncio.gather(*[one(random.Random(chance.random())) for _ in range(count)]), 3600)
    inspector.cancel()


async def _live(engine: Engine, luck: random.Random, beginnings: list[list[int]], diary: _Diary) -> None:
    prompt = [*luck.choice(beginnings)[: luck.randint(0, 40)], *_ids(luck, luck.randint(1, 30))]
    sampling = _sampling(luck)
    patience = luck.randint(1, 12) if luck.random() < 0.3 else None
    ends: dict[int, FinishReason] = {}
    said: dict[int, int] = {}
    async with aclosing(engine.generate(Prompt(tuple(prompt)), sampling)) as stream:
        async for chunk in stream:
            assert chunk.choice not in ends
            said[chunk.choice] = said.get(chunk.choice, 0) + len(chunk.ids)
            if chunk.finish is not None:
                ends[chunk.choice] = chunk.finish
            if patience is not None and sum(said.values()) >= patience:
                break
    if len(ends) < sampling.n:
        assert patience is not None, "a request ended without its last chunks"
        diary.cancelled += 1
        return
    most = LIMITS.context - len(prompt) if sampling.max_tokens is None else sampling.max_tokens
    assert all(0 < count <= most for count in said.values()), (said, most)
    for reason in ends.values():
        diary.finished[reason.value] = diary.finished.get(reason.value, 0) + 1


def _sampling(luck: random.Random) -> Sampling:
    values: dict[str, Any] = {
        "temperature": luck.choice([0.0, 0.3, 0.7, 1.0, 2.0]),
        "n": luck.choice([1, 1, 1, 1, 2, 5]),
        "seed": luck.choice([None, luck.randrange(1000)]),
        "max_tokens": luck.choice([None, luck.randint(1, 40)]),
        "ignore_end": luck.random() < 0.3,
    }
    spice: list[dict[str, Any]] = [
        {"top_p": luck.uniform(0.5, 1.0)},
        {"top_k": luck.randint(1, 50)},
        {"min_p": luck.uniform(0.0, 0.2)},
        {"frequency_penalty": luck.uniform(-1.0, 1.0), "presence_penalty": luck.uniform(-1.0, 1.0)},
        {"logit_bias": {luck.randrange(len(PIECES)): luck.uniform(-5.0, 5.0)}},
        {"thinking_tokens": luck.randint(0, 20)},
        {"stop": tuple({luck.choice("abcdef") + luck.choice("abcdef") for _ in range(3)})},
        {"logprobs": True, "top_logprobs": luck.randint(0, 5)},
        {"grammar": luck.choice(["start: /[a-f]{1,30}/", 'start: ("ab" | "abc" | "d")+ "é"']), "ignore_end": False},
    ]
    for extra in luck.sample(spice, luck.randint(0, 3)):
        values |= extra
    return Sampling(**values)


def _ids(luck: random.Random, count: int) -> list[int]:
    # A few ids only, so that there is much to guess.
    return [luck.randrange(FIRST, FIRST + 6) for _ in range(count)]


def _resident() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError("/proc/self/status has no VmRSS")


def main() -> None:
    """Prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runner", choices=RUNNERS, default="torch")
    options = parser.parse_args()
    outcome = soak(options.requests, options.seed, RUNNERS[options.runner])
    lines = [
        f"{options.requests} requests in {outcome.seconds:.0f} s, {outcome.cancelled} cancelled",
        f"choices finished: {dict(outcome.finished)}",
        f"{outcome.load}",
        f"resident MiB after each quarter: {[size >> 20 for size in outcome.memory]}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
