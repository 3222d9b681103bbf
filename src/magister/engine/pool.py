"""The blocks of the key/value cache as plain numbers: who may write where, and what may be read again.

A block is empty, held by one or more, or idle: held by nobody, but with contents that can still be found by their hash.
Idle blocks are kept in the order in which they were given back and are emptied, the oldest first, when nothing else is
left. Knows no tensors, no sequences and not what a hash is of. A sequence's blocks are laid side by side where there is
room, since side by side they can be read without being copied together first; nothing depends on it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

_GAPS = (128, 64, 32, 16, 8, 4, 2, 1, 0)
"""Empty blocks left on both sides of a new run, for its neighbour and itself to grow into: as many as there are."""
_GULP = 16
"""At least this share of the idle blocks, 1 / 16, is emptied at a time: single blocks would seldom lie side by side."""
_EMPTY = re.compile(rb"\0+")
"""A run of blocks that nobody has taken."""


class BlockPool:
    """A fixed number of blocks of one size."""

    def __init__(self, blocks: int, block_size: int) -> None:
        self.block_size = block_size
        """Tokens a block."""
        self.available = blocks
        """Blocks that nobody holds, empty or idle."""
        self._holders = [0] * blocks
        self._taken = bytearray(blocks)
        self._idle: dict[int, None] = {}
        self._hashes: dict[int, bytes] = {}
        self._found: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._holders)

    @property
    def idle(self) -> int:
        """Blocks that nobody holds and whose contents can be found."""
        return len(self._idle)

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold `tokens` tokens."""
        return -(-tokens // self.block_size)

    def allocate(self, count: int, after: int | None = None) -> list[int]:
        """Takes `count` blocks that nobody holds, of which there must be as many; those right after block `after` if
        they are empty. What idle blocks held is lost.

        A new run begins in the middle of an empty one, so that both its neighbour and itself can grow. Of 8 blocks: A
        takes 2 and gets 0, 1; B takes 1 of the empty 2..7 and gets 4; C takes 1 and gets 6; A takes one more and gets
        2.
        """
        assert count <= self.available, (count, self.available)
        empty = self.available - len(self._idle)
        if count > empty:
            self._empty_idle(count - empty)
        self.available -= count
        taken = [] if after is None else list(self._take(after + 1, count))
        if len(taken) < count:
            for begin in self._places(count - len(taken)):
                taken += self._take(begin, count - len(taken))
        assert len(taken) == count, "fewer blocks are empty than were counted"
        return taken

    def find(self, key: bytes) -> int | None:
        """The block whose contents were registered under this hash, if they are still there."""
        return self._found.get(key)

    def is_idle(self, block: int) -> bool:
        """Whether nobody holds a block that was found."""
        return not self._holders[block]

    def share(self, block: int) -> None:
        """Adds a holder to a block that was found."""
        if not self._holders[block]:
            del self._idle[block]
            self.available -= 1
        self._holders[block] += 1

    def register(self, block: int, key: bytes) -> None:
        """Lets the contents of a held block be found; if others have the same, they stay the ones that are found."""
        assert self._holders[block]
        if key not in self._found and block not in self._hashes:
            self._found[key] = block
            self._hashes[block] = key

    def free(self, blocks: Sequence[int], *, keep: bool = True) -> None:
        """Takes a holder from each block. The last holder leaves it idle if it was registered, else empty.

        Later blocks of a sequence are forgotten before earlier ones, without which they could not be found. Without
        `keep`, blocks that nobody else holds are emptied at once.
        """
        for block in reversed(blocks):
            assert self._holders[block], f"block {block} is freed twice"
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            self.available += 1
            if block in self._hashes:
                self._idle[block] = None
                if not keep:
                    self._empty(block)
            else:
                self._taken[block] = 0

    def forget(self) -> None:
        """Lets nothing be found any more. Holders keep their blocks."""
        for block in list(self._idle):
            self._empty(block)
        self._hashes = {}
        self._found = {}

    def audit(self, tables: Iterable[Sequence[int]] = ()) -> None:
        """Asserts that `tables` name each block as often as it has holders, and that every block is accounted for."""
        held = Counter(block for table in tables for block in table)
        holders = {block: count for block, count in enumerate(self._holders) if count}
        assert held == holders, f"tables say {dict(held)}, the pool {holders}"
        assert held.keys().isdisjoint(self._idle), "held and idle"
        assert self._idle.keys() <= self._hashes.keys(), "idle without a hash"
        assert {key: block for block, key in self._hashes.items()} == self._found, "hashes and blocks disagree"
        taken = {block for block, mark in enumerate(self._taken) if mark}
        assert taken == held.keys() | self._idle.keys(), "taken by nobody, or empty and in use"
        assert self.available == len(self._holders) - len(held), (self.available, len(held))

    def _take(self, begin: int, count: int) -> range:
        """Takes the blocks from `begin` on as far as they are empty, but no more than `count`."""
        end = min(begin + count, len(self._taken))
        stop = self._taken.find(1, begin, end)
        blocks = range(begin, end if stop < 0 else stop)
        for block in blocks:
            self._taken[block] = 1
            self._holders[block] = 1
        return blocks

    def _places(self, count: int) -> list[int]:
        """Where to begin: the one place where `count` blocks have room, or else each empty run, the longest first."""
        for gap in _GAPS:
            begin = self._taken.find(bytes(count + 2 * gap))
            if begin >= 0:
                return [begin + gap if begin else 0]
        # All in one look: a look for each piece takes seconds where thousands of blocks lie apart.
        runs = sorted((match.start() - match.end(), match.start()) for match in _EMPTY.finditer(self._taken))
        return [begin for _, begin in runs]

    def _empty_idle(self, count: int) -> None:
        oldest = list(self._idle)[: max(count, len(self._idle) // _GULP)]
        for block in oldest:
            self._empty(block)

    def _empty(self, block: int) -> None:
        del self._idle[block]
        del self._found[self._hashes.pop(block)]
        self._taken[block] = 0
