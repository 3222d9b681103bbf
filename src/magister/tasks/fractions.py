"""Fractions and percentages: calculating, lowest terms, a part, a rise, a fall, a share in percent.

Trained to denominators of 20 and 4-digit wholes. Knows nothing of words.
"""

from __future__ import annotations

import random
import re
from fractions import Fraction
from math import gcd
from typing import NamedTuple

from magister.answers import extract, rational
from magister.tasks import digits, measures, numbers_euclid
from magister.tasks.arithmetic_division import long_divide
from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import BEYOND, Problem, state

NAME = "fractions"
LEVELS = 4

_KINDS = {"calc": 42, "simplify": 18, "percent_of": 14, "percent_up": 8, "percent_down": 8, "what_percent": 10}
_BOTTOM_MOST = {1: 6, 2: 10, 3: 12, 4: 20}
_SIMPLIFY_MOST = {1: 30, 2: 99, 3: 300, 4: 999, BEYOND: 99_999}
_WHOLE_MOST = {1: 200, 2: 999, 3: 999, 4: 9999, BEYOND: 99_999}
_BEYOND_LEAST = 10_000
_LONGEST, _LONGEST_BEYOND = 400, 600
"""Characters of their measure above which operands are drawn again."""
_TRIES = 30
_SIGNS = {
    "+": (" + ", "+", " plus ", " + "),
    "-": (" - ", "-", " minus ", " - "),
    "*": (" * ", "*", " times ", " × ", "×", " x ", " · "),
    "/": (" ÷ ", "÷", " divided by ", " ÷ ", " / "),
}


class _Task(NamedTuple):
    operands: tuple[int | str, ...]
    slots: dict[str, object]
    lines: list[str]
    answer: str


