"""The units that are known and the written-out conversion of one exact quantity.

Metric units move the decimal point one place a step (`3.5*1000=35*100=350*10=3500`); time goes
through long division by 60, 24 and 7. Knows nothing of prompts or levels.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from magister.tasks import digits
from magister.tasks.arithmetic_division import long_divide

METRIC = ({"mm": 0, "cm": 1, "m": 3, "km": 6}, {"mg": 0, "g": 3, "kg": 6, "t": 9}, {"ml": 0, "cl": 1, "l": 3})
"""Powers of ten of the smallest unit of length, mass and volume."""

TIME = ("s", "min", "h", "days", "weeks")
"""Units of time, smallest first."""

_IN_NEXT = (60, 60, 24, 7)
_SCALE = 100
_MOST_DECIMALS = 9


class Converted(NamedTuple):
    """A conversion written out."""

    lines: list[str]
    value: Fraction
    """The quantity in the unit asked for."""
    answer: str
    """With its unit: `3500 m`, `2.5 h`, or `1 h 40 min` where no two decimals would do."""
    measure: int
    """Characters by which operands are drawn: of the lines, were divisions plain ones; see `measures`."""


def convert(value: Fraction, unit: str, to: str) -> Converted | None:
    """`value` of `unit` in the unit `to` of the same sort; None where no short answer exists."""
    if unit == to:
        return Converted([], value, quantity(value, to), 0)
    if to in TIME:
        down = TIME.index(to) < TIME.index(unit)
        return _time_down(value, unit, to) if down else _time_up(value, unit, to)
    power = distance(unit, to)
    larger, smaller = (unit, to) if power > 0 else (to, unit)
    lines = [f"1 {larger} = {10 ** abs(power)} {smaller}", move_point(value, power)]
    result = value * Fraction(10) ** power
    answer = quantity(result, to)
    return _ended([*lines, answer], result, answer)


def move_point(value: Fraction, power: int) -> str:
    """`value` times ten to `power`, one place a step, as a chain of equal terms."""
    sign, terms = ("*", []) if power > 0 else ("/", [])
    for left in range(abs(power), 0, -1):
        terms.append(f"{shown(value)}{sign}{10**left}")
        value = value * 10 if power > 0 else value / 10
    return "=".join([*terms, shown(value)])


def size(unit: str) -> Fraction:
    """How many of the smallest unit of its sort one `unit` is."""
    if unit in TIME:
        result = 1
        for factor in _IN_NEXT[: TIME.index(unit)]:
            result *= factor
        return Fraction(result)
    return Fraction(10) ** next(units[unit] for units in METRIC if unit in units)


def distance(unit: str, to: str) -> int:
    """Powers of ten from `unit` to `to`; for time the number of factors. Positive towards smaller units."""
    if unit in TIME:
        return TIME.index(unit) - TIME.index(to)
    units = next(units for units in METRIC if unit in units)
    return units[unit] - units[to]


def decimals(value: Fraction) -> int | None:
    """How many decimals write `value` exactly, None where too many would be needed."""
    for count in range(_MOST_DECIMALS + 1):
        if (value * 10**count).denominator == 1:
            return count
    return None


def shown(value: Fraction) -> str:
    """`value` in decimals: `3.5`, `0.04`, `120`."""
    count = decimals(value)
    if count is None:
        raise ValueError(f"{value} has no short decimal form")
    if count == 0:
        return str(int(value))
    text = str(int(value * 10**count)).zfill(count + 1)
    return f"{text[:-count]}.{text[-count:]}"


def quantity(value: Fraction, unit: str) -> str:
    """`3.5 km`, `1 day`, `2 days`."""
    return f"{shown(value)} {unit.removesuffix('s') if value == 1 and len(unit) > 1 else unit}"


def add(a: Fraction, b: Fraction) -> str:
    """The sum of two decimals, written out: with as many decimals each, then without the point."""
    places = max(decimals(a) or 0, decimals(b) or 0)
    if not places:
        return digits.add(int(a), int(b)).text
    scale = 10**places
    inner = digits.add(int(a * scale), int(b * scale)).text
    total = move_point((a + b) * scale, -places)
    return f"{_padded(a, places)}+{_padded(b, places)}\n{inner}\n{total}"


def _padded(value: Fraction, places: int) -> str:
    """`value` with exactly `places` decimals: `3.000`."""
    text = str(int(value * 10**places)).zfill(places + 1)
    return f"{text[:-places]}.{text[-places:]}"


def _time_down(value: Fraction, unit: str, to: str) -> Converted:
    lines: list[str] = []
    for place in range(TIME.index(unit), TIME.index(to), -1):
        factor, lower = _IN_NEXT[place - 1], TIME[place - 1]
        lines.append(f"{quantity(Fraction(1), TIME[place])} = {factor} {lower}")
        places = decimals(value) or 0
        whole = int(value * 10**places)
        if places:
            lines.append(f"{shown(value)}*{factor}={whole}*{factor}/{10**places}")
        work = digits.multiply(whole, factor)
        lines.append(work.text)
        if places:
            lines.append(move_point(Fraction(work.result), -places))
        value = value * factor
        lines.append(quantity(value, lower))
    return _ended(lines, value, quantity(value, to))


def _time_up(value: Fraction, unit: str, to: str) -> Converted | None:
    """Division; only the last unit may leave a rest."""
    lines: list[str] = []
    longer = 0
    for place in range(TIME.index(unit), TIME.index(to)):
        factor, upper = _IN_NEXT[place], TIME[place + 1]
        if value.denominator != 1:
            return None
        division = long_divide(int(value), factor).text
        longer += len(division) - len(digits.divide(int(value), factor).text)
        lines += [f"{factor} {TIME[place]} = {quantity(Fraction(1), upper)}", division]
        whole, rest = divmod(int(value), factor)
        if rest * _SCALE % factor:
            if upper != to or not whole:
                return None
            answer = f"{quantity(Fraction(whole), to)} {quantity(Fraction(rest), TIME[place])}"
            return _ended([*lines, answer], value / factor, answer, longer)
        done = f"{whole}."
        while rest:
            digit, left = divmod(rest * 10, factor)
            done += str(digit)
            lines.append(f"{rest * 10}/{factor}={digit}" + (f" remainder {left}" if left else "") + f"|{done}")
            rest = left
        value = value / factor
        lines.append(quantity(value, upper))
    return _ended(lines, value, quantity(value, to), longer)


def _ended(lines: list[str], value: Fraction, answer: str, longer: int = 0) -> Converted:
    """A conversion whose lines are `longer` than their measure."""
    return Converted(lines, value, answer, sum(map(len, lines)) - longer)
