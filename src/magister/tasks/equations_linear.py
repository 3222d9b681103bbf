"""One linear equation in one letter: drawn with an integer solution, written, solved line by line.

Knows nothing of prompts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from magister.tasks import digits, measures
from magister.tasks.arithmetic_division import exact_divide
from magister.tasks.problem import BEYOND

_FORMS = {1: ("plain",), 2: ("plain", "plain", "over", "group"), BEYOND: ("plain", "both", "over", "group")}
_EVERY_FORM = ("plain", "both", "both", "over", "group", "group_both")
_COEFFICIENT = {1: 9, 2: 9, 3: 12, 4: 20}
_SOLUTION = {1: 12, 2: 20, 3: 40, 4: 120}
_LONGEST, _LONGEST_BEYOND = 350, 600
"""Characters of its measure above which an equation is drawn again."""
_TRIES = 20
_CONSTANT = {1: 20, 2: 60, 3: 120, 4: 500}


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """`a x + b = c x + d`, or with `a(x + b)` or `x/a + b` on the left, by `form`."""

    form: str
    a: int
    b: int
    c: int
    d: int
    flipped: bool = False
    """Whether the sides stand the other way round."""
    last_first: bool = False
    """Whether the number stands before the letter on the left, `5+3x`."""

    def operands(self) -> tuple[int | str, ...]:
        """What makes it this equation, whatever the letter and the order of the terms."""
        return (self.form, self.a, self.b, self.c, self.d)

    def same(self) -> tuple[tuple[int | str, ...], ...]:
        """The operands of the equation with the sides exchanged, where both have the letter and no bracket."""
        return ((self.form, self.c, self.d, self.a, self.b),) if self.form == "both" else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How an equation is written."""

    gap: str = ""
    times: str = ""
    """What stands between a coefficient and its letter or bracket."""


def draw(rng: random.Random, level: int) -> Equation:
    """An equation of `level` with an integer solution; the shortest of some where all are long."""
    drawn: list[tuple[int, int, Equation]] = []
    for _ in range(_TRIES):
        equation = _draw(rng, level)
        length = _measure(equation)
        if length <= (_LONGEST_BEYOND if level == BEYOND else _LONGEST):
            return equation
        drawn.append((length, len(drawn), equation))
    return min(drawn)[2]


def write(rng: random.Random, equation: Equation, letter: str) -> str:
    """The equation in a way people write it."""
    gap = rng.choice(("", " ", " "))
    times = rng.choice(("", "", "", "", "*", "·")) if letter == "x" else rng.choice(("", "", "", "", "*", "·", "×"))
    if gap and times and rng.random() < 0.5:
        times = f" {times} "
    return _shown(equation, letter, Style(gap=gap, times=times))


def work_out(equation: Equation, letter: str) -> tuple[str, int]:
    """The lines that solve it, and the solution."""
    a, b, c, d = equation.a, equation.b, equation.c, equation.d
    swapped = equation.flipped and c != 0
    lines = [f"Solve {_shown(equation, letter)}"]
    if equation.last_first or (equation.flipped and not swapped):
        lines.append(_shown(replace(equation, flipped=swapped, last_first=False), letter))
    if equation.form.startswith("group"):
        work = digits.multiply(a, b)
        b = work.result
        sides = (line(a, letter, b), line(c, letter, d))
        lines += [work.text, "=".join(sides[::-1] if swapped else sides)]
    if swapped:
        a, b, c, d = c, d, a, b
    if equation.form == "over":
        right = _move(lines, f"{letter}/{a}", b, d)
        work = digits.multiply(right, a)
        lines += [f"{letter}={right}*{a}", work.text, f"{letter}={work.result}"]
        return "\n".join(lines), work.result
    if c:
        right = _collect(lines, letter, a, b, c, d)
        a -= c
    else:
        right = _move(lines, line(a, letter, 0), b, d)
    return "\n".join([*lines, *divided(letter, a, right)]), right // a


def line(a: int, letter: str, b: int, style: Style | None = None) -> str:
    """`3x+5`, without what is 0 and without a 1 before the letter."""
    terms = [term(a, letter, style)] if a else []
    if b or not a:
        terms.append(str(b))
    return join(terms, style)


def term(a: int, letter: str, style: Style | None = None) -> str:
    """`3x`, `x`, `-x`."""
    if abs(a) == 1:
        return f"{'-' if a < 0 else ''}{letter}"
    return f"{a}{style.times if style else ''}{letter}"


def join(terms: list[str], style: Style | None = None) -> str:
    """Terms with their signs between them, `3x-5`."""
    gap = style.gap if style else ""
    text = terms[0]
    for part in terms[1:]:
        text += f"{gap}-{gap}{part[1:]}" if part.startswith("-") else f"{gap}+{gap}{part}"
    return text


def divided(letter: str, a: int, right: int) -> list[str]:
    """The lines from `ax=right` to `x=...`; none where a is 1."""
    if a == 1:
        return []
    if a == -1:
        return [f"{letter}={-right}"]
    work = exact_divide(right, a)
    below = f"({a})" if a < 0 else str(a)
    return [f"{letter}={right}/{below}", work.text, f"{letter}={work.result}"]


