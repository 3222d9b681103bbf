"""What an engine must know of tokens: their bytes, and which ids begin, end or must not be said.

Knows nothing of how text becomes tokens; ids are found by name in the tokenizer's file by whoever composes the engine.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The tokens of a model. ValueError for an id outside of it."""

    pieces: tuple[bytes, ...]
    """Bytes of every token by id; empty for control tokens, across which no stop string reaches."""
    end: int
    """The token that ends a turn."""
    think: int | None = None
    """The token that opens a thought; None where the model has no thoughts."""
    end_think: int | None = None
    """The token that closes it; given exactly where `think` is."""
    never: frozenset[int] = frozenset()
    """Ids that are never sampled, such as unused slots; a model's image tokens are added by the engine."""

    def __post_init__(self) -> None:
        if (self.think is None) != (self.end_think is None):
            raise ValueError(f"think is {self.think} and end_think is {self.end_think}, must be given together")
        special = {"end": self.end, "think": self.think, "end_think": self.end_think}
        for name, id_ in special.items():
            if id_ is not None and not 0 <= id_ < len(self.pieces):
                raise ValueError(f"{name} is {id_}, the vocabulary has ids 0 to {len(self.pieces) - 1}")
            if id_ is not None and id_ in self.never:
                raise ValueError(f"{name} is {id_}, which is also among the ids never sampled")
