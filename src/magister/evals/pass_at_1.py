"""Greedy pass@1 on problems of the task families, with a Wilson interval.

Problems are a function of (family, seed, number), so two models answer the very same ones.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from magister.tasks import BEYOND, FAMILIES, Problem, Split, load_book
from magister.tasks.family import draw
from magister.types import ChatModel, ChatRequest, Choice, Sampling, collect, user


@dataclass(frozen=True, slots=True)
class Outcome:
    """One problem answered."""

    problem: Problem
    thinking: str
    answer: str
    correct: bool
    tokens: int
    """Generated, thought and answer together."""


class Interval(NamedTuple):
    """A share and its 95 % bounds, all in [0, 1]."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FamilyReport:
    """One family's outcomes."""

    family: str
    outcomes: tuple[Outcome, ...]
    seconds: float

    @property
    def n(self) -> int:
        """Problems asked."""
        return len(self.outcomes)

    @property
    def correct(self) -> int:
        """Problems answered rightly."""
        return sum(outcome.correct for outcome in self.outcomes)

    @property
    def interval(self) -> Interval:
        """95 % Wilson interval of the share of right answers."""
        return wilson(self.correct, self.n)


def wilson(correct: int, n: int) -> Interval:
    """Wilson's score interval at 95 %; (0, 0, 1) for n = 0."""
    if n == 0:
        return Interval(0.0, 0.0, 1.0)
    z, p = 1.959964, correct / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, 0.0 if correct == 0 else middle - half, 1.0 if correct == n else middle + half)


def problems(family: str, n: int, seed: int, book: str, *, beyond: bool = False) -> list[Problem]:
    """Up to `n` problems of a family, no prompt twice, in the words of `book`: `held_out` or `train`.

    Operands are from the side of the operand split that `book` names; levels come in turn, or with `beyond`
    all are past the trained ranges. The same arguments give the same problems in the same order, and a larger
    `n` only adds to them. A family that has fewer prompts than `n` gives all it has: drawing ends after
    20 * `n` tries, 2,000 at least.
    """
    module, phrases = FAMILIES[family], load_book(family, book)
    split = Split.HELD_OUT if book == "held_out" else Split.TRAIN
    found: dict[str, Problem] = {}
    for number in range(max(20 * n, 2000)):
        if len(found) == n:
            break
        rng = random.Random(f"{family}/{seed}/{beyond}/{number}")
        level = BEYOND if beyond else 1 + number % module.LEVELS
        problem = draw(module, rng, level, phrases, split)
        found.setdefault(problem.prompt, problem)
    return list(found.values())


async def measure(
    model: ChatModel,
    asked: list[Problem],
    *,
    name: str,
    concurrency: int = 32,
    max_tokens: int = 1024,
    done: Callable[[Outcome], None] = lambda outcome: None,
) -> FamilyReport:
    """Ask every problem, greedily, `concurrency` at a time; outcomes in the order of `asked`."""
    gate = asyncio.Semaphore(concurrency)
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
    started = time.monotonic()

    async def one(problem: Problem) -> Outcome:
        async with gate:
            reply = await collect(model.chat(ChatRequest(messages=(user(problem.prompt),), sampling=sampling)))
        outcome = _outcome(problem, reply.choices[0])
        done(outcome)
        return outcome

    outcomes = await asyncio.gather(*(one(problem) for problem in asked))
    return FamilyReport(name, tuple(outcomes), time.monotonic() - started)


def _outcome(problem: Problem, choice: Choice) -> Outcome:
    if choice.error:
        # A broken engine must not be scored as a weak model.
        raise RuntimeError(f"the model failed on {problem.prompt!r}: {choice.error}")
    message = choice.message
    correct = FAMILIES[problem.family].grade(problem, message.text)
    return Outcome(problem, message.thinking, message.text, correct, choice.usage.completion_tokens)
