"""Sums, differences, products, divisions, remainders and expressions of integers.

Trained to 4-digit sums, 3x3-digit products and 4-digit dividends. Knows nothing of words.
"""

from __future__ import annotations

import random

from magister.answers import extract, same
from magister.tasks import arithmetic_expr, digits, measures
from magister.tasks.arithmetic_division import long_divide
from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import BEYOND, Problem, state

NAME = "arithmetic"
LEVELS = 4

_KINDS = {"mul": 30, "add": 20, "sub": 15, "div": 12, "remainder": 8, "expr": 15}

_SUM_DIGITS = {1: (1, 2), 2: (1, 3), 3: (1, 4), 4: (3, 4)}
"""Fewest and most digits of both numbers of a sum or difference, by level."""

_PRODUCT_DIGITS = {
    1: ((1, 1), (2, 1), (1, 2)),
    2: ((2, 2), (3, 1), (1, 3), (2, 1)),
    3: ((3, 2), (2, 3), (2, 2), (3, 1)),
    4: ((3, 3), (3, 3), (3, 2), (2, 3)),
    BEYOND: ((4, 2), (2, 4), (4, 3), (3, 4)),
}
"""Digits of the two factors, one pair taken at random."""

_DIVISION = {
    "div": {1: (2, 10, 2), 2: (2, 12, 3), 3: (2, 20, 4), 4: (2, 99, 4), BEYOND: (2, 99, 6)},
    "remainder": {1: (2, 10, 2), 2: (2, 10, 3), 3: (2, 12, 4), 4: (2, 20, 4), BEYOND: (2, 20, 6)},
}
"""Least and largest divisor, most digits of the dividend."""

_TRAINED_DIVIDEND = 4
_LONGEST = 420
"""Characters of its measure above which an expression is drawn again."""
_TRIES = 20
_OPERATIONS = {1: (2, 2), 2: (2, 3), 3: (3, 3), 4: (3, 4), BEYOND: (5, 6)}
_EXPR_SIZES = {1: (1, 1, 2), 2: (1, 1, 2), 3: (1, 2, 2), 4: (1, 2, 2, 3), BEYOND: (1, 1, 2)}


def generate(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    """One problem of the family at `level`, `BEYOND` included."""
    kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    if kind == "expr":
        return _expression(rng, level, book)
    if kind in ("add", "sub"):
        a, b = _pair(rng, level, ordered=kind == "sub" and rng.random() < 0.7)
        work = digits.add(a, b) if kind == "add" else digits.subtract(a, b)
        first, result = f"{a}{'+' if kind == 'add' else '-'}{b}", work.result
    elif kind == "mul":
        sizes = rng.choice(_PRODUCT_DIGITS[level])
        a, b = (_number(rng, size, least=0 if level == 1 and rng.random() < 0.1 else 2) for size in sizes)
        work = digits.multiply(a, b)
        first, result = f"{a}*{b}", work.result
    else:
        a, b = _division(rng, kind, level)
        work = long_divide(a, b)
        first = f"{a}/{b}" if kind == "div" else f"remainder {a}/{b}"
        result = work.result if kind == "div" else a % b
    lines = [first, work.text]
    if kind == "remainder":
        lines.append(f"remainder {result}")
    return Problem(
        family=NAME,
        kind=kind,
        level=level,
        operands=(a, b),
        prompt=book.phrase(rng, kind, a=a, b=b),
        thinking="\n".join(lines),
        answer=str(result),
        reply=state(str(result), beyond=level == BEYOND),
    )


def grade(problem: Problem, reply: str) -> bool:
    """Whether the reply gives the number."""
    return same(extract(reply), problem.answer)


def _expression(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    for _ in range(_TRIES):
        if level == BEYOND and rng.random() < 0.4:
            tree = arithmetic_expr.build(rng, 2, (2, 4, 4), most=99_999, largest=1000)
        else:
            tree = arithmetic_expr.build(rng, rng.randint(*_OPERATIONS[level]), _EXPR_SIZES[level])
        if len(arithmetic_expr.work_out(tree, _plainly)) <= _LONGEST:
            break
    answer = str(arithmetic_expr.value(tree))
    shown = arithmetic_expr.write(tree, arithmetic_expr.random_style(rng))
    return Problem(
        family=NAME,
        kind="expr",
        level=level,
        operands=arithmetic_expr.tokens(tree),
        prompt=book.phrase(rng, "expr", e=shown),
        thinking=arithmetic_expr.work_out(tree),
        answer=answer,
        reply=state(answer, beyond=level == BEYOND),
    )


def _plainly(a: int, b: int) -> digits.Work:
    """The division as it is measured."""
    return digits.Work(measures.quotient(a, b), a // b)


def _pair(rng: random.Random, level: int, *, ordered: bool) -> tuple[int, int]:
    if level == BEYOND:
        a, b = _number(rng, rng.randint(5, 6)), _number(rng, rng.randint(3, 6))
        if rng.random() < 0.5:
            a, b = b, a
    else:
        least, most = _SUM_DIGITS[level]
        a, b = (_number(rng, rng.randint(least, most)) for _ in range(2))
    return (max(a, b), min(a, b)) if ordered else (a, b)


def _division(rng: random.Random, kind: str, level: int) -> tuple[int, int]:
    low, high, most = _DIVISION[kind][level]
    size = rng.randint(_TRAINED_DIVIDEND + 1 if level == BEYOND else 1, most)
    b = rng.randint(low, high if rng.random() < 0.7 else min(high, 9))
    if kind == "remainder":
        return _number(rng, size), b
    largest = (10**size - 1) // b
    smallest = -(-(10**4) // b) if level == BEYOND else 1
    if largest < max(smallest, 2):
        return b * rng.randint(2, min(9, (10**most - 1) // b)), b
    quotient = rng.randint(max(smallest, 10 ** (size - 1) // b, 2), largest)
    return b * quotient, b


def _number(rng: random.Random, size: int, least: int = 0) -> int:
    return rng.randint(least if size == 1 else 10 ** (size - 1), 10**size - 1)
