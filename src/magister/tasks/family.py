"""What every family module offers, and drawing its problems from one side of the operand split."""

from __future__ import annotations

import random
from typing import Protocol

from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import Problem, Split, is_held_out


class Family(Protocol):
    """The names a family module exports."""

    NAME: str
    """Its file's stem, and the stem of its books."""
    LEVELS: int
    """Trained levels, 1 to this."""

    def generate(self, rng: random.Random, level: int, book: Phrasebook) -> Problem:
        """A problem of `level` (or `BEYOND`), asked in the words of `book`."""
        ...

    def grade(self, problem: Problem, reply: str) -> bool:
        """Whether `reply`, the text after the thought, answers the problem."""
        ...


def draw(family: Family, rng: random.Random, level: int, book: Phrasebook, split: Split) -> Problem:
    """A problem whose operands are on the given side of the split; one without operands is on both."""
    while True:
        problem = family.generate(rng, level, book)
        if not problem.operands or _fits(problem, split):
            return problem


def _fits(problem: Problem, split: Split) -> bool:
    if split is Split.HELD_OUT:
        return is_held_out(problem.family, problem.kind, problem.operands)
    every = (problem.operands, *problem.same)
    return not any(is_held_out(problem.family, problem.kind, operands) for operands in every)
