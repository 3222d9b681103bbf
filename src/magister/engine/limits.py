"""How much an engine takes on: fixed when it is built, derived from nothing.

Knows neither the model nor the machine; whoever composes an engine knows both.
"""

from __future__ import annotations

from dataclasses import dataclass

_AT_LEAST_ONE = ("context", "blocks", "block_size", "step_tokens", "running", "waiting")


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
    """Tokens computed in one step at most: every running sequence's next one, the rest prefill and guesses."""
    running: int = 32
    """Sequences in a step at most."""
    waiting: int = 4096
    """Sequences that may wait for their turn; past that a request is `Busy`."""
    prefix_cache: bool = True
    """Whether sequences share the blocks of a common beginning, and freed blocks can be found until needed."""
    speculation: int = 0
    """Tokens guessed ahead of a sequence at most, to be confirmed in one step; 0 guesses nothing."""
    row_cost: float = 0.3
    """What one more row adds to a decoding step, as a share of a step of one row: near 0 where weights are read once
    for all rows, 1 where each row costs a step of its own. Guesses are made only where they win at this price. Measured
    for nano in compiled code on one core with AVX2: 0.25 in float32, 0.45 in bfloat16.
    """

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.context < 2:
            raise ValueError(f"context is {self.context}, must hold a prompt and an answer: at least 2")
        if self.slots < self.context:
            raise ValueError(
                f"{self.blocks} blocks of {self.block_size} tokens cannot hold a context of {self.context}"
            )
        if self.step_tokens < self.running:
            raise ValueError(f"step_tokens is {self.step_tokens}, must be at least running = {self.running}")
        if self.speculation < 0:
            raise ValueError(f"speculation is {self.speculation}, must be at least 0")
        if not 0 <= self.row_cost <= 1:
            raise ValueError(f"row_cost is {self.row_cost}, must be between 0 and 1")

    @property
    def slots(self) -> int:
        """Tokens the pool holds."""
        return self.blocks * self.block_size
