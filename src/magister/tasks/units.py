"""Converting quantities of length, mass, volume and time, and adding two of different units.

Quantities are exact and have at most two decimals. Knows nothing of miles, pounds or prices.
"""

from __future__ import annotations

import random
import re
from fractions import Fraction

from magister.answers import extract, rational
from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import BEYOND, Problem, state
from magister.tasks.units_convert import (
    METRIC,
    TIME,
    Converted,
    add,
    convert,
    decimals,
    distance,
    quantity,
    shown,
    size,
)

NAME = "units"
LEVELS = 4

_DIGITS = (2, 3, 4, 4)
_METRIC_STEPS = (3, 3, 6, 6)
_TIME_STEPS = (1, 1, 2, 3)
_LONG = 6
_FAR = ({"km", "mm"}, {"t", "mg"})
_MOST_CHARACTERS = 260
_TRIES = 300

_WORDS: dict[str, tuple[str, ...]] = {
    "mm": ("millimetres", "millimeters"),
    "cm": ("centimetres", "centimeters"),
    "m": ("metres", "meters"),
    "km": ("kilometres", "kilometers"),
    "mg": ("milligrams",),
    "g": ("grams",),
    "kg": ("kilograms", "kilos"),
    "t": ("tonnes",),
    "ml": ("millilitres", "milliliters"),
    "cl": ("centilitres", "centiliters"),
    "l": ("litres", "liters"),
    "s": ("seconds", "secs", "sec"),
    "min": ("minutes", "mins", "minute"),
    "h": ("hours", "hrs", "hour", "hr"),
    "days": ("days", "day", "d"),
    "weeks": ("weeks", "week"),
}
_QUANTITY = re.compile(r"(-?\d[\d,]*(?:\.\d+)?(?:/\d+)?) ?([A-Za-z]+)")
_QUANTITIES = re.compile(rf"{_QUANTITY.pattern}(?:(?:,| and|, and)? {_QUANTITY.pattern})*")


