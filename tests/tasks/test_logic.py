"""Logic: the one arrangement or assignment that fits, found by trying all; fair grading, a sound book."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter

from tests.tasks import branches, checks

from magister.tasks import logic
from magister.tasks.phrasebook import Phrasebook, load_book
from magister.tasks.problem import BEYOND, BEYOND_WARNING, Problem, state

LEVELS = (*range(1, logic.LEVELS + 1), BEYOND)
SLOTS = {
    "more": {"a", "b"},
    "less": {"a", "b"},
    "ask_top": set(),
    "ask_bottom": set(),
    "ask_second": set(),
    "intro": {"names"},
    "liar": {"a", "b"},
    "honest": {"a", "b"},
    "ask": set(),
}
BARE = Phrasebook(
    "logic",
    {},
    (
        {"more": "{a} > {b}.", "less": "{b} > {a}.", "ask_top": "0", "ask_bottom": "-1", "ask_second": "1"},
        {"intro": "{names}.", "liar": "{a} : {b} lies.", "honest": "{a} : {b} true.", "ask": "?"},
    ),
    {"names": tuple("ABCDEFGHIJ")},
)


def _problems(book: Phrasebook, count: int = 400) -> list[Problem]:
    return [logic.generate(random.Random(n * 10 + level), level, book) for level in LEVELS for n in range(count)]


def _orders(prompt: str) -> list[str]:
    """What each order that fits a bare prompt says to its question."""
    *clues, ask = [part.strip() for part in prompt.split(".")]
    pairs = [(clue[0], clue[-1]) for clue in clues]
    people = sorted(set(itertools.chain(*pairs)))
    places = {name: place for place, name in enumerate(people)}
    numbered = [(places[a], places[b]) for a, b in pairs]
    return [
        next(name for name in people if place_of[places[name]] == int(ask) % len(people))
        for place_of in itertools.permutations(range(len(people)))
        if all(place_of[a] < place_of[b] for a, b in numbered)
    ]


def _assignments(prompt: str) -> list[str]:
    """Who tells the truth in each assignment that fits a bare prompt."""
    intro, *facts, _ = [part.strip() for part in prompt.split(".")]
    people = [part for part in intro.replace(",", " ").split() if part != "and"]
    fitting = []
    for truths in itertools.product((False, True), repeat=len(people)):
        honest = dict(zip(people, truths, strict=True))
        if all(_fits(fact, honest) for fact in facts):
            fitting.append(", ".join(name for name in people if honest[name]) or "nobody")
    return fitting


def _fits(fact: str, honest: dict[str, bool]) -> bool:
    if " : " in fact:
        by, _, about, claim = fact.split()
        return honest[by] == (honest[about] == (claim == "true"))
    name = next(word for word in fact.split() if word in honest)
    truthful = ("truth" in fact and "never tells" not in fact) or "never lies" in fact
    return honest[name] == truthful


def test_answers_are_the_only_ones() -> None:
    for problem in _problems(BARE):
        found = _orders(problem.prompt) if problem.kind == "order" else _assignments(problem.prompt)
        assert len(found) == 1, problem
        assert sorted(found[0].split(", ")) == sorted(problem.answer.split(", ")), problem


def test_thinking_ends_in_the_answer_and_is_short() -> None:
    for problem in _problems(load_book("logic")):
        assert problem.thinking.endswith(f" {problem.answer}"), problem
        assert len(problem.thinking) <= (checks.MOST_CHARACTERS if problem.level else 1400), problem
        checks.retells(problem)


def test_people_stand_as_the_question_counts() -> None:
    turned = 0
    for problem in _problems(load_book("logic")):
        if problem.kind != "order":
            continue
        lines = problem.thinking.splitlines()
        row = next(line for line in lines if line.startswith("line ")).removeprefix("line ").split(", ")
        asked = problem.operands[1]
        upwards = [int(place) for place in problem.operands[2::2]]
        links = [match for line in lines if (match := re.search(r": (\S+) (over|under) (\S+)$", line))]
        assert len(links) == len(upwards) == len(row) - 1, problem
        for link in links:
            first, second = row.index(link[1]), row.index(link[3])
            assert second - first == (1 if link[2] == "over" else -1), problem
        # The first clue's two people are side by side in the row, where its place says, counted from the asked end.
        at = len(row) - 2 - upwards[0] if asked == "bottom" else upwards[0]
        assert {links[0][1], links[0][3]} == {row[at], row[at + 1]}, problem
        assert lines[-1] == f"so {'second' if asked == 'second' else 'first'} {row[asked == 'second']}", problem
        turned += asked == "bottom"
    assert turned > 20


def test_deductions_follow_from_what_is_known() -> None:
    seen: Counter[str] = Counter()
    for problem in _problems(load_book("logic")):
        if problem.kind != "truth":
            continue
        lines = problem.thinking.splitlines()
        meant = [line.rsplit(": ", 1)[1] for line in lines if line.startswith(">")]
        statements = [one for one in meant if len(one.split()) == 3]
        known = dict(one.split() for one in meant if one not in statements)
        assert len(known) == 1, problem
        at = 0
        for line in lines[len(meant) : -1]:
            at %= len(statements)
            assert line.startswith(f" {statements[at]}: "), problem
            found = _follows(statements[at], known)
            assert line.endswith(f": {found}"), problem
            seen[found if found in ("later", "known") else "found"] += 1
            if found == "later":
                at += 1
            else:
                del statements[at]
        assert len(known) == problem.operands[0], problem
        assert not statements, problem
        honest = [name for name, word in known.items() if word == "truth"]
        assert lines[-1] == f"so truth {', '.join(honest) or 'nobody'}", problem
    assert min(seen["later"], seen["known"], seen["found"]) > 20


def _follows(statement: str, known: dict[str, str]) -> str:
    """What a look at `statement` says, of what is `known` alone; whom it tells of is known from then on."""
    a, link, b = statement.split()
    if (a in known) == (b in known):
        return "known" if a in known else "later"
    old, new = (a, b) if a in known else (b, a)
    known[new] = known[old] if link == "like" else {"truth": "lies", "lies": "truth"}[known[old]]
    return f"{old} {known[old]}, {new} {known[new]}"


def test_levels() -> None:
    people = {1: {2, 3}, 2: {2, 3, 4}, 3: {3, 4, 5}, 4: {3, 5}, BEYOND: {6, 7}}
    for problem in _problems(BARE):
        assert problem.operands[0] in people[problem.level], problem


def test_grading() -> None:
    for problem in _problems(load_book("logic"), 100):
        assert logic.grade(problem, problem.reply)
        assert problem.reply.startswith(BEYOND_WARNING) == (problem.level == BEYOND)
        assert not logic.grade(problem, state(f"{problem.answer}, Xaver"))
        assert not logic.grade(problem, state("Xaver"))
        if problem.kind == "truth":
            names = problem.answer.split(", ")
            assert logic.grade(problem, state(" and ".join(reversed(names))))
            assert not logic.grade(problem, state("nobody" if names != ["nobody"] else "Ada"))


def test_same_seed_same_problem() -> None:
    book = load_book("logic")
    assert checks.is_repeatable(lambda rng: logic.generate(rng, rng.choice(LEVELS), book))


def test_book() -> None:
    book = load_book("logic")
    orders = [theme for theme in book.themes if "more" in theme]
    truths = [theme for theme in book.themes if "liar" in theme]
    assert len(orders) >= 30
    assert len(truths) >= 20
    assert len(orders) + len(truths) == len(book.themes)
    for theme in orders:
        assert set(theme) == {"more", "less", "ask_top", "ask_bottom", "ask_second"}
    for theme in truths:
        assert set(theme) == {"intro", "liar", "honest", "ask"}
    for theme in book.themes:
        for role, template in theme.items():
            assert not branches.odd_templates([template], SLOTS[role]), template
    assert len(set(book.words["names"])) >= 80