def generate(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    """One problem of the family at `level`, `BEYOND` included."""
    kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    makers = {"calc": _calc, "simplify": _simplify, "percent_of": _percent_of, "what_percent": _what_percent}
    task = makers[kind](rng, level) if kind in makers else _change(rng, level, up=kind == "percent_up")
    return Problem(
        family=NAME,
        kind=kind,
        level=level,
        operands=task.operands,
        prompt=book.phrase(rng, kind, **task.slots),
        thinking="\n".join(task.lines),
        answer=task.answer,
        reply=state(task.answer, beyond=level == BEYOND),
    )


def grade(problem: Problem, reply: str) -> bool:
    """Whether the reply gives the value; a fraction must be in lowest terms, `%` is free where asked."""
    given = extract(reply)
    if problem.kind == "what_percent":
        return rational(re.sub(r"\s*(%|percent)\s*\.?$", "", given)) == rational(problem.answer.rstrip("%"))
    value = rational(given)
    if value is None or value != rational(problem.answer):
        return False
    if problem.kind not in ("calc", "simplify"):
        return True
    if "/" not in given:
        return problem.kind == "calc" or "/" not in problem.answer
    return re.sub(r"\s", "", given).replace("−", "-").rstrip(".") == problem.answer


def _calc(rng: random.Random, level: int) -> _Task:
    for _ in range(_TRIES):
        a, b, c, d = _fractions(rng, level)
        sign = rng.choices("+-*/", (30, 28, 24, 18))[0]
        if sign == "-" and a * d < c * b and rng.random() < 0.6:
            a, b, c, d = c, d, a, b
        if len(measures.calculate(a, b, sign, c, d)) <= (_LONGEST_BEYOND if level == BEYOND else _LONGEST):
            break
    lines, value = _work(a, b, sign, c, d)
    left, right = _shown(a, b), _shown(c, d)
    joint = rng.choice(_SIGNS[sign])
    if joint == " / " or (sign in "*/" and rng.random() < 0.15):
        left, right = (f"({part})" if "/" in part else part for part in (left, right))
    return _Task((a, b, sign, c, d), {"e": f"{left}{joint}{right}"}, lines, str(value))


def _fractions(rng: random.Random, level: int) -> tuple[int, int, int, int]:
    """Two fractions in no particular form; past the range the bottoms share a large factor."""
    if level == BEYOND:
        common = rng.randint(25, 120)
        least = -(-101 // common)
        b, d = (common * rng.randint(least, least + 5) for _ in range(2))
        return rng.randint(1, 40), min(b, 999), rng.randint(1, 40), min(d, 999)
    most = _BOTTOM_MOST[level]
    b = rng.randint(2, most)
    d = b if rng.random() < 0.15 else rng.randint(2, most)
    limit = 0 if level == 1 or rng.random() < 0.6 else most
    a, c = (rng.randint(1, max(limit, bottom - 1)) for bottom in (b, d))
    if level > 1 and rng.random() < 0.12:
        a, b = rng.randint(2, 12), 1
    return (c, d, a, b) if b == 1 and rng.random() < 0.5 else (a, b, c, d)


def _work(a: int, b: int, sign: str, c: int, d: int) -> tuple[list[str], Fraction]:
    """The lines, both operands written as fractions, and the value."""
    whole = f"({a}/{b})/({c}/{d})" if sign == "/" else f"{a}/{b}{sign}{c}/{d}"
    lines = [whole]
    if sign in "*/":
        if sign == "/":
            c, d = d, c
            lines.append(f"{a}/{b}*{c}/{d}")
        top, bottom = digits.multiply(a, c), digits.multiply(b, d)
        lines += [top.text, bottom.text]
        above, below = top.result, bottom.result
    else:
        above, below = _common(lines, a, b, sign, c, d)
    lines.append(f"{above}/{below}")
    text, above, below = numbers_euclid.reduce(above, below)
    value = Fraction(above, below)
    return [*lines, text, f"{whole}={value}"], value


def _common(lines: list[str], a: int, b: int, sign: str, c: int, d: int) -> tuple[int, int]:
    """Top and bottom of the sum or difference over the least common bottom; adds its lines."""
    common = numbers_euclid.gcd(b, d)
    left, right = numbers_euclid.share(b, common.result), numbers_euclid.share(d, common.result)
    first, second = digits.multiply(a, right.result), digits.multiply(c, left.result)
    top = digits.add(first.result, second.result) if sign == "+" else digits.subtract(first.result, second.result)
    bottom = digits.multiply(d, left.result)
    lines += [work.text for work in (common, left, right, first, second, top, bottom)]
    return top.result, bottom.result


def _simplify(rng: random.Random, level: int) -> _Task:
    most = _SIMPLIFY_MOST[level]
    for _ in range(_TRIES):
        if level == BEYOND:
            common = rng.randint(1000, 4999)
            top, bottom = (common * rng.randint(-(-_BEYOND_LEAST // common), most // common) for _ in range(2))
        else:
            limit = min(most, 10 ** rng.randint(len(str(most)) - (level > 1), len(str(most))) - 1)
            common = rng.randint(2, max(2, limit // 3)) if rng.random() < 0.93 else 1
            top, bottom = (common * rng.randint(1, limit // common) for _ in range(2))
            if top > bottom and rng.random() < 0.7:
                top, bottom = bottom, top
        length = len(measures.reduce(top, bottom))
        if bottom > 1 and top != bottom and length <= (_LONGEST_BEYOND if level == BEYOND else _LONGEST):
            break
    text, above, below = numbers_euclid.reduce(top, bottom)
    answer = str(Fraction(above, below))
    lines = [f"simplify {top}/{bottom}", text, f"{top}/{bottom}={answer}"]
    return _Task((top, bottom), {"f": f"{top}/{bottom}"}, lines, answer)


def _percent(rng: random.Random, level: int, most: int = 99) -> int:
    if level <= 2 or rng.random() < 0.35:
        return rng.choice((10, 20, 25, 50, 75, 5 * rng.randint(1, most // 5)))
    return rng.randint(1, most)


def _whole(rng: random.Random, level: int, step: int) -> int:
    """A multiple of `step` up to the most of the level, its number of digits taken first."""
    most = _WHOLE_MOST[level]
    least = _BEYOND_LEAST if level == BEYOND else 10 ** rng.randint(1, len(str(most)) - 1)
    top = most if level == BEYOND else min(most, least * 10 - 1)
    if top // step < 1:
        return step
    return step * rng.randint(min(-(-least // step), top // step), top // step)


def _percent_of(rng: random.Random, level: int) -> _Task:
    p = _percent(rng, level)
    if level >= 3 and rng.random() < 0.1:
        p = 100 + 5 * rng.randint(1, 20)
    fine = 10 if level in (3, 4) and rng.random() < 0.3 else 100
    n = _whole(rng, level, fine // gcd(p, fine))
    work = digits.multiply(n, p)
    value = _hundredth(work.result)
    lines = [f"{p}% of {n}", work.text, f"{work.result}/100={value}"]
    return _Task((p, n), {"p": p, "n": n}, lines, value)


def _change(rng: random.Random, level: int, *, up: bool) -> _Task:
    p = _percent(rng, level)
    if up and level >= 3 and rng.random() < 0.1:
        p = 100 + 10 * rng.randint(0, 10)
    n = _whole(rng, level, 100 // gcd(p, 100))
    work = digits.multiply(n, p)
    part = work.result // 100
    last = digits.add(n, part) if up else digits.subtract(n, part)
    lines = [f"{n}{'+' if up else '-'}{p}%", work.text, f"{work.result}/100={part}", last.text]
    return _Task((n, p), {"n": n, "p": p}, lines, str(last.result))


def _what_percent(rng: random.Random, level: int) -> _Task:
    p = _percent(rng, level, 100)
    if level >= 3 and rng.random() < 0.08:
        p = 100 + 10 * rng.randint(1, 10)
    step = 100 // gcd(p, 100)
    b = _whole(rng, level if level in (1, BEYOND) else level - 1, step)
    a = b * p // 100
    work = long_divide(100 * a, b)
    lines = [f"{a} of {b} in %", f"{a}*100={100 * a}", work.text, f"{a} of {b}={p}%"]
    return _Task((a, b), {"a": a, "b": b}, lines, f"{p}%")


def _hundredth(number: int) -> str:
    whole, rest = divmod(number, 100)
    return f"{whole}.{rest:02d}".rstrip("0") if rest else str(whole)


def _shown(top: int, bottom: int) -> str:
    return str(top) if bottom == 1 else f"{top}/{bottom}"
