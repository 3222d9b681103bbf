"""How a sequence is thought through: differences first, then one rule after another until one fits.

The order is fixed (equal differences, equal ratios, equal second differences, sums of the two before,
two steps in turn, two sequences in turn), so that what fits first is what a sequence is taken to be.
Every decision is written behind what it rests on. Knows nothing of how sequences are made or asked.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from magister.tasks import digits
from magister.tasks.arithmetic_division import multiples

_FEW = 9999
"""Differences of terms above this, the first aside, are found at once to keep the thought short."""


class Thought(NamedTuple):
    """The lines of a thought and the number it comes to."""

    lines: list[str]
    result: int


def next_term(terms: list[int]) -> Thought | None:
    """The next number of a sequence; None where no known rule fits."""
    lines = [listed(terms)]
    differences = _steps(terms, lines)
    if len(set(differences)) == 1:
        lines.append(f"all {differences[0]:+}")
        return ended(lines, digits.plus(terms[-1], differences[0]))
    ratio = _ratio_of(terms, lines)
    if ratio:
        return ended(lines, digits.multiply(terms[-1], ratio) if ratio > 0 else digits.divide(terms[-1], -ratio))
    for before, after in pairwise(terms[len(differences) :]):
        work = digits.subtract(after, before)
        lines.append(work.text)
        differences.append(work.result)
    lines.append(f"differences {listed(differences)}")
    for rule in (_second, _sums, _steps_in_turn, _two_in_turn):
        found = rule(terms, differences, lines)
        if found is not None:
            return found
    return None


def term_at(terms: list[int], k: int) -> Thought:
    """The term at place k of an arithmetic or geometric sequence."""
    lines = [f"{listed(terms)} term {k}"]
    differences = _steps(terms, lines)
    if len(set(differences)) == 1:
        steps, difference = digits.subtract(k, 1), differences[0]
        # In this order no product has to be said a second time the other way round.
        large, small = sorted((steps.result, abs(difference)), key=_weight, reverse=True)
        times = digits.multiply(large, small)
        lines += [f"{steps.text} steps of {difference}", times.text]
        return ended(lines, digits.plus(terms[0], times.result if difference > 0 else -times.result))
    ratio, value = _ratio_of(terms, lines), terms[-1]
    for place in range(len(terms) + 1, k + 1):
        work = digits.multiply(value, ratio)
        lines.append(f"term {place}: {work.text}")
        value = work.result
    return Thought(lines, value)


def third_differences(terms: list[int]) -> Thought:
    """The next number of a cubic sequence."""
    lines, rows = [listed(terms)], [terms]
    for name in ("differences", "second", "third"):
        row = []
        for before, after in zip(rows[-1], rows[-1][1:], strict=False):
            work = digits.subtract(after, before)
            lines.append(work.text)
            row.append(work.result)
        lines.append(f"{name} {listed(row)}: {'same' if len(set(row)) == 1 else 'not same'}")
        rows.append(row)
    value = rows[-1][-1]
    for row in reversed(rows[:-1]):
        work = digits.plus(row[-1], value)
        lines.append(work.text)
        value = work.result
    return Thought(lines, value)


def _steps(terms: list[int], lines: list[str]) -> list[int]:
    """The differences up to the first that is not like the one before, each judged in `lines`."""
    found: list[int] = []
    for before, after in pairwise(terms):
        small = min(before, after) < 0 and max(abs(before), abs(after)) < 100
        at_once = small or (found and terms[0] > _FEW)
        work = _fact(after, before) if at_once else digits.subtract(after, before)
        found.append(work.result)
        same = found[0] == found[-1]
        lines.append(work.text if len(found) == 1 else f"{work.text} {'same' if same else 'not same'}")
        if not same:
            break
    return found


def _fact(after: int, before: int) -> digits.Work:
    """A difference at once, also where a number is negative."""
    shown = f"({before})" if before < 0 else f"{before}"
    return digits.Work(f"{after}-{shown}={after - before}", after - before)


def _weight(number: int) -> tuple[int, int]:
    return sum(digit != "0" for digit in str(number)), number


def _whole_ratio(small: int, large: int, lines: list[str]) -> int:
    """What times `small` is `large`, 2 to 9, or 0: the multiples of `small` up to the first that is not below.

    None are written where even the second is too much, which the difference of the two tells.
    """
    if small < 1:
        lines.append(f"{small}<1 no")
        return 0
    if large - small < small:
        lines.append(f"{large - small}<{small} no")
        return 0
    shown, values = multiples(small, large, range(2, 10))
    fits = values[-1] == large
    lines.append(shown + ("" if fits else " no"))
    return len(values) + 1 if fits else 0


def _ratio_of(terms: list[int], lines: list[str]) -> int:
    """The whole number each term is times (negative: divided by) the one before, or 0; says so in `lines`."""
    rising = terms[0] < terms[1]
    small, large = sorted(terms[:2])
    ratio = _whole_ratio(small, large, lines)
    if not ratio:
        return 0
    for before, after in pairwise(terms[1:]):
        source, target = (before, after) if rising else (after, before)
        work = digits.multiply(source, ratio)
        lines.append(work.text)
        if work.result != target:
            lines.append(f"not {target}")
            return 0
    lines.append(f"all {'times' if rising else 'divided by'} {ratio}")
    return ratio if rising else -ratio


def _second(terms: list[int], differences: list[int], lines: list[str]) -> Thought | None:
    seconds = _steps(differences, lines)
    if len(set(seconds)) > 1:
        return None
    lines.append(f"all {seconds[0]:+}")
    difference = digits.plus(differences[-1], seconds[0])
    lines.append(difference.text)
    return ended(lines, digits.plus(terms[-1], difference.result))


def _sums(terms: list[int], _differences: list[int], lines: list[str]) -> Thought | None:
    for first, second, third in zip(terms, terms[1:], terms[2:], strict=False):
        work = digits.add(first, second)
        lines.append(work.text)
        if work.result != third:
            lines.append(f"not {third}")
            return None
    lines.append("sums of two")
    return ended(lines, digits.add(terms[-2], terms[-1]))


def _steps_in_turn(terms: list[int], differences: list[int], lines: list[str]) -> Thought | None:
    """Adding and multiplying in turn; `start` is the place of the first step that adds."""
    pairs = _in_pairs([str(difference) for difference in differences])
    rows = [differences[start::2] for start in (0, 1)]
    start = next((start for start in (0, 1) if len(rows[start]) > 1 and len(set(rows[start])) == 1), None)
    if start is None:
        lines.append(f"in turn {pairs}: no")
        return None
    lines.append(f"in turn {pairs}: {('first', 'second')[start]} same")
    places = range(1 - start, len(terms) - 1, 2)
    ratio = _whole_ratio(terms[places[0]], terms[places[0] + 1], lines)
    if not ratio:
        return None
    for place in places[1:]:
        work = digits.multiply(terms[place], ratio)
        lines.append(work.text)
        if work.result != terms[place + 1]:
            lines.append(f"not {terms[place + 1]}")
            return None
    added, adds = rows[start][0], (len(terms) - 1) % 2 == start
    *taken, now = [f"+{added}" if place % 2 == start else f"*{ratio}" for place in range(len(terms))]
    # Pair by pair as the differences above: whether the last pair is whole says which step comes next.
    lines.append(f"{_in_pairs(taken)} now {now}")
    return ended(lines, digits.plus(terms[-1], added) if adds else digits.multiply(terms[-1], ratio))


def _in_pairs(steps: list[str]) -> str:
    return ",".join(" ".join(steps[at : at + 2]) for at in range(0, len(steps), 2))


def _two_in_turn(terms: list[int], _differences: list[int], lines: list[str]) -> Thought | None:
    """Two sequences in turn: only the one that the next number is of is looked at."""
    row = terms[len(terms) % 2 :: 2]
    if len(row) < 3:
        return None
    lines.append(f"two: {listed(row)}")
    steps = _steps(row, lines)
    return ended(lines, digits.plus(row[-1], steps[0])) if len(set(steps)) == 1 else None


def ended(lines: list[str], work: digits.Work) -> Thought:
    """A thought that ends in `work`."""
    return Thought([*lines, work.text], work.result)


def listed(terms: list[int]) -> str:
    """`3,5,8`."""
    return ",".join(map(str, terms))
