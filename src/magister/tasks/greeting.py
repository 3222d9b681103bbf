"""Greetings, thanks and goodbyes: one fixed, friendly reply with things to try.

Knows nothing of small talk beyond that.
"""

from __future__ import annotations

import random

from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import Problem

NAME = "greeting"
LEVELS = 1

EXAMPLES = ("What is 17 * 24?", "Solve 3x + 5 = 20", "Reverse the word river")
"""What the reply offers to try."""

REPLY = f'Hello! I am nano, a very small reasoning model. Try: "{EXAMPLES[0]}", "{EXAMPLES[1]}" or "{EXAMPLES[2]}".'
"""The reply to every greeting."""


def generate(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    """One greeting; there is nothing past the trained range."""
    if level != 1:
        raise ValueError(f"{NAME} has level 1 only, got {level}")
    prompt = book.phrase(rng, "hello")
    return Problem(
        family=NAME,
        kind="hello",
        level=level,
        operands=(),
        prompt=prompt,
        thinking="",
        answer=REPLY,
        reply=REPLY,
    )


def grade(problem: Problem, reply: str) -> bool:
    """Whether the reply greets and names the things to try."""
    text = reply.strip().casefold()
    return text.startswith(("hello", "hi")) and all(example.casefold() in text for example in EXAMPLES)