def generate(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    """A conversion or a sum; sums from level 2 on."""
    if not BEYOND <= level <= LEVELS:
        raise ValueError(f"{NAME} has levels 1 to {LEVELS} and BEYOND, got {level}")
    kind = "sum" if level != 1 and rng.random() < 0.35 else "convert"
    given, to, steps = _draw(rng, level, 2 if kind == "sum" else 1)
    asked, asked_to = _spelled(rng, given, to)
    slots = {"q": asked[0]} if kind == "convert" else {"q1": asked[0], "q2": asked[1]}
    prompt = book.phrase(rng, kind, to=asked_to, **slots)
    lines = [" + ".join(quantity(*one) for one in given) + f" in {to}", *steps[0].lines]
    answer = steps[0].answer
    if kind == "sum":
        swapped = _stands_at(prompt, asked[1]) < _stands_at(prompt, asked[0])
        lines, answer = _summed(given[::-1] if swapped else given, to, steps[::-1] if swapped else steps)
    operands = [part for value, unit in given for part in (_operand(value), unit)]
    return Problem(
        family=NAME,
        kind=kind,
        level=level,
        operands=(*operands, to),
        prompt=prompt,
        thinking="\n".join(lines),
        answer=answer,
        reply=state(answer, beyond=level == BEYOND),
    )


def _summed(given: list[tuple[Fraction, str]], to: str, steps: list[Converted]) -> tuple[list[str], str]:
    """The lines of a sum and its answer: each quantity named and converted in turn, then added."""
    lines = [" + ".join(quantity(*one) for one in given) + f" in {to}"]
    for one, step in zip(given, steps, strict=True):
        lines += [f"{quantity(*one)} in {to}", *(step.lines or ["same"])]
    answer = quantity(steps[0].value + steps[1].value, to)
    return [*lines, add(steps[0].value, steps[1].value), answer], answer


def _stands_at(prompt: str, asked: str) -> int:
    """Where in the prompt the quantity stands, not as the end of a longer number or before a longer word."""
    found = re.search(rf"(?<![\d.]){re.escape(asked)}(?![A-Za-z])", prompt)
    return found.start() if found else len(prompt)


def grade(problem: Problem, reply: str) -> bool:
    """Whether the reply gives the quantity: bare, in the unit asked for, or as `1 h 40 min`."""
    parts, to = problem.operands[:-1], str(problem.operands[-1])
    due = sum(Fraction(str(parts[at])) * size(str(parts[at + 1])) for at in range(0, len(parts), 2))
    text = extract(reply).strip().rstrip(".")
    bare = rational(text)
    if bare is not None:
        return bare * size(to) == due
    if not _QUANTITIES.fullmatch(text):
        return False
    found = [(rational(number), _unit(name)) for number, name in _QUANTITY.findall(text)]
    if found[0][1] != to or (len(found) > 1 and to not in TIME):
        return False
    total, last = Fraction(0), len(TIME)
    for number, unit in found:
        if number is None or unit is None or (to in TIME and (unit not in TIME or TIME.index(unit) >= last)):
            return False
        last = TIME.index(unit) if to in TIME else last
        total += number * size(unit)
    return total == due


def _draw(rng: random.Random, level: int, count: int) -> tuple[list[tuple[Fraction, str]], str, list[Converted]]:
    """Quantities, the unit asked for and the conversions; a plain fallback ends the search."""
    for _ in range(_TRIES):
        units = list(TIME) if rng.random() < 0.4 else list(rng.choice(METRIC))
        to, used = rng.choice(units), rng.sample(units, count)
        if (count == 1 and used[0] == to) or not _in_reach(used, to, level):
            continue
        given = [(_value(rng, level, unit, to), unit) for unit in used]
        steps = [convert(value, unit, to) for value, unit in given]
        found = [step for step in steps if step is not None]
        if len(found) == count and _fits(given, to, found, level):
            return given, to, found
    low = 10 ** (_LONG - 1) if level == BEYOND else 1
    given = [(Fraction(rng.randrange(low, 10 * low)), unit) for unit in ("min", "s")[:count]]
    return given, "s", [step for step in (convert(value, unit, "s") for value, unit in given) if step]


def _in_reach(used: list[str], to: str, level: int) -> bool:
    """Whether the units lie as far apart as the level has them."""
    apart = max(abs(distance(unit, to)) for unit in used)
    if level == BEYOND:
        return True
    if any({unit, to} in _FAR for unit in used):
        return False
    return apart <= (_TIME_STEPS if to in TIME else _METRIC_STEPS)[level - 1]


def _value(rng: random.Random, level: int, unit: str, to: str) -> Fraction:
    """A number with its digit count drawn first; round ones too where the unit asked for is larger."""
    if level == BEYOND:
        length = rng.randint(2, 4) if {unit, to} in _FAR or rng.random() < 0.2 else _LONG
        return Fraction(rng.randrange(10 ** (length - 1), 10**length))
    length = rng.randint(1, _DIGITS[level - 1])
    value = Fraction(rng.randrange(10 ** (length - 1), 10**length))
    ratio = size(to) / size(unit)
    if ratio > 1 and (level == 1 or rng.random() < 0.3):
        return value * ratio
    if level >= 3 and value >= 10 and rng.random() < 0.6:
        return value / 10 ** rng.choice((1, 1, 2))
    return value


def _fits(given: list[tuple[Fraction, str]], to: str, steps: list[Converted], level: int) -> bool:
    """Whether numbers and results are short enough, and past the trained range where they must be."""
    longest = max(len(str(int(value))) for value, _ in given)
    if level == BEYOND:
        far = len(given) == 1 and {given[0][1], to} in _FAR
        apart = max(abs(distance(unit, to)) for _, unit in given)
        if not far and (longest < _LONG or apart > (1 if to in TIME else 3)):
            return False
    elif longest >= _LONG:
        return False
    if sum(step.measure for step in steps) > _MOST_CHARACTERS:
        return False
    places = [decimals(step.value) for step in steps]
    if len(given) == 1:
        return (places[0] or 0) <= (0 if level == 1 else 7 if level == BEYOND else 5)
    most = max(9 if place is None else place for place in places)
    total = int(sum(step.value for step in steps) * 10**most)
    return most <= (0 if level == 2 else 3) and len(str(total)) <= (10 if level == BEYOND else _LONG)


def _spelled(rng: random.Random, given: list[tuple[Fraction, str]], to: str) -> tuple[list[str], str]:
    """The quantities and the unit as one person writes them: symbols, no gap, or words."""
    draw, which = rng.random(), rng.randrange(2)
    words, gap = draw < 0.35, "" if draw > 0.9 else " "

    def name(unit: str) -> str:
        return _WORDS[unit][which % min(2, len(_WORDS[unit]))] if words and unit not in ("days", "weeks") else unit

    asked = []
    for value, unit in given:
        one = value == 1 and len(name(unit)) > 3
        asked.append(f"{shown(value)}{gap}{name(unit).removesuffix('s') if one else name(unit)}")
    return asked, name(to)


def _unit(name: str) -> str | None:
    """The unit that a symbol or word means."""
    name = name if name in _WORDS else name.lower()
    for unit, words in _WORDS.items():
        if name == unit or name in words or f"{name}s" in words:
            return unit
    return None


def _operand(value: Fraction) -> int | str:
    return int(value) if value.denominator == 1 else shown(value)
