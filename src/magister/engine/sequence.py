"""One sequence of tokens in the engine: what it holds, how much of it is computed, and where.

Mutable on purpose: the scheduler moves it, the engine lengthens it. Knows no tensors and no callers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from magister.engine.prefix import Places
from magister.types import Pixels


class State(StrEnum):
    """Where a sequence is."""

    WAITING = "waiting"
    """Holds no blocks; all of its tokens are to be computed, again if it was preempted, or found."""
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
    places: Places | None = None
    """Where they lie; None without images."""
    computed: int = 0
    """Tokens whose keys and values are in the cache."""
    blocks: list[int] = field(default_factory=list)
    """The blocks that hold them, in order: token i is in `blocks[i // block_size]`. A new list after every preemption;
    until then it only grows.
    """
    state: State = State.WAITING
    draft: tuple[int, ...] = ()
    """Guesses at the tokens after `ids`, to be confirmed by the next step."""
    cached: int | None = None
    """Tokens of the prompt that were found rather than computed when it first ran; None before."""
    root: bytes = b""
    """What `hashes` begin with."""
    hashes: list[bytes] = field(default_factory=list)
    """Of its full blocks, as far as they were needed."""
    registered: int = 0
    """Leading blocks that others can find; `promised` ones from there on will be."""
    promised: int = 0
    """Leading blocks that others may wait for: those of the tokens known when it was admitted."""
    unscored: int = 0
    """Tokens at the end of the prompt whose probabilities are wanted and not known yet."""
    shares: bool = True
    """Whether its blocks may be found by others: not once two versions of the weights had a part in them."""

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
    """One past the last token, guesses included."""
    rows: int
    """How many of its last tokens are asked what comes next: none where it ends before the sequence does."""
    draft: tuple[int, ...] = ()
    """Guesses behind the sequence's own ids; with them there is a row for each, and one before."""
    scored: int = 0
    """How many of the rows, the first ones, are asked how likely the prompt's next token is, which is known."""

    @property
    def ids(self) -> list[int]:
        """The tokens to compute."""
        ids = self.sequence.ids[self.start : self.stop]
        return [*ids, *self.draft] if self.draft else ids
