"""Two linear equations in two letters: drawn with integer solutions, written, solved by elimination.

Knows nothing of prompts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import lcm

from magister.tasks import digits
from magister.tasks.equations_linear import Style, divided, join, line, term
from magister.tasks.problem import BEYOND

Row = tuple[int, int, int]
"""a, b, c of `a x + b y = c`; a and b are not 0."""

_COEFFICIENT = {1: 5, 2: 9, 3: 9, 4: 9}
_SOLUTION = {1: 10, 2: 10, 3: 20, 4: 20}
_TOTAL_MOST = 400
"""Above every total c of the trained levels."""
_LONGEST, _LONGEST_BEYOND = 420, 600
_TRIES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Two rows, their solution, and which rows are given as `y = 2x + 1`."""

    first: Row
    second: Row
    x: int
    y: int
    solved: tuple[bool, bool] = (False, False)


def draw(rng: random.Random, level: int) -> System:
    """A system of `level` with one solution; past the range both totals are past the trained ones."""
    for _ in range(_TRIES):
        system = _draw(rng, level)
        if level == BEYOND and min(abs(system.first[2]), abs(system.second[2])) <= _TOTAL_MOST:
            continue
        if len(work_out(system, ("x", "y"))) <= (_LONGEST_BEYOND if level == BEYOND else _LONGEST):
            return system
    if level == BEYOND:
        return System(first=(120, 1, 1625), second=(110, -1, 1365), x=13, y=65)
    return System(first=(1, 1, 7), second=(1, -1, 3), x=5, y=2)


def write(rng: random.Random, system: System, letters: tuple[str, str]) -> tuple[str, str]:
    """Both equations in a way people write them."""
    times = rng.choice(("", "", "", "", "", "*")) if "x" in letters else rng.choice(("", "", "", "", "*", "·"))
    style = Style(gap=rng.choice(("", " ", " ")), times=times)
    return (
        _shown(system.first, letters, style, solved=system.solved[0]),
        _shown(system.second, letters, style, solved=system.solved[1]),
    )


def work_out(system: System, letters: tuple[str, str]) -> str:
    """The lines that solve it: the letter with the smaller common multiple goes, row 1 gives it later."""
    rows = [system.first, system.second]
    given = [_shown(row, letters, solved=solved) for row, solved in zip(rows, system.solved, strict=True)]
    straight = [_shown(row, letters) for row in rows]
    lines = [f"Solve {given[0]}; {given[1]}"]
    if given != straight:
        lines.append(f"{straight[0]}; {straight[1]}")
    common = [lcm(rows[0][place], rows[1][place]) for place in (0, 1)]
    out = 1 if common[1] <= common[0] else 0
    lines.append(f"remove {letters[out]}, make it {common[out]}")
    first, second = (_scale(lines, rows, place, common[out] // abs(rows[place][out]), letters) for place in (0, 1))
    adding = (first[out] > 0) != (second[out] > 0)
    lines.append("row 1 plus row 2:" if adding else "row 1 minus row 2:")
    compute = digits.add if adding else digits.subtract
    kept, known = 1 - out, (system.x, system.y)[1 - out]
    count, right = compute(first[kept], second[kept]), compute(first[2], second[2])
    lines += [count.text, right.text, f"{line(count.result, letters[kept], 0)}={right.result}"]
    lines += divided(letters[kept], count.result, right.result)
    lines.append(f"put {letters[kept]}={known} in {straight[0]}")
    part = digits.multiply(rows[0][kept], known)
    rest = digits.subtract(rows[0][2], part.result)
    lines += [part.text, rest.text, f"{term(rows[0][out], letters[out])}={rest.result}"]
    lines += divided(letters[out], rows[0][out], rest.result)
    return "\n".join([*lines, f"{letters[0]} = {system.x}, {letters[1]} = {system.y}"])


def _draw(rng: random.Random, level: int) -> System:
    reach = 600 if level == BEYOND else _SOLUTION[level]
    least = 0 if level == 1 else -reach
    x, y = (rng.randint(-9, 9) if level > 2 and rng.random() < 0.4 else rng.randint(least, reach) for _ in range(2))
    most = rng.choice((9, 20, 999)) if level == BEYOND else _COEFFICIENT[level]
    rows: list[Row] = []
    while len(rows) < 2:
        a, b = _coefficient(rng, level, most), _coefficient(rng, level, 9 if level == BEYOND else most)
        if rng.random() < 0.15:
            b = rng.choice((1, -1))
        if rows and most > 9:
            b = rng.choice((1, -1)) * rows[0][1]
        if not rows or rows[0][0] * b != rows[0][1] * a:
            rows.append((a, b, a * x + b * y))
    solved = tuple(abs(row[1]) == 1 and rng.random() < 0.4 for row in rows)
    return System(first=rows[0], second=rows[1], x=x, y=y, solved=(solved[0], solved[1]))


def _scale(lines: list[str], rows: list[Row], place: int, scale: int, letters: tuple[str, str]) -> Row:
    row = rows[place]
    if scale == 1:
        return row
    total = digits.multiply(row[2], scale)
    grown = (row[0] * scale, row[1] * scale, total.result)
    lines.append(f"row {place + 1} times {scale}:")
    lines += [digits.multiply(part, scale).text for part in row[:2] if abs(part) > 9]
    lines += [total.text, _shown(grown, letters)]
    return grown


def _shown(row: Row, letters: tuple[str, str], style: Style | None = None, *, solved: bool = False) -> str:
    a, b, c = row
    gap = style.gap if style else ""
    if solved:
        return f"{letters[1]}{gap}={gap}{line(-a * b, letters[0], c * b, style)}"
    left = join([term(a, letters[0], style), term(b, letters[1], style)], style)
    return f"{left}{gap}={gap}{c}"


def _coefficient(rng: random.Random, level: int, most: int) -> int:
    size = rng.randint(100 if most > 100 else 1, most)
    return -size if level != 1 and rng.random() < 0.3 else size
