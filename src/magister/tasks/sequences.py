"""Number sequences: the next number, or the number at a place further on.

Makes sequences by six rules and keeps those that the fixed order of thought takes the same way.
Knows nothing of the words they are asked in.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from magister.answers.exact import extract, same
from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import BEYOND, Problem, state
from magister.tasks.sequences_full import next_in_full, place_in_full
from magister.tasks.sequences_think import Thought, next_term, term_at, third_differences

NAME = "sequences"
LEVELS = 4

LONGEST = 380
"""Characters of the working in full above which a sequence is drawn again."""

_TRIES = 60
_TOP = 9999

Terms = list[int]


def generate(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    """The next number (all levels), or from level 2 the number at a place up to 30."""
    if level == BEYOND:
        return _beyond(rng, book)
    if level >= 2 and rng.random() < 0.4:
        return _place(rng, level, book)
    for _ in range(_TRIES):
        terms = rng.choice(_MAKERS[level])(rng, level)
        shown, following = terms[:-1], terms[-1]
        if min(terms) < 0 or max(terms) > _TOP:
            continue
        full = next_in_full(shown)
        if full is not None and full.result == following and len("\n".join(full.lines)) <= LONGEST:
            break
    else:
        start, difference = rng.randint(1, 9), rng.randint(2, 9)
        shown = [start + difference * place for place in range(4)]
    thought = next_term(shown)
    assert thought is not None
    return _problem("next", level, shown, None, book.phrase(rng, "next", s=_shown(shown)), thought)


def grade(problem: Problem, reply: str) -> bool:
    """Whether the reply's number is the one asked for."""
    return same(extract(reply), problem.answer)


def _digits_number(rng: random.Random, most: int) -> int:
    """A number of 1 to `most` digits, each count of digits as likely."""
    length = rng.randint(1, most)
    return rng.randint(10 ** (length - 1), 10**length - 1)


def _arithmetic(rng: random.Random, level: int) -> Terms:
    size = min(level, 3) + 1
    start, difference = _digits_number(rng, size), _digits_number(rng, size - 1)
    count = rng.randint(4, 6 if start < 100 else 5 if start < 1000 else 4)
    terms = [start + difference * place for place in range(count + 1)]
    # Falling sequences are rising ones read backwards, so that none goes below 0.
    return terms[::-1] if rng.random() < 0.4 else terms


def _geometric(rng: random.Random, _level: int) -> Terms:
    ratio = rng.choice((2, 2, 3, 3, 4, 5))
    count = rng.randint(4, 6 if ratio < 4 else 4)
    start = rng.randint(1, 12)
    terms = [start * ratio**place for place in range(count + 1)]
    return terms[::-1] if rng.random() < 0.3 else terms


def _quadratic(rng: random.Random, level: int) -> Terms:
    start = _digits_number(rng, level - 1)
    difference, second = rng.randint(-9, 20), rng.choice((1, 2, 2, 3, 4, 5, 6, 8, 10, -1, -2, -3))
    terms = [start]
    for place in range(rng.randint(4, 6)):
        terms.append(terms[-1] + difference + second * place)
    return terms


def _fibonacci(rng: random.Random, level: int) -> Terms:
    terms = [_digits_number(rng, level - 2), _digits_number(rng, level - 2)]
    while len(terms) < rng.randint(6, 7):
        terms.append(terms[-2] + terms[-1])
    return terms


def _in_turn(rng: random.Random, _level: int) -> Terms:
    add, ratio, turn = rng.randint(1, 12), rng.choice((2, 2, 2, 3, 3, 4)), rng.randrange(2)
    terms = [rng.randint(1, 12)]
    for place in range(rng.randint(5, 6)):
        terms.append(terms[-1] + add if place % 2 == turn else terms[-1] * ratio)
    return terms


def _interleaved(rng: random.Random, _level: int) -> Terms:
    rows = []
    for _ in range(2):
        start, difference = _digits_number(rng, 2), rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, -1, -2, -3, -5, -10))
        rows.append([start + difference * place for place in range(4)])
    return [rows[place % 2][place // 2] for place in range(7)]


_MAKERS: dict[int, tuple[Callable[[random.Random, int], Terms], ...]] = {
    1: (_arithmetic,),
    2: (_arithmetic, _arithmetic, _geometric),
    3: (_arithmetic, _geometric, _quadratic, _quadratic, _fibonacci),
    4: (_quadratic, _fibonacci, _in_turn, _in_turn, _interleaved, _interleaved),
}


def _place(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    for _ in range(_TRIES):
        shown, k = _place_geometric(rng) if level >= 3 and rng.random() < 0.4 else _place_arithmetic(rng, level)
        if len("\n".join(place_in_full(shown, k).lines)) <= LONGEST:
            break
    return _problem("nth", level, shown, k, book.phrase(rng, "nth", s=_shown(shown), k=k), term_at(shown, k))


def _place_geometric(rng: random.Random) -> tuple[Terms, int]:
    ratio, start = rng.choice((2, 2, 2, 3, 3, 4, 5)), rng.randint(1, 9)
    far = [k for k in range(5, 9) if start * ratio ** (k - 1) <= _TOP]
    return [start * ratio**place for place in range(4)], rng.choice(far)


def _place_arithmetic(rng: random.Random, level: int) -> tuple[Terms, int]:
    start, difference = _digits_number(rng, min(level, 3)), _digits_number(rng, min(level - 1, 2))
    k = rng.randint(6, 15 if level == 2 else 30)
    if start >= difference * (k - 1) and rng.random() < 0.5:
        difference = -difference
    return [start + difference * place for place in range(4)], k


def _beyond(rng: random.Random, book: Phrasebook) -> Problem:
    """Terms of six digits, or a cubic sequence."""
    form = rng.choice(("six digits", "place", "cubic"))
    if form == "cubic":
        a, b, c, d = 1, rng.randint(-2, 2), rng.randint(2, 9), rng.randint(0, 20)
        shown = [a * n**3 + b * n**2 + c * n + d for n in range(5)]
        return _problem(
            "next", BEYOND, shown, None, book.phrase(rng, "next", s=_shown(shown)), third_differences(shown)
        )
    start, difference = rng.randint(100_000, 899_999), _digits_number(rng, 4)
    shown = [start + difference * place for place in range(4)]
    if form == "place":
        k = rng.randint(6, 11)
        prompt = book.phrase(rng, "nth", s=_shown(shown), k=k)
        return _problem("nth", BEYOND, shown, k, prompt, term_at(shown, k))
    thought = next_term(shown)
    assert thought is not None
    return _problem("next", BEYOND, shown, None, book.phrase(rng, "next", s=_shown(shown)), thought)


def _shown(terms: Terms) -> str:
    return ", ".join(map(str, terms))


def _problem(kind: str, level: int, terms: Terms, k: int | None, prompt: str, thought: Thought) -> Problem:
    answer = str(thought.result)
    return Problem(
        family=NAME,
        kind=kind,
        level=level,
        operands=tuple(terms) if k is None else (*terms, k),
        prompt=prompt,
        thinking="\n".join(thought.lines),
        answer=answer,
        reply=state(answer, beyond=level == BEYOND),
    )
