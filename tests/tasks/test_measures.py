"""The measures by which operands are drawn: fixed for ever, so that seeds keep their problems."""

from __future__ import annotations

import hashlib
import random
from types import ModuleType

import pytest
from tests.tasks import checks, test_arithmetic, test_equations, test_fractions, test_numbers

from magister.tasks import arithmetic, equations, fractions, measures, numbers, units
from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import BEYOND

UNITS = Phrasebook("units", {"convert": ("{q} in {to}",), "sum": ("{q1} and {q2} in {to}",)}, (), {})


@pytest.mark.parametrize(
    ("family", "book", "wanted"),
    [
        (equations, test_equations.BARE, "7f37d604d4ee0857"),
        (fractions, test_fractions.BARE, "c354744c6f51932c"),
        (numbers, test_numbers.BARE, "f516f96019e6fdd0"),
        (arithmetic, test_arithmetic.BARE, "ac41f1729fd12f21"),
        (units, UNITS, "03e8345ee017000c"),
    ],
)
def test_seeds_keep_their_problems(family: ModuleType, book: Phrasebook, wanted: str) -> None:
    drawn = []
    for level in (*range(1, family.LEVELS + 1), BEYOND):
        for seed in range(200):
            problem = family.generate(random.Random(seed), level, book)
            drawn.append(f"{problem.operands} {problem.prompt} {problem.answer}")
    assert hashlib.sha256("\n".join(drawn).encode()).hexdigest()[:16] == wanted


def test_measures_are_true() -> None:
    rng = random.Random(3)
    for _ in range(500):
        a, b, c, d = (rng.randint(1, 200) for _ in range(4))
        for text in (
            measures.gcd(a, b),
            measures.lcm(a, b),
            measures.reduce(a, b),
            measures.quotient(-a * b, b),
            measures.calculate(a, b, rng.choice("+-*/"), c, d),
        ):
            assert not checks.wrong_equations(text), text
