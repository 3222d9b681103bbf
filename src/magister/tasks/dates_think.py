"""How dates and clock times are thought through, month by month and hour by hour.

Counts with month lengths and the rule for leap years that holds from 1901 to 2099. Knows nothing of
how problems are made or asked.
"""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from magister.tasks import digits
from magister.tasks.arithmetic_division import long_divide

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_BEFORE = tuple(sum(_LENGTHS[:month]) for month in range(12))
"""How many days a year that is no leap year has before each month."""


class Thought(NamedTuple):
    """A thought and the answer it comes to."""

    text: str
    answer: str


def show(day: date) -> str:
    """`14 March 2025`."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def clock(minutes: int) -> str:
    """`09:05`, minutes after midnight."""
    return f"{minutes // 60:02}:{minutes % 60:02}"


def span(minutes: int) -> str:
    """`2 h 40 min`, with what is 0 left out."""
    hours, rest = divmod(minutes, 60)
    parts = ([f"{hours} h"] if hours else []) + ([f"{rest} min"] if rest or not hours else [])
    return " ".join(parts)


def weekday(day: str, n: int, sign: int) -> Thought:
    """The weekday `n` days after (`sign` 1) or before (-1) `day`: the remainder of n by 7, counted on."""
    mark = "+" if sign > 0 else "-"
    lines = [f"{_way(sign)} {day} {mark}{n}", _by_seven(n)]
    place, left = DAYS.index(day), n % 7
    counted = [DAYS[(place + sign * count) % 7] for count in range(1, left + 1)]
    # The sign stands before every count, so that each day follows from what is just before it.
    lines.append(" ".join([day, *(f"{mark}{count} {name}" for count, name in enumerate(counted, 1))]))
    return Thought("\n".join(lines), counted[-1] if counted else day)


def later(start: date, n: int, lines: list[str] | None = None) -> Thought:
    """The date n days later: what is left of each month is taken off until the rest fits."""
    lines = [f"{_way(1)} {show(start)} +{n}"] if lines is None else lines
    year, month, left = start.year, start.month, n
    length = _length(lines, month, year)
    lines.append(f"{length}-{start.day}={length - start.day}")
    room, day = length - start.day, start.day
    while left > room:
        lines.append(f"{left}>{room}")
        lines.append(digits.subtract(left, room).text)
        left, day = left - room, 0
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        room = _length(lines, month, year)
    lines.append(f"{left}<={room}")
    if day:
        lines.append(f"{day}+{left}={day + left}")
    answer = f"{day + left} {MONTHS[month - 1]} {year}"
    return Thought("\n".join([*lines, answer]), answer)


def earlier(start: date, n: int, lines: list[str] | None = None) -> Thought:
    """The date n days earlier: back to the end of the month before, then month by month."""
    lines = [f"{_way(-1)} {show(start)} -{n}"] if lines is None else lines
    year, month, day, left = start.year, start.month, start.day, n
    while left >= day:
        lines.append(f"{left}>={day}")
        lines.append(digits.subtract(left, day).text)
        left -= day
        year, month = (year - 1, 12) if month == 1 else (year, month - 1)
        day = _length(lines, month, year)
    lines.append(f"{left}<{day}")
    lines.append(f"{day}-{left}={day - left}")
    answer = f"{day - left} {MONTHS[month - 1]} {year}"
    return Thought("\n".join([*lines, answer]), answer)


def between(first: date, second: date) -> Thought:
    """Days between two dates of one year: from the days before each month, a leap day, then the days."""
    lines = [f"from {show(first)} to {show(second)}"]
    before = [_BEFORE[day.month - 1] for day in (first, second)]
    lines.append(
        ", ".join(f"{MONTHS[day.month - 1]} {count}" for day, count in zip((first, second), before, strict=True))
    )
    leap = first.month <= 2 < second.month and _is_leap(lines, first.year)
    days = second.day - first.day + leap
    shown = f"{second.day}-{first.day}={days - leap}" + (f"\n{days - 1}+1={days}" if leap else "")
    if first.month == second.month:
        return Thought("\n".join([*lines, shown]), str(days))
    months = digits.subtract(before[1], before[0])
    total = digits.add(months.result, days) if days >= 0 else digits.subtract(months.result, -days)
    return Thought("\n".join([*lines, months.text, shown, total.text]), str(total.result))


def far(start: date, n: int, sign: int) -> Thought:
    """The date thousands of days away: whole years first, then as for few days."""
    lines, day, left = [f"{_way(sign)} {show(start)} {'+' if sign > 0 else '-'}{n}"], start, n
    if (day.month, day.day) == (2, 29):
        raise ValueError("counting by years starts from a day every year has")
    while True:
        following = day.replace(year=day.year + sign)
        year = abs((following - day).days)
        if left < year:
            break
        lines.append(f"{show(following)}: {left}-{year}={left - year}")
        left, day = left - year, following
    return later(day, left, lines) if sign > 0 else earlier(day, left, lines)


def years_between(first: date, second: date) -> Thought:
    """Days between dates years apart: whole years, their leap days, then the days of the last year."""
    lines = [f"from {show(first)} to {show(second)}"]
    same_day = first.replace(year=second.year)
    years = second.year - first.year
    lines.append(f"{show(first)} to {show(same_day)}: {years}*365={years * 365}")
    leap = (same_day - first).days - years * 365
    lines.append(f"leap days {leap}: {years * 365}+{leap}={years * 365 + leap}")
    rest = (second - same_day).days
    total = years * 365 + leap + rest
    sign = "+" if rest >= 0 else "-"
    lines.append(f"{show(same_day)} to {show(second)}: {years * 365 + leap}{sign}{abs(rest)}={total}")
    return Thought("\n".join(lines), str(total))


def time_later(start: int, duration: int) -> Thought:
    """The clock time `duration` minutes after `start`: minutes, hours, then the day's 24."""
    lines = [f"{_way(1)} {clock(start)} +{span(duration)}"]
    minutes, hours, added = start % 60 + duration % 60, start // 60, duration // 60
    lines.append(f"{start % 60}+{duration % 60}={minutes}")
    carry = minutes // 60
    if carry:
        lines += [f"{minutes}-60={minutes - 60}, carry 1", f"{hours}+1={hours + 1}"]
    lines.append(digits.add(hours + carry, added).text)
    hours += added + carry
    if hours >= 48:
        lines += [long_divide(hours, 24).text, f"hours {hours % 24}"]
    elif hours >= 24:
        lines += [f"{hours}-24={hours - 24}"]
    answer = clock((start + duration) % 1440)
    return Thought("\n".join([*lines, answer]), answer)


