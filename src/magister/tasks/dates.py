"""Calendar and clock: weekdays, dates and times some way off, and how long from one to another.

Draws the operands and checks answers; the thinking is in `dates_think`. Years run from 2000 to 2040.
Knows nothing of the words problems are asked in.
"""

from __future__ import annotations

import random
import re
from datetime import date, timedelta

from magister.answers.exact import extract, rational, same
from magister.tasks import dates_think as think
from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import BEYOND, Problem, state

NAME = "dates"
LEVELS = 3

_KINDS = (
    "weekday_after",
    "weekday_before",
    "date_after",
    "date_before",
    "days_between",
    "time_after",
    "time_before",
    "time_between",
)
_WEEKDAY_MOST = {1: (1, 2), 2: (1, 2), 3: (2, 3)}
_DATE_RANGES = {1: (2, 31), 2: (20, 60), 3: (50, 120)}
_MONTHS_APART = {1: (0, 1), 2: (1, 5), 3: (4, 11)}
_DURATION = re.compile(r"(?:(\d+)\s*(?:h|hr|hrs|hours?)\b)?(?:,|\s|and)*(?:(\d+)\s*(?:min|mins|minutes?|m)\b)?")


def generate(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    """A problem of one of the eight kinds; beyond, all but the time between two times of a day."""
    kind = rng.choice(_KINDS[:-1] if level == BEYOND else _KINDS)
    if kind.startswith("weekday"):
        return _weekday(rng, kind, level, book)
    if kind.startswith("date"):
        return _date(rng, kind, level, book)
    if kind == "days_between":
        return _days_between(rng, level, book)
    if kind == "time_between":
        return _time_between(rng, level, book)
    return _time(rng, kind, level, book)


def grade(problem: Problem, reply: str) -> bool:
    """Whether the reply's date, time, duration or count of days is the one asked for."""
    given, due = extract(reply).strip().rstrip("."), problem.answer
    if problem.kind.startswith("date"):
        return same(re.sub(r"^0(?=\d )", "", given), due)
    if problem.kind == "days_between":
        return rational(re.sub(r"\s*days?$", "", given, flags=re.IGNORECASE)) == int(due)
    if problem.kind == "time_between":
        minutes = _minutes(given)
        return minutes is not None and minutes == _minutes(due)
    if problem.kind.startswith("time"):
        return re.fullmatch(r"\d{1,2}:\d{2}", given) is not None and given.zfill(5) == due
    return same(given, due)


def _minutes(text: str) -> int | None:
    """The minutes of `2 h 45 min`, `2 hours and 45 minutes` or `165 min`."""
    match = _DURATION.fullmatch(re.sub(r"(?<=[a-z])(?=\d)", " ", text.casefold()))
    if match is None or not any(match.groups()):
        return None
    return int(match.group(1) or 0) * 60 + int(match.group(2) or 0)


def _weekday(rng: random.Random, kind: str, level: int, book: Phrasebook) -> Problem:
    if level == BEYOND:
        n = rng.randint(1000, 9999)
    else:
        length = rng.choice(_WEEKDAY_MOST[level])
        low, high = {1: (2, 9), 2: (10, 30 if level == 1 else 100), 3: (100, 400)}[length]
        n = rng.randint(low, high)
    day = rng.choice(think.DAYS)
    thought = think.weekday(day, n, 1 if kind.endswith("after") else -1)
    return _problem(kind, level, (day, n), book.phrase(rng, kind, day=day, n=n), thought)


def _date(rng: random.Random, kind: str, level: int, book: Phrasebook) -> Problem:
    sign = 1 if kind.endswith("after") else -1
    if level == BEYOND:
        start = _day(rng, 2008, 2032)
        start = start.replace(day=min(start.day, 28))
        years = rng.randint(3, 7)
        # A short rest after the whole years keeps the thought short.
        n = abs((start.replace(year=start.year + sign * years) - start).days) + rng.randint(1, 60)
        thought = think.far(start, n, sign)
    else:
        start, n = _day(rng, 2001, 2039), rng.randint(*_DATE_RANGES[level])
        thought = think.later(start, n) if sign > 0 else think.earlier(start, n)
    prompt = book.phrase(rng, kind, date=think.show(start), n=n)
    return _problem(kind, level, (start.day, start.month, start.year, n), prompt, thought)


def _days_between(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    first = _day(rng, 2000, 2030)
    if level == BEYOND:
        first = first.replace(day=min(first.day, 28))
        second = first.replace(year=first.year + rng.randint(2, 9)) + timedelta(days=rng.randint(1, 90))
        thought = think.years_between(first, second)
    else:
        apart = rng.randint(*_MONTHS_APART[level])
        month = rng.randint(1, 12 - apart)
        day = rng.randint(1, 27) if apart == 0 else rng.randint(1, _month_length(first.year, month))
        first = date(first.year, month, day)
        low = day + 1 if apart == 0 else 1
        last = month + apart
        second = date(first.year, last, rng.randint(low, _month_length(first.year, last)))
        thought = think.between(first, second)
    prompt = book.phrase(rng, "days_between", d1=think.show(first), d2=think.show(second))
    operands = (first.day, first.month, first.year, second.day, second.month, second.year)
    return _problem("days_between", level, operands, prompt, thought)


def _time(rng: random.Random, kind: str, level: int, book: Phrasebook) -> Problem:
    """Level 1 changes the minutes or few hours, level 2 stays in the day, level 3 may pass midnight."""
    sign, start = (1 if kind == "time_after" else -1), rng.randrange(1440)
    room = 1439 - start if sign > 0 else start
    if level == BEYOND:
        duration = rng.randint(100, 999) * 60 + rng.randrange(60)
    elif level == 1 or room < 20:
        start = rng.randint(120, 1319)
        duration = rng.choice((rng.randint(5, 59), 60, 120, rng.randint(61, 120)))
    elif level == 2:
        duration = rng.randint(15, room)
    else:
        duration = rng.choice((rng.randint(61, 1439), rng.randint(room, 1439)))
    thought = think.time_later(start, duration) if sign > 0 else think.time_earlier(start, duration)
    prompt = book.phrase(rng, kind, t=think.clock(start), d=think.span(duration))
    operands = (start // 60, start % 60, duration // 60, duration % 60)
    return _problem(kind, level, operands, prompt, thought)


def _time_between(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    longest = {1: 180, 2: 600, 3: 1439}[level]
    first = rng.randint(0, 1439 - min(longest, 600))
    second = rng.randint(first + 5, min(1439, first + longest))
    prompt = book.phrase(rng, "time_between", t1=think.clock(first), t2=think.clock(second))
    operands = (first // 60, first % 60, second // 60, second % 60)
    return _problem("time_between", level, operands, prompt, think.time_between(first, second))


def _day(rng: random.Random, low: int, high: int) -> date:
    year, month = rng.randint(low, high), rng.randint(1, 12)
    return date(year, month, rng.randint(1, _month_length(year, month)))


def _month_length(year: int, month: int) -> int:
    return (date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)).day


def _problem(kind: str, level: int, operands: tuple[int | str, ...], prompt: str, thought: think.Thought) -> Problem:
    return Problem(
        family=NAME,
        kind=kind,
        level=level,
        operands=operands,
        prompt=prompt,
        thinking=thought.text,
        answer=thought.answer,
        reply=state(thought.answer, beyond=level == BEYOND),
    )
