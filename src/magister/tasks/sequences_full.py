"""A sequence worked in full: every test of every rule listed and written out in columns.

Sequences are drawn again by how long this is, never by how a thought is worded, so that which ones are
asked stays as it is when thoughts are worded anew. The rules and their order are those of `sequences_think`.
"""

from __future__ import annotations

from itertools import pairwise

from magister.tasks import digits
from magister.tasks.sequences_think import Thought, ended, listed


def next_in_full(terms: list[int]) -> Thought | None:
    """The next number of a sequence; None where no known rule fits."""
    lines = [listed(terms)]
    differences = []
    for before, after in pairwise(terms):
        work = digits.subtract(after, before)
        lines.append(work.text)
        differences.append(work.result)
    if len(set(differences)) == 1:
        lines.append(f"differences {listed(differences)}: same")
        return ended(lines, digits.plus(terms[-1], differences[0]))
    lines.append(f"differences {listed(differences)}: not same")
    for rule in (_ratio, _second, _sums, _steps_in_turn, _two_in_turn):
        found = rule(terms, differences, lines)
        if found is not None:
            return found
    return None


def place_in_full(terms: list[int], k: int) -> Thought:
    """The term at place k of an arithmetic or geometric sequence of four terms."""
    lines = [f"{listed(terms)} term {k}"]
    works = [digits.subtract(b, a) for a, b in pairwise(terms)]
    lines += [work.text for work in works]
    found = listed([work.result for work in works])
    if len({work.result for work in works}) == 1:
        steps, difference = digits.subtract(k, 1), works[0].result
        times = digits.multiply(abs(difference), steps.result)
        final = digits.plus(terms[0], times.result if difference > 0 else -times.result)
        lines += [f"differences {found}: same", steps.text, times.text, final.text]
        return Thought(lines, final.result)
    lines.append(f"differences {found}: not same")
    ratio, value = _ratio_of(terms, lines), terms[-1]
    for place in range(len(terms) + 1, k + 1):
        work = digits.multiply(value, ratio)
        lines.append(f"term {place}: {work.text}")
        value = work.result
    return Thought(lines, value)


def _ratio_of(terms: list[int], lines: list[str]) -> int:
    """The whole number each term is times (negative: divided by) the one before, or 0; says so in `lines`."""
    small, large = sorted(terms[:2])
    ratio = large // small if small > 0 and large % small == 0 else 0
    if not 2 <= ratio <= 9:
        lines.append(f"ratio {terms[0]},{terms[1]}: no")
        return 0
    lines.append(digits.divide(large, small).text)
    rising = terms[0] < terms[1]
    for before, after in pairwise(terms[1:]):
        source, target = (before, after) if rising else (after, before)
        work = digits.multiply(source, ratio)
        lines.append(work.text)
        if work.result != target:
            lines.append(f"ratio not {target}: no")
            return 0
    lines.append(f"all {'times' if rising else 'divided by'} {ratio}")
    return ratio if rising else -ratio


def _ratio(terms: list[int], _differences: list[int], lines: list[str]) -> Thought | None:
    ratio = _ratio_of(terms, lines)
    if not ratio:
        return None
    return ended(lines, digits.multiply(terms[-1], ratio) if ratio > 0 else digits.divide(terms[-1], -ratio))


def _second(terms: list[int], differences: list[int], lines: list[str]) -> Thought | None:
    seconds: list[int] = []
    for before, after in pairwise(differences):
        work = digits.subtract(after, before)
        lines.append(work.text)
        seconds.append(work.result)
        if seconds[0] != seconds[-1]:
            lines.append(f"second {listed(seconds)}: not same")
            return None
    lines.append(f"second {listed(seconds)}: same")
    difference = digits.plus(differences[-1], seconds[0])
    lines.append(difference.text)
    return ended(lines, digits.plus(terms[-1], difference.result))


def _sums(terms: list[int], _differences: list[int], lines: list[str]) -> Thought | None:
    for first, second, third in zip(terms, terms[1:], terms[2:], strict=False):
        work = digits.add(first, second)
        lines.append(work.text)
        if work.result != third:
            lines.append(f"sums not {third}: no")
            return None
    lines.append("sums of two: yes")
    return ended(lines, digits.add(terms[-2], terms[-1]))


def _steps_in_turn(terms: list[int], differences: list[int], lines: list[str]) -> Thought | None:
    """Adding and multiplying in turn; `start` is the place of the first step that adds."""
    for start in (0, 1):
        added, found = differences[start::2], set(differences[start::2])
        if len(added) < 2 or len(found) > 1:
            continue
        lines.append(f"in turn {listed(added)}: same")
        places = range(1 - start, len(terms) - 1, 2)
        before, after = terms[places[0]], terms[places[0] + 1]
        ratio = after // before if before > 0 and after % before == 0 else 0
        if not 2 <= ratio <= 9:
            lines.append(f"ratio {before},{after}: no")
            return None
        lines.append(digits.divide(after, before).text)
        for place in places[1:]:
            work = digits.multiply(terms[place], ratio)
            lines.append(work.text)
            if work.result != terms[place + 1]:
                lines.append(f"ratio not {terms[place + 1]}: no")
                return None
        adds = (len(terms) - 1) % 2 == start
        lines.append(f"+{added[0]} and *{ratio} in turn, now {f'+{added[0]}' if adds else f'*{ratio}'}")
        return ended(lines, digits.plus(terms[-1], added[0]) if adds else digits.multiply(terms[-1], ratio))
    lines.append("in turn: no")
    return None


def _two_in_turn(terms: list[int], _differences: list[int], lines: list[str]) -> Thought | None:
    odd, even = terms[::2], terms[1::2]
    lines.append(f"two: {listed(odd)} and {listed(even)}")
    row = odd if len(odd) == len(even) else even
    if len(row) < 3:
        return None
    works = [digits.subtract(after, before) for before, after in pairwise(row)]
    lines += [work.text for work in works]
    if len({work.result for work in works}) > 1:
        return None
    lines.append("same")
    return ended(lines, digits.plus(row[-1], works[0].result))
