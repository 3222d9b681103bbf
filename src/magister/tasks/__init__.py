"""Families of problems with exact answers, shared by training and evaluation.

One module a family (`generate`, `grade`); the words they are asked in are data
(`phrasings/<book>/<language>/<family>.json`). Knows nothing of models or tokens.
"""

from types import MappingProxyType
from typing import cast

from magister.tasks import (
    arithmetic,
    countdown,
    dates,
    equations,
    fractions,
    geometry,
    greeting,
    letters,
    logic,
    numbers,
    other,
    sequences,
    units,
    word_problems,
)
from magister.tasks.family import Family
from magister.tasks.phrasebook import Phrasebook, load_book
from magister.tasks.problem import BEYOND, Problem, Split, is_held_out

FAMILIES: MappingProxyType[str, Family] = MappingProxyType(
    {
        module.NAME: cast(Family, module)
        for module in (
            arithmetic,
            word_problems,
            equations,
            fractions,
            numbers,
            sequences,
            dates,
            units,
            letters,
            logic,
            countdown,
            geometry,
            greeting,
            other,
        )
    }
)
"""All families by name."""

HONEST = frozenset({"greeting", "other"})
"""Families without problems: what is graded is that the model says what it is and can do. They have no `BEYOND`."""

__all__ = ["BEYOND", "FAMILIES", "HONEST", "Family", "Phrasebook", "Problem", "Split", "is_held_out", "load_book"]