def _measure(equation: Equation) -> int:
    """Characters of solving it the plain way, the sides turned round where they are flipped."""
    straight = replace(equation, flipped=False, last_first=False)
    length = len(work_out(straight, "x")[0])
    if straight != equation:
        length += len(_shown(straight, "x")) + 1
    a, b = equation.a - equation.c, equation.b * (equation.a if equation.form.startswith("group") else 1)
    if equation.form == "over" or abs(a) == 1:
        return length
    return length + len(measures.quotient(equation.d - b, a)) - len(exact_divide(equation.d - b, a).text)


def _draw(rng: random.Random, level: int) -> Equation:
    form = rng.choice(_FORMS.get(level, _EVERY_FORM))
    a, b, x = (_beyond if level == BEYOND else _trained)(rng, level)
    if form == "over":
        a = max(2, abs(a))
        return _turned(rng, Equation(form=form, a=a, b=b, c=0, d=x + b), level)
    if form.startswith("group"):
        a, b = (a if abs(a) > 1 else 2), (b or 3)
        if level != BEYOND:
            b = max(-50, min(b, 50))
    left = a * (x + b) if form.startswith("group") else a * x + b
    c = 0
    while form in ("both", "group_both") and c in (0, a):
        size = _magnitude(rng, 999 if level == BEYOND else _COEFFICIENT[level])
        c = size if rng.random() < 0.75 else -size
    return _turned(rng, Equation(form=form, a=a, b=b, c=c, d=left - c * x), level)


def _trained(rng: random.Random, level: int) -> tuple[int, int, int]:
    a, b, x = (_magnitude(rng, most[level]) for most in (_COEFFICIENT, _CONSTANT, _SOLUTION))
    if rng.random() < 0.1:
        a, b = (1, b) if rng.random() < 0.5 else (a, 0)
    if a == 1 and b == 0:
        b = 4
    if rng.random() < 0.4:
        b = -b
    if level > 1:
        x = -x if rng.random() < 0.35 else x
        a = -a if level > 2 and rng.random() < 0.2 else a
    return a, b, x


def _beyond(rng: random.Random, level: int) -> tuple[int, int, int]:
    x = rng.randint(501, 999) if rng.random() < 0.5 else rng.randint(2, 120)
    return rng.randint(121, 999), rng.choice((1, -1)) * rng.randint(100, 999), rng.choice((1, 1, -1)) * x


def _turned(rng: random.Random, equation: Equation, level: int) -> Equation:
    orders = equation.form in ("plain", "both", "over") and equation.b != 0
    return Equation(
        form=equation.form,
        a=equation.a,
        b=equation.b,
        c=equation.c,
        d=equation.d,
        flipped=rng.random() < 0.15,
        last_first=orders and rng.random() < 0.2,
    )


def _magnitude(rng: random.Random, most: int) -> int:
    size = rng.randint(1, len(str(most)))
    return rng.randint(1 if size == 1 else 10 ** (size - 1), min(most, 10**size - 1))


def _shown(equation: Equation, letter: str, style: Style | None = None) -> str:
    gap = style.gap if style else ""
    if equation.form.startswith("group"):
        front = {1: "", -1: "-"}.get(equation.a, f"{equation.a}{style.times if style else ''}")
        left = f"{front}({line(1, letter, equation.b, style)})"
    else:
        over = equation.form == "over"
        terms = [f"{letter}/{equation.a}" if over else term(equation.a, letter, style)]
        terms += [str(equation.b)] if equation.b else []
        left = join(terms[::-1] if equation.last_first else terms, style)
    right = line(equation.c, letter, equation.d, style)
    return f"{right}{gap}={gap}{left}" if equation.flipped else f"{left}{gap}={gap}{right}"


def _move(lines: list[str], left: str, b: int, d: int) -> int:
    """Takes b to the right of `left + b = d`; adds the lines and returns the new right."""
    if b == 0:
        if lines[-1] not in (f"{left}={d}", f"Solve {left}={d}"):
            lines.append(f"{left}={d}")
        return d
    work = digits.subtract(d, b) if b > 0 else digits.add(d, -b)
    lines += [f"{left}={d}{'-' if b > 0 else '+'}{abs(b)}", work.text, f"{left}={work.result}"]
    return work.result


def _collect(lines: list[str], letter: str, a: int, b: int, c: int, d: int) -> int:
    """Takes the letter left and the numbers right; adds the lines and returns the right."""
    left = join([term(a, letter), term(-c, letter)])
    count = digits.subtract(a, c) if c > 0 else digits.add(a, -c)
    if b == 0:
        lines += [f"{left}={d}", count.text, f"{line(count.result, letter, 0)}={d}"]
        return d
    work = digits.subtract(d, b) if b > 0 else digits.add(d, -b)
    lines.append(f"{left}={d}{'-' if b > 0 else '+'}{abs(b)}")
    lines += [count.text, work.text, f"{line(count.result, letter, 0)}={work.result}"]
    return work.result
