"""How much an engine takes on: fixed when it is built, derived from nothing.

Knows neither the model nor the machine; whoever composes an engine knows both.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes of one engine. ValueError where they contradict each other."""

    context: int
    """Tokens of one sequence at most, prompt and answer together."""
    blocks: int
    """Blocks in the pool; with `block_size` tokens each they are the key/value cache of all running sequences."""
    block_size: int = 16
    """Tokens a block."""
    step_tokens: int = 512
    """Tokens computed in one step at most: every running sequence's next one, the rest prefill."""
    running: int = 32
    """Sequences in a step at most."""
    waiting: int = 4096
    """Sequences that may wait for their turn; past that a request is `Busy`."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} is {getattr(self, field.name)}, must be at least 1")
        if self.context < 2:
            raise ValueError(f"context is {self.context}, must hold a prompt and an answer: at least 2")
        if self.slots < self.context:
            raise ValueError(
                f"{self.blocks} blocks of {self.block_size} tokens cannot hold a context of {self.context}"
            )
        if self.step_tokens < self.running:
            raise ValueError(f"step_tokens is {self.step_tokens}, must be at least running = {self.running}")

    @property
    def slots(self) -> int:
        """Tokens the pool holds."""
        return self.blocks * self.block_size
