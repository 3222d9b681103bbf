"""The blocks of the key/value cache as plain numbers: who may write where.

Knows no tensors and no sequences: it gives out block numbers and takes them back. A sequence's blocks are laid side by
side where there is room, since side by side they can be read without being copied together first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_FREE_RUN = re.compile(b"\x00+")


class BlockPool:
    """A fixed number of blocks of one size, each free or held once."""

    def __init__(self, blocks: int, block_size: int) -> None:
        self.block_size = block_size
        """Tokens a block."""
        self.available = blocks
        """Free blocks."""
        self._held = bytearray(blocks)

    def __len__(self) -> int:
        return len(self._held)

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold `tokens` tokens."""
        return -(-tokens // self.block_size)

    def allocate(self, count: int, after: int | None = None) -> list[int]:
        """Takes `count` free blocks, of which there must be as many; those right after block `after` if they are free.

        Where a new run must begin, it begins in the middle of the longest free one, so that both its neighbour and
        itself can grow. Of 8 blocks: A takes 2 and gets 0, 1; B takes 1 of the free 2..7 and gets 5; C takes 1 of the
        free 2..4 and gets 3; A takes one more and gets 2.
        """
        assert count <= self.available, (count, self.available)
        taken: list[int] = []
        block = len(self._held) if after is None else after + 1
        for _ in range(count):
            if block >= len(self._held) or self._held[block]:
                block = self._start_of_run(count - len(taken))
            self._held[block] = 1
            taken.append(block)
            block += 1
        self.available -= count
        return taken

    def free(self, blocks: Iterable[int]) -> None:
        """Gives blocks back; each must be held."""
        for block in blocks:
            assert self._held[block], f"block {block} is freed twice"
            self._held[block] = 0
            self.available += 1

    def audit(self, tables: Iterable[list[int]] = ()) -> None:
        """Asserts that the blocks held are exactly those of `tables`, each once."""
        held = [block for table in tables for block in table]
        assert len(set(held)) == len(held), f"held twice: {sorted(held)}"
        assert set(held) == {block for block, mark in enumerate(self._held) if mark}, "held by nobody, or free and held"
        assert self.available == len(self._held) - len(held), (self.available, len(held))

    def _start_of_run(self, count: int) -> int:
        begin, end = max((run.span() for run in _FREE_RUN.finditer(self._held)), key=lambda span: span[1] - span[0])
        return begin if begin == 0 else max(begin, min((begin + end) // 2, end - count))
