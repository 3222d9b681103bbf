"""Two linear equations in two letters: drawn with integer solutions, written, solved by elimination.

Knows nothing of prompts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product

from magister.tasks import digits, measures
from magister.tasks.equations_linear import Style, divided, join, line, term
from magister.tasks.problem import BEYOND

Row = tuple[int, int, int]
"""a, b, c of `a x + b y = c`; a and b are not 0."""

_COEFFICIENT = {1: 5, 2: 9, 3: 9, 4: 9}
_SOLUTION = {1: 10, 2: 10, 3: 20, 4: 20}
_TOTAL_MOST = 400
"""Above every total c of the trained levels."""
_LONGEST, _LONGEST_BEYOND = 420, 600
"""Characters of its measure above which a system is drawn again."""
_TRIES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Two rows, their solution, and which rows are given as `y = 2x + 1`."""

    first: Row
    second: Row
    x: int
    y: int
    solved: tuple[bool, bool] = (False, False)

    def operands(self) -> tuple[int, ...]:
        """What makes it this system, whatever the letters and the way it is written."""
        return (*self.first, *self.second)

    def same(self) -> tuple[tuple[int, ...], ...]:
        """The operands of all systems that are written like it: a row and its negation are both `y = 2x + 1`."""
        signs = [(1, -1) if solved else (1,) for solved in self.solved]
        every = [
            (*(first * part for part in self.first), *(second * part for part in self.second))
            for first, second in product(*signs)
        ]
        return tuple(every[1:])


def draw(rng: random.Random, level: int) -> System:
    """A system of `level` with one solution; past the range both totals are past the trained ones."""
    for _ in range(_TRIES):
        system = _draw(rng, level)
        if level == BEYOND and min(abs(system.first[2]), abs(system.second[2])) <= _TOTAL_MOST:
            continue
        length = measures.eliminate((system.first, system.second), system.solved, system.x, system.y)
        if length <= (_LONGEST_BEYOND if level == BEYOND else _LONGEST):
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
    """The lines that solve it: the second letter is removed, row 1 gives it later."""
    given = [_shown(row, letters, solved=solved) for row, solved in _rows(system)]
    lines = [f"Solve {given[0]}; {given[1]}"]
    rows = [_straight(row) if solved else row for row, solved in _rows(system)]
    if any(system.solved):
        lines.append("; ".join(_shown(row, letters) for row in rows))
    lines += _without_second(rows, letters)
    a, b, c = rows[0]
    value, last = a * system.x, term(b, letters[1])
    part = digits.multiply(abs(system.x), abs(a))
    rest = digits.subtract(c, value) if value >= 0 else digits.add(c, -value)
    lines += [part.text, f"{join([str(value), last])}={c}"]
    lines += [f"{last}={c}{'-' if value >= 0 else '+'}{part.result}", rest.text, f"{last}={rest.result}"]
    lines += divided(letters[1], b, rest.result)
    return "\n".join([*lines, f"{letters[0]} = {system.x}, {letters[1]} = {system.y}"])


def _rows(system: System) -> tuple[tuple[Row, bool], tuple[Row, bool]]:
    return (system.first, system.solved[0]), (system.second, system.solved[1])


def _without_second(rows: list[Row], letters: tuple[str, str]) -> list[str]:
    """The lines to the first letter; each row is taken as often as the other one has the second letter.

    Row 2 as often less than none where both have it with the same sign, so that the rows are always added.
    """
    (a, b, c), (d, e, f) = rows
    times, often = (1, 1) if abs(b) == abs(e) else (abs(e), abs(b))
    often = -often if (b > 0) == (e > 0) else often
    lines = [f"remove {b:+d}{letters[1]}, {e:+d}{letters[1]}: row 1 times {times}, row 2 times {often}"]
    for left, right_side, factor in ((a, c, times), (d, f, often)):
        # Sizes first; signs behind what they are of. The second letter is left out, so this is no equation.
        lines.append(digits.multiply(abs(right_side), abs(factor)).text)
        given, taken = (f"{term(left * by, letters[0])}, {right_side * by}" for by in (1, factor))
        lines.append(f"{given} times {factor}: {taken}")
    a, c, d, f = a * times, c * times, d * often, f * often
    count, right = digits.plus(a, d), digits.plus(c, f)
    lines.append(f"{join([term(a, letters[0]), term(d, letters[0])])}={join([str(c), str(f)])}")
    lines += [count.text, right.text, f"{term(count.result, letters[0])}={right.result}"]
    return lines + divided(letters[0], count.result, right.result)


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


def _straight(row: Row) -> Row:
    """What is given as `y = 2x + 1` is `-2x + y = 1`, whatever the signs it was drawn with."""
    a, b, c = row
    return a * b, 1, c * b


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
