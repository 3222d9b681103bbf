"""The carrier of one problem and the rule that splits operands into trained and held out.

Knows nothing of phrasings or of any one family.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

BEYOND = 0
"""The level of problems past the trained ranges; trained levels count from 1."""

HELD_OUT_INTERVALS = ((37, 38), (620, 649), (3000, 3499))
"""Inclusive intervals of operands that no training problem contains."""

HELD_OUT_SHARE = 50
"""One operand tuple in this many is held out by its hash (2 %)."""


class Split(StrEnum):
    """Which side of the operand split a problem comes from."""

    TRAIN = "train"
    HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem: how it is asked, how it is thought through, what the answer is."""

    family: str
    """Name of the family, the module's `NAME`."""
    kind: str
    """Which list of phrasings it is asked with, for example `mul`."""
    level: int
    """Difficulty, from 1; `BEYOND` for a problem past the trained ranges."""
    operands: tuple[int | str, ...]
    """What makes this problem this problem, whatever its words; the split hashes it."""
    same: tuple[tuple[int | str, ...], ...] = ()
    """Other operands that can be asked in the very same text: it is trained on only where none of them is held out."""
    prompt: str
    """The user's message."""
    thinking: str
    """The thought, from a restatement in symbols to the result; empty where none is due."""
    answer: str
    """The canonical answer, what `grade` compares with."""
    reply: str
    """The text shown after the thought; contains the answer in bold."""
    spelled: str = ""
    """What of the reply is learned with a token a letter: nobody could foresee which longer ones a jumble has."""


def is_held_out(family: str, kind: str, operands: tuple[int | str, ...]) -> bool:
    """Whether a problem with these operands is kept from training.

    Two rules: an integer operand inside one of `HELD_OUT_INTERVALS`, or a hash of the whole
    tuple in the 2 % share. Order matters: 3 + 5 and 5 + 3 are two tuples.
    """
    for operand in operands:
        if isinstance(operand, int) and any(low <= operand <= high for low, high in HELD_OUT_INTERVALS):
            return True
    key = repr((family, kind, operands)).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") % HELD_OUT_SHARE == 0


BEYOND_WARNING = "This goes beyond the problems I was trained on, so please check it."
"""What every reply to a problem past the trained ranges begins with."""


def state(answer: str, *, beyond: bool = False) -> str:
    """The reply that gives `answer`: one sentence, the answer in bold, the warning where due."""
    sentence = f"The answer is **{answer}**."
    return f"{BEYOND_WARNING} {sentence}" if beyond else sentence
