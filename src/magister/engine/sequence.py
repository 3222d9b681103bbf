"""One sequence of tokens in the engine: what it holds, how much of it is computed, and where.

Mutable on purpose: the scheduler moves it, the engine lengthens it. Knows no tensors and no callers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from magister.types import Pixels


class State(StrEnum):
    """Where a sequence is."""

    WAITING = "waiting"
    """Holds no blocks; all of its tokens are to be computed, again if it was preempted."""
    RUNNING = "running"
    """Holds blocks for all of its tokens."""
    DONE = "done"
    """Holds no blocks and will not run again."""


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """A prompt and what has been generated from it so far."""

    number: int
    """Its name within the engine, in order of arrival."""
    ids: list[int]
    """Prompt and generated tokens."""
    prompt_length: int
    """Tokens of the prompt, the first of `ids`."""
    images: tuple[Pixels, ...] = ()
    """In the order of their tokens in the prompt."""
    computed: int = 0
    """Tokens whose keys and values are in the cache."""
    blocks: list[int] = field(default_factory=list)
    """The blocks that hold them, in order: token i is in `blocks[i // block_size]`."""
    state: State = State.WAITING

    @property
    def remaining(self) -> int:
        """Tokens still to be computed; 1 while decoding."""
        return len(self.ids) - self.computed


class Span(NamedTuple):
    """Part of a sequence, to be computed in one step: a decode is a span of length one, a prefill a longer one."""

    sequence: Sequence
    start: int
    """First token, the sequence's `computed`."""
    stop: int
    """One past the last token."""
    samples: bool
    """Whether it reaches the sequence's end, so that a next token can be drawn from its last row."""