def time_earlier(start: int, duration: int) -> Thought:
    """The clock time `duration` minutes before `start`."""
    lines = [f"{_way(-1)} {clock(start)} -{span(duration)}"]
    taken = duration // 60
    if taken >= 24:
        lines += [long_divide(taken, 24).text, f"hours {taken % 24}"]
    left = _subtracted(start, taken % 24 * 60 + duration % 60, lines)
    if left < 0:
        lines.append(f"{left}+24={left + 24}")
    answer = clock((start - duration) % 1440)
    return Thought("\n".join([*lines, answer]), answer)


def time_between(first: int, second: int) -> Thought:
    """How long from `first` to `second`, later the same day."""
    lines = [f"from {clock(first)} to {clock(second)}"]
    _subtracted(second, first, lines)
    answer = span(second - first)
    return Thought("\n".join([*lines, answer]), answer)


def _subtracted(upper: int, lower: int, lines: list[str]) -> int:
    """Subtracts minutes and then hours, an hour borrowed where the minutes fall below 0; the hours left."""
    minutes, hours = upper % 60 - lower % 60, upper // 60
    lines.append(f"{upper % 60}-{lower % 60}={minutes}")
    if minutes < 0:
        lines += [f"{minutes}+60={minutes + 60}, borrow 1", f"{hours}-1={hours - 1}"]
        hours -= 1
    lines.append(f"{hours}-{lower // 60}={hours - lower // 60}")
    return hours - lower // 60


def _way(sign: int) -> str:
    return "after" if sign > 0 else "before"


def _by_seven(n: int) -> str:
    """The long division of n by 7, exact ones in the same steps as others, the remainder always stated."""
    shown = f"{n}/7={n // 7} remainder {n % 7}"
    if n < 7:
        return shown
    return "\n".join([*digits.division_lines(n, 7), shown])


def _is_leap(lines: list[str], year: int) -> bool:
    """Whether the year is a leap year, stated in `lines`."""
    quotient, rest = divmod(year % 100, 4)
    lines.append(f"{year % 100}/4={quotient}" + (f" remainder {rest}" if rest else ""))
    lines.append("not leap" if rest else "leap")
    return not rest


def _length(lines: list[str], month: int, year: int) -> int:
    """The length of a month, stated in `lines`, for February with what the year is."""
    length = 29 if month == 2 and _is_leap(lines, year) else _LENGTHS[month - 1]
    lines.append(f"{MONTHS[month - 1]} {year}: {length}")
    return length
