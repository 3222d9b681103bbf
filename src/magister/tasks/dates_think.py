"""How dates and clock times are thought through, month by month and hour by hour.

Counts with month lengths and the rule for leap years that holds from 1901 to 2099. Knows nothing of
how problems are made or asked.
"""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from magister.tasks import digits

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
    lines = [f"{day} {'+' if sign > 0 else '-'}{n}", digits.divide(n, 7).text]
    place, left = DAYS.index(day), n % 7
    counted = [DAYS[(place + sign * count) % 7] for count in range(1, left + 1)]
    lines.append(", ".join(f"{count} {name}" for count, name in enumerate(counted, 1)) or f"0 left: {day}")
    return Thought("\n".join(lines), counted[-1] if counted else day)


def later(start: date, n: int, lines: list[str] | None = None) -> Thought:
    """The date n days later: what is left of each month is taken off until the rest fits."""
    lines = [f"{show(start)} +{n}"] if lines is None else lines
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
    lines = [f"{show(start)} -{n}"] if lines is None else lines
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
    """Days between two dates of one year: 30 a month, what the months have more or less, then the days."""
    lines = [f"{show(first)} to {show(second)}"]
    total = _within_year(first, second, lines)
    return Thought("\n".join(lines), str(total))


def far(start: date, n: int, sign: int) -> Thought:
    """The date thousands of days away: whole years first, then as for few days."""
    lines, day, left = [f"{show(start)} {'+' if sign > 0 else '-'}{n}"], start, n
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
    lines = [f"{show(first)} to {show(second)}"]
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
    lines = [f"{clock(start)}+{_plain(duration)}"]
    minutes, hours = start % 60 + duration % 60, start // 60
    lines.append(f"{start % 60}+{duration % 60}={minutes}")
    added = duration // 60
    if minutes >= 60:
        lines += [f"{minutes}-60={minutes - 60}, carry 1", f"{added}+1={added + 1}"]
        added += 1
    lines += [digits.add(hours, added).text]
    hours += added
    if hours >= 48:
        lines += [digits.divide(hours, 24).text, f"hours {hours % 24}"]
    elif hours >= 24:
        lines += [f"{hours}-24={hours - 24}"]
    answer = clock((start + duration) % 1440)
    return Thought("\n".join([*lines, answer]), answer)


def time_earlier(start: int, duration: int) -> Thought:
    """The clock time `duration` minutes before `start`."""
    lines = [f"{clock(start)}-{_plain(duration)}"]
    hours, taken = start // 60, _minutes_taken(start, duration, lines)
    if taken > 24:
        lines += [digits.divide(taken, 24).text, f"hours {taken % 24}"]
        taken %= 24
    if hours < taken:
        lines += [f"{hours}<{taken}", f"{hours}+24={hours + 24}"]
        hours += 24
    lines.append(f"{hours}-{taken}={hours - taken}")
    answer = clock((start - duration) % 1440)
    return Thought("\n".join([*lines, answer]), answer)


def time_between(first: int, second: int) -> Thought:
    """How long from `first` to `second`, later the same day."""
    lines = [f"{clock(second)}-{clock(first)}"]
    taken = _minutes_taken(second, first, lines)
    lines.append(f"{second // 60}-{taken}={second // 60 - taken}")
    answer = span(second - first)
    return Thought("\n".join([*lines, answer]), answer)


def _minutes_taken(upper: int, lower: int, lines: list[str]) -> int:
    """Subtracts the minutes, and returns the hours to subtract with the hour borrowed, if any."""
    high, low, hours = upper % 60, lower % 60, lower // 60
    if high >= low:
        lines.append(f"{high}-{low}={high - low}")
        return hours
    lines += [f"{high}<{low}, borrow 1", f"{high}+60={high + 60}", f"{high + 60}-{low}={high + 60 - low}"]
    lines.append(f"{hours}+1={hours + 1}")
    return hours + 1


def _within_year(first: date, second: date, lines: list[str]) -> int:
    days = second.day - first.day
    if first.month == second.month:
        lines.append(f"{second.day}-{first.day}={days}")
        return days
    extra, months = 0, second.month - first.month
    for count, month in enumerate(range(first.month, second.month), 1):
        length = _length(lines, month, first.year, shown=False)
        extra += length - 30
        lines.append(f"{count} {MONTHS[month - 1]} {length}: {extra}")
    total = digits.multiply(months, 30)
    lines.append(total.text)
    total = _plus(total.result, extra, lines)
    lines.append(f"{second.day}-{first.day}={days}")
    return _plus(total.result, days, lines).result


def _plus(value: int, change: int, lines: list[str]) -> digits.Work:
    work = digits.add(value, change) if change >= 0 else digits.subtract(value, -change)
    lines.append(work.text)
    return work


def _length(lines: list[str], month: int, year: int, *, shown: bool = True) -> int:
    """The length of a month, stated in `lines`, for February with what the year is."""
    if month == 2:
        leap = year % 4 == 0
        short = year % 100
        lines.append(f"{short}/4={short // 4}" + ("" if leap else f" remainder {short % 4}"))
        lines.append(f"{year} {'leap' if leap else 'not leap'}")
    length = 29 if month == 2 and year % 4 == 0 else _LENGTHS[month - 1]
    if shown:
        lines.append(f"{MONTHS[month - 1]} {year}: {length}")
    return length


def _plain(duration: int) -> str:
    return f"{duration // 60}:{duration % 60:02}"
