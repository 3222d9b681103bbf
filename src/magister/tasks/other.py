"""Everything outside the families: one honest sentence that says so.

Knows nothing of what was asked.
"""

from __future__ import annotations

import random

from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import Problem

NAME = "other"
LEVELS = 1

REPLY = (
    "I am nano, a very small model trained only on sums, equations, word problems, units, dates, letters, logic and "
    'the like. I cannot help with this, but you can try: "What is 17 * 24?"'
)
"""The reply to every prompt that is none of the families'."""

_WORDS = {"topic": "topics", "name": "names"}
_SIGNS = ("i am nano", "cannot help with this")


def generate(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    """One prompt of any sort; there is nothing past the trained range."""
    if level != 1:
        raise ValueError(f"{NAME} has level 1 only, got {level}")
    slots = {slot: book.word(rng, words) if book.words.get(words) else "" for slot, words in _WORDS.items()}
    prompt = book.phrase(rng, "any", **slots)
    return Problem(
        family=NAME,
        kind="any",
        level=level,
        operands=(),
        prompt=prompt,
        thinking="",
        answer=REPLY,
        reply=REPLY,
    )


def grade(problem: Problem, reply: str) -> bool:
    """Whether the reply says what nano is and that it cannot help."""
    text = reply.casefold()
    return all(sign in text for sign in _SIGNS)
