"""Word problems: right answers by counting the story again, true steps, fair grading, a sound book."""

from __future__ import annotations

import random
from dataclasses import replace

from tests.tasks import branches, checks

from magister.tasks import word_problems
from magister.tasks.phrasebook import Phrasebook, load_book
from magister.tasks.problem import BEYOND, BEYOND_WARNING, Problem, state

LEVELS = (*range(1, word_problems.LEVELS + 1), BEYOND)
SLOTS = {
    "open": "name n item",
    "gain": "name n item",
    "lose": "name n item",
    "groups_gain": "name k n item",
    "groups_lose": "name k n item",
    "times": "name k item",
    "share": "name k item",
    "other_more": "other name n item",
    "other_fewer": "other name n item",
    "ask": "name item",
    "ask_both": "name other item",
    "shop": "name k item p pay",
    "two_prices": "name k item p j item2 q",
    "travel": "name v t d",
    "work": "name n item k d",
    "pool": "name a other b item k",
}
NUMBERS = ("n", "k", "p", "pay", "j", "q", "v", "t", "d", "a", "b")
BARE = Phrasebook(
    "word_problems",
    {
        kind: (" ".join([kind, *(f"{{{slot}}}" for slot in NUMBERS if slot in slots.split()), ";"]),)
        for kind, slots in SLOTS.items()
    },
    (),
    {"names": ("Ada", "Ben"), "nouns": ("pens", "cups")},
)


def _problems(book: Phrasebook, count: int = 340) -> list[Problem]:
    return [
        word_problems.generate(random.Random(n * 10 + level), level, book) for level in LEVELS for n in range(count)
    ]


def _told_again(prompt: str) -> int:
    """The answer of a bare prompt, a list of events with their numbers in the order of `NUMBERS`."""
    amount = other = 0
    for event in prompt.split(";"):
        code, *rest = event.split() or [""]
        n = list(map(int, rest))
        match code:
            case "open":
                amount = n[0]
            case "gain":
                amount += n[0]
            case "lose":
                amount -= n[0]
            case "groups_gain":
                amount += sum(n[0] for _ in range(n[1]))
            case "groups_lose":
                amount -= sum(n[0] for _ in range(n[1]))
            case "times":
                amount = sum(amount for _ in range(n[0]))
            case "share":
                assert amount % n[0] == 0
                amount //= n[0]
            case "other_more" | "other_fewer":
                other = amount + (n[0] if code == "other_more" else -n[0])
            case "ask_both":
                amount += other
            case "shop":
                amount = n[2] - n[0] * n[1]
            case "two_prices":
                amount = n[0] * n[1] + n[2] * n[3]
            case "travel":
                amount = n[0] * n[1] + n[2]
            case "work":
                amount = n[0] * n[1] - n[2]
            case "pool":
                assert (n[1] + n[2]) % n[0] == 0
                amount = (n[1] + n[2]) // n[0]
        assert amount >= 0
        assert other >= 0
    return amount


def test_answers_are_right() -> None:
    for problem in _problems(BARE):
        assert _told_again(problem.prompt) == int(problem.answer), problem


def test_thinking_is_true_and_short() -> None:
    for problem in _problems(load_book("word_problems")):
        assert not branches.wrong_sums(problem.thinking), problem
        assert not checks.wrong_equations(problem.thinking), problem
        work = [line for line in problem.thinking.splitlines() if not line.startswith("> ")]
        assert sum(map(len, work)) <= 400, problem
        assert problem.thinking.endswith(f"={problem.answer}"), problem


def test_a_story_is_told_again_sentence_for_sentence() -> None:
    for problem in _problems(load_book("word_problems")):
        if problem.kind == "story":
            checks.retells(problem)
            steps = sum(isinstance(operand, str) for operand in problem.operands)
            assert sum(line.startswith(">") for line in problem.thinking.splitlines()) == steps + 1, problem


def test_grading() -> None:
    for problem in _problems(load_book("word_problems"), 100):
        assert word_problems.grade(problem, problem.reply)
        assert problem.reply.startswith(BEYOND_WARNING) == (problem.level == BEYOND)
        assert not word_problems.grade(problem, state(str(int(problem.answer) + 1)))
        assert not word_problems.grade(problem, f"{problem.reply} No, it is **{int(problem.answer) + 10}**.")


def test_units() -> None:
    problem = next(p for p in _problems(BARE, 50) if p.kind == "travel")
    assert word_problems.grade(problem, f"**{problem.answer} km**")
    assert not word_problems.grade(problem, f"**{problem.answer} hours**")
    story = replace(problem, kind="story", prompt="Ada has 5 red pens for 3 days.", answer="5")
    assert word_problems.grade(story, "**5 pens**")
    assert not word_problems.grade(story, "**5 days**")
    assert not word_problems.grade(story, "**5 cups**")


def test_one_thing_is_called_what_many_are() -> None:
    problem = next(p for p in _problems(BARE, 50) if p.kind == "story")
    for many, one in (("apples", "apple"), ("juice boxes", "juice box"), ("cherries", "cherry"), ("knives", "knife")):
        story = replace(problem, prompt=f"Ada has 3 {many} and eats 1 a day, 2 times.", answer="1")
        for unit in (one, many, one.title(), f"{one}."):
            assert word_problems.grade(story, f"**1 {unit}**"), unit
        for unit in ("pear", "day", "time", one[1:]):
            assert not word_problems.grade(story, f"**1 {unit}**"), unit
        assert not word_problems.grade(story, f"**2 {one}**")


def test_operands_and_levels() -> None:
    for problem in _problems(BARE):
        steps = [operand for operand in problem.operands if isinstance(operand, str)]
        numbers = [operand for operand in problem.operands if isinstance(operand, int)]
        if problem.level == BEYOND:
            assert len(steps) >= 8 or max(numbers) >= 10_000, problem
        else:
            assert max(numbers) <= 999, problem
            assert problem.kind != "story" or len(steps) == problem.level + 1, problem


def test_same_seed_same_problem() -> None:
    book = load_book("word_problems")
    assert checks.is_repeatable(lambda rng: word_problems.generate(rng, rng.choice(LEVELS), book))


def test_book() -> None:
    book = load_book("word_problems")
    assert set(book.kinds) == set(SLOTS)
    for kind, slots in SLOTS.items():
        assert len(book.kinds[kind]) >= 25, kind
        assert not branches.odd_templates(book.kinds[kind], set(slots.split())), kind
    assert len(set(book.words["names"])) >= 80
    assert len(set(book.words["nouns"])) >= 120
