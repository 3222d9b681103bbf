"""Families that give one fixed reply to every prompt. Knows nothing of which prompts those are."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedReply:
    """A family's `generate` and `grade` where the reply never changes."""

    name: str
    kind: str
    """Of every prompt."""
    reply: str
    signs: tuple[str, ...]
    """What a right reply contains, in any case."""
    openings: tuple[str, ...] = ("",)
    """What a right reply begins with, one of these, in lower case."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Word list of the book by the slot it fills; an empty string where the book lacks the list."""

    def generate(self, rng: random.Random, level: int, book: Phrasebook) -> Problem:
        """One prompt of level 1; there is nothing past the trained range.

        Raises `ValueError` for any other level.
        """
        if level != 1:
            raise ValueError(f"{self.name} has level 1 only, got {level}")
        slots = {slot: book.word(rng, words) if book.words.get(words) else "" for slot, words in self.words.items()}
        return Problem(
            family=self.name,
            kind=self.kind,
            level=level,
            operands=(),
            prompt=book.phrase(rng, self.kind, **slots),
            thinking="",
            answer=self.reply,
            reply=self.reply,
        )

    def grade(self, problem: Problem, reply: str) -> bool:
        """Whether the reply opens as it should and contains every sign."""
        text = reply.strip().casefold()
        return text.startswith(self.openings) and all(sign.casefold() in text for sign in self.signs)
