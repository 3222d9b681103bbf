"""Dates and times: right answers by the standard calendar, true steps, fair grading, a sound book."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from datetime import date, datetime, timedelta
from itertools import pairwise

from tests.tasks import branches, checks

from magister.tasks import dates
from magister.tasks.phrasebook import Phrasebook, load_book
from magister.tasks.problem import BEYOND, BEYOND_WARNING, Problem, state

LEVELS = (*range(1, dates.LEVELS + 1), BEYOND)
SLOTS = {
    "weekday_after": "day n",
    "weekday_before": "day n",
    "date_after": "date n",
    "date_before": "date n",
    "days_between": "d1 d2",
    "time_after": "t d",
    "time_before": "t d",
    "time_between": "t1 t2",
}
BARE = Phrasebook(
    "dates",
    {kind: ("; ".join(f"{{{slot}}}" for slot in slots.split()),) for kind, slots in SLOTS.items()},
    (),
    {},
)


def _problems(book: Phrasebook, count: int = 500) -> list[Problem]:
    return [dates.generate(random.Random(n * 10 + level), level, book) for level in LEVELS for n in range(count)]


def _read(day: str) -> datetime:
    return datetime.strptime(day, "%d %B %Y")


def _minutes(span: str) -> int:
    return sum(int(n) * (60 if unit == "h" else 1) for n, unit in re.findall(r"(\d+) (h|min)", span))


def _is_right(problem: Problem) -> bool:
    """Judged from what the bare prompt shows."""
    first, second = problem.prompt.split("; ")
    sign = 1 if problem.kind.endswith("after") else -1
    if problem.kind.startswith("weekday"):
        start = next(date(2024, 1, n) for n in range(1, 8) if f"{date(2024, 1, n):%A}" == first)
        return f"{start + sign * timedelta(days=int(second)):%A}" == problem.answer
    if problem.kind.startswith("date"):
        return _read(first) + sign * timedelta(days=int(second)) == _read(problem.answer)
    if problem.kind == "days_between":
        return (_read(second) - _read(first)).days == int(problem.answer)
    start_time = datetime.strptime(f"2024 {first}", "%Y %H:%M")
    if problem.kind == "time_between":
        return datetime.strptime(f"2024 {second}", "%Y %H:%M") - start_time == timedelta(
            minutes=_minutes(problem.answer)
        )
    return f"{start_time + sign * timedelta(minutes=_minutes(second)):%H:%M}" == problem.answer


def test_answers_are_right() -> None:
    for problem in _problems(BARE):
        assert _is_right(problem), problem


def test_thinking_is_true_and_short() -> None:
    for problem in _problems(load_book("dates")):
        assert not branches.wrong_sums(problem.thinking), problem
        assert not checks.wrong_equations(problem.thinking), problem
        assert len(problem.thinking) <= 450, problem
        last = problem.thinking.splitlines()[-1]
        assert last.endswith(problem.answer), problem


def test_what_is_said_of_the_calendar_is_true() -> None:
    for problem in _problems(BARE):
        lines = problem.thinking.splitlines()
        for before, line in pairwise(lines):
            if line in ("leap", "not leap"):
                assert ("remainder" in before) == (line == "not leap"), problem
        if problem.kind == "days_between" and problem.level != BEYOND:
            said = re.findall(r"([A-Z][a-z]+) (\d+)", lines[1])
            assert [month for month, _ in said] == re.findall(r"[A-Z][a-z]+", problem.prompt), problem
            for month, days in said:
                assert _read(f"1 {month} 2023").timetuple().tm_yday - 1 == int(days), problem
        if problem.kind.startswith("weekday"):
            day, *counted = re.split(r" [+-]\d+ ?", lines[-1])
            assert re.findall(r" ([+-])(\d+)", lines[-1]) == [
                (lines[0].split()[2][0], str(count)) for count in range(1, len(counted) + 1)
            ], problem
            assert day == lines[0].split()[1], problem


def test_two_numbers_at_a_time() -> None:
    for problem in _problems(load_book("dates")):
        if problem.kind in ("time_after", "time_before", "time_between", "days_between") and problem.level != BEYOND:
            assert not re.search(r"\d[-+]\d+[-+]\d+=", re.sub(r"(?m)^.*\|.*$", "", problem.thinking)), problem


def test_levels() -> None:
    for problem in _problems(BARE):
        first, second = problem.prompt.split("; ")
        beyond = problem.level == BEYOND
        if problem.kind.startswith("weekday"):
            assert int(second) >= 1000 if beyond else int(second) <= 400, problem
        elif problem.kind.startswith("date"):
            assert int(second) >= 1000 if beyond else int(second) <= 120, problem
        elif problem.kind == "days_between":
            assert (first[-4:] != second[-4:]) == beyond, problem
        elif problem.kind != "time_between":
            assert (_minutes(second) >= 100 * 60) == beyond, problem


def test_grading() -> None:
    for problem in _problems(load_book("dates"), 200):
        assert dates.grade(problem, problem.reply)
        assert problem.reply.startswith(BEYOND_WARNING) == (problem.level == BEYOND)
        wrong = {"1": "2", "day": "week"}
        changed = problem.answer.replace("day", wrong["day"])
        changed = re.sub(r"\d$|\d(?= h| min| [A-Z])", lambda found: str((int(found.group()) + 1) % 10), changed)
        assert not dates.grade(problem, state(changed)), (problem, changed)
        assert not dates.grade(problem, state(""))


def test_other_ways_to_write_the_answer() -> None:
    problem = dates.generate(random.Random(0), 1, BARE)
    day = replace(problem, kind="date_after", answer="5 March 2025")
    assert dates.grade(day, "**05 March 2025**")
    assert not dates.grade(day, "**15 March 2025**")
    time = replace(problem, kind="time_after", answer="07:15")
    assert dates.grade(time, "**7:15**")
    assert not dates.grade(time, "**17:15**")
    span = replace(problem, kind="time_between", answer="2 h 45 min")
    assert all(
        dates.grade(span, f"**{text}**") for text in ("2h 45min", "2 hours and 45 minutes", "165 min", "2h45min")
    )
    assert not any(dates.grade(span, f"**{text}**") for text in ("2 h", "45 min", "2 45", "2 h 54 min"))
    count = replace(problem, kind="days_between", answer="12")
    assert dates.grade(count, "**12 days**")
    assert not dates.grade(count, "**12 weeks**")


def test_same_seed_same_problem() -> None:
    book = load_book("dates")
    assert checks.is_repeatable(lambda rng: dates.generate(rng, rng.choice(LEVELS), book))


def test_book() -> None:
    book = load_book("dates")
    assert set(book.kinds) == set(SLOTS)
    for kind, slots in SLOTS.items():
        assert len(book.kinds[kind]) >= 25, kind
        assert not branches.odd_templates(book.kinds[kind], set(slots.split())), kind
