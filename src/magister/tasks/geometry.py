"""Areas, perimeters and angles of plain figures, by their formulas.

Lengths are bare integers. Knows nothing of circles, solids or Pythagoras.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from magister.answers import extract, rational
from magister.tasks import digits
from magister.tasks.arithmetic_division import long_divide
from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import BEYOND, Problem, state

NAME = "geometry"
LEVELS = 3

_FIGURES = (
    "rect_area",
    "rect_perimeter",
    "square_area",
    "square_perimeter",
    "rect_side",
    "triangle_area",
    "trapezoid_area",
    "polygon_sum",
)
_ANGLES = ("triangle_angle", "line_angle", "point_angle")
_MOST_SIDES = (8, 20, 40)
_BEYOND_SIDES = (50, 999)
_TRAINED_AREA = 99_999
_AREAS = ("rect_area", "square_area", "triangle_area", "trapezoid_area")
_LENGTHS = "mm|cm|dm|m|km|inches|feet|ft|yards|units|metres|meters|centimetres|centimeters|kilometres|kilometers"
_SQUARED = re.compile(rf"(?:square |sq\.? ?)({_LENGTHS})|({_LENGTHS})(?:²|\^2|2)")
_Made = tuple[dict[str, int], list[str], str]


def generate(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    """One figure; past the trained range only figures that can grow."""
    if not BEYOND <= level <= LEVELS:
        raise ValueError(f"{NAME} has levels 1 to {LEVELS} and BEYOND, got {level}")
    kind = rng.choice(_FIGURES if level == BEYOND else _FIGURES + _ANGLES)
    slots, lines, answer = _KINDS[kind](rng, level)
    return Problem(
        family=NAME,
        kind=kind,
        level=level,
        operands=tuple(slots.values()),
        prompt=book.phrase(rng, kind, **slots),
        thinking="\n".join(lines),
        answer=answer,
        reply=state(answer, beyond=level == BEYOND),
    )


def grade(problem: Problem, reply: str) -> bool:
    """Whether the reply gives the number, bare or with the unit that the prompt uses."""
    text = extract(reply).strip().rstrip(".")
    match = re.match(r"-?[\d.,/ ]*\d", text)
    if match is None:
        return False
    number, unit = rational(match.group()), text[match.end() :].strip()
    return number == rational(problem.answer) and _unit_fits(problem, unit)


def _unit_fits(problem: Problem, unit: str) -> bool:
    if not unit:
        return True
    if problem.kind == "polygon_sum" or problem.kind in _ANGLES:
        return unit in ("°", "degrees", "degree", "deg")
    if problem.kind in _AREAS:
        match = _SQUARED.fullmatch(unit)
        unit = (match.group(1) or match.group(2)) if match else ""
    return bool(unit) and unit in re.findall(r"[a-z]+", problem.prompt.lower())


def _side(rng: random.Random, level: int) -> int:
    """A length, its digit count drawn first; past the trained range the first one has four digits."""
    length = 4 if level == BEYOND else rng.randint((1, 1, 2)[level - 1], level)
    return rng.randrange(max(2, 10 ** (length - 1)), 10**length)


def _sides(rng: random.Random, level: int) -> tuple[int, int]:
    """Two lengths in any order, one of them short enough to keep the thought short."""
    pair = [_side(rng, level), _side(rng, 1 if level == BEYOND else min(level, 2))]
    rng.shuffle(pair)
    return pair[0], pair[1]


def _rect_area(rng: random.Random, level: int) -> _Made:
    w, h = _sides(rng, level)
    work = digits.multiply(w, h)
    return {"w": w, "h": h}, [f"rectangle {w} by {h}, area", work.text], str(work.result)


def _rect_perimeter(rng: random.Random, level: int) -> _Made:
    w, h = _side(rng, level), _side(rng, level)
    half = digits.add(w, h)
    work = digits.multiply(half.result, 2)
    return {"w": w, "h": h}, [f"rectangle {w} by {h}, perimeter", half.text, work.text], str(work.result)


def _square_area(rng: random.Random, level: int) -> _Made:
    s = rng.randrange(11, 100) * 100 if level == BEYOND else _side(rng, level)
    work = digits.multiply(s, s)
    return {"s": s}, [f"square {s}, area", work.text], str(work.result)


def _square_perimeter(rng: random.Random, level: int) -> _Made:
    s = _side(rng, level)
    work = digits.multiply(s, 4)
    return {"s": s}, [f"square {s}, perimeter", work.text], str(work.result)


def _rect_side(rng: random.Random, level: int) -> _Made:
    h, low = _side(rng, level), 0
    if level == BEYOND:
        low = _TRAINED_AREA // h + 1
    w = rng.randint(low, low + 99) if low else _side(rng, min(level, 2))
    work = long_divide(w * h, w)
    return {"area": w * h, "w": w}, [f"rectangle area {w * h}, side {w}", work.text], str(work.result)


def _halved(twice: int) -> tuple[list[str], str]:
    half = f"{twice // 2}.5" if twice % 2 else str(twice // 2)
    lines = [digits.divide(twice, 2).text]
    return [*lines, f"{twice}/2={half}"] if twice % 2 else lines, half


def _triangle_area(rng: random.Random, level: int) -> _Made:
    b, h = _sides(rng, level)
    work = digits.multiply(b, h)
    lines, half = _halved(work.result)
    return {"b": b, "h": h}, [f"triangle base {b}, height {h}, area", work.text, *lines], half


def _trapezoid_area(rng: random.Random, level: int) -> _Made:
    a, b = _sides(rng, level)
    h = _side(rng, 1 if level == BEYOND else min(level, 2))
    total = digits.add(a, b)
    work = digits.multiply(total.result, h)
    lines, half = _halved(work.result)
    first = f"trapezoid sides {a} and {b}, height {h}, area"
    return {"a": a, "b": b, "h": h}, [first, total.text, work.text, *lines], half


def _polygon_sum(rng: random.Random, level: int) -> _Made:
    n = rng.randint(*_BEYOND_SIDES) if level == BEYOND else rng.randint(3, _MOST_SIDES[level - 1])
    less = digits.subtract(n, 2)
    work = digits.multiply(180, less.result)
    return {"n": n}, [f"polygon {n} sides, angle sum", less.text, work.text], str(work.result)


def _angle(rng: random.Random, level: int, most: int) -> int:
    """Round angles at level 1."""
    step = (10, 5, 1)[level - 1]
    return rng.randint(1, max(1, most // step)) * step


def _rest(whole: int, parts: list[int], name: str) -> tuple[list[str], str]:
    lines, total = [f"{name} " + ", ".join(map(str, parts))], parts[0]
    for part in parts[1:]:
        lines.append(digits.add(total, part).text)
        total += part
    work = digits.subtract(whole, total)
    return [*lines, work.text], str(work.result)


def _triangle_angle(rng: random.Random, level: int) -> _Made:
    a = _angle(rng, level, 160)
    b = _angle(rng, level, 170 - a)
    return {"a": a, "b": b}, *_rest(180, [a, b], "triangle angles")


def _line_angle(rng: random.Random, level: int) -> _Made:
    a = _angle(rng, level, 170)
    return {"a": a}, *_rest(180, [a], "straight line, angle")


def _point_angle(rng: random.Random, level: int) -> _Made:
    a = _angle(rng, level, 150)
    b = _angle(rng, level, min(170, 280 - a))
    c = _angle(rng, level, min(170, 350 - a - b))
    return {"a": a, "b": b, "c": c}, *_rest(360, [a, b, c], "full turn, angles")


_KINDS: dict[str, Callable[[random.Random, int], _Made]] = {
    "rect_area": _rect_area,
    "rect_perimeter": _rect_perimeter,
    "square_area": _square_area,
    "square_perimeter": _square_perimeter,
    "rect_side": _rect_side,
    "triangle_area": _triangle_area,
    "trapezoid_area": _trapezoid_area,
    "polygon_sum": _polygon_sum,
    "triangle_angle": _triangle_angle,
    "line_angle": _line_angle,
    "point_angle": _point_angle,
}
