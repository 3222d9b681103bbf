"""The way from the engine's thread to its callers' event loops.

A step fills any number of mailboxes and then wakes each loop once. What has gathered by the time a caller looks comes
as one chunk for each choice. Knows nothing of what is sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from magister.types import Chunk
from magister.worker.joining import joined


class Outlet(Protocol):
    """Where the chunks of one request go; a mailbox, or whatever else a caller reads many requests with."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Of the caller."""
        ...

    def put(self, chunks: list[Chunk]) -> bool:
        """Lays chunks down. True if the caller has to be woken for them, by `ring`."""
        ...

    def fail(self, failure: BaseException) -> None:
        """Tells the caller that the engine failed."""
        ...

    def wake(self) -> None:
        """Lets the caller look. In the loop's own thread only."""
        ...


class Mailbox:
    """Chunks on their way to the loop in which it was made. One thread puts, one task takes, neither holds a lock."""

    def __init__(self) -> None:
        """Must be made inside a running event loop."""
        self.loop = asyncio.get_running_loop()
        self._chunks: deque[Chunk] = deque()
        self._failure: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._rung = False

    def put(self, chunks: list[Chunk]) -> bool:
        """See `Outlet`."""
        self._chunks.extend(chunks)
        # The taker clears the mark before it looks, so it either sees these chunks or gets another ring.
        if self._rung:
            return False
        self._rung = True
        return True

    def fail(self, failure: BaseException) -> None:
        """Makes the caller's next `take` raise. A caller whose loop is closed will never know, nor need to."""
        self._failure = failure
        ring([self])

    async def take(self) -> list[Chunk]:
        """The chunks that came since the last call, at least one. RuntimeError if the engine failed after them."""
        while True:
            self._rung = False
            chunks: list[Chunk] = []
            while self._chunks:
                chunks.append(self._chunks.popleft())
            if chunks:
                return chunks if len(chunks) == 1 else joined(chunks)
            if self._failure is not None:
                raise RuntimeError(f"the engine failed: {self._failure!r}") from self._failure
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def wake(self) -> None:
        """Lets a waiting `take` look again. In the loop's own thread only."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def ring(outlets: Sequence[Outlet]) -> list[Outlet]:
    """Wakes the callers, one call for each loop. Gives back those whose loop is closed: nobody will ever read them."""
    loops: dict[asyncio.AbstractEventLoop, list[Outlet]] = {}
    for outlet in outlets:
        loops.setdefault(outlet.loop, []).append(outlet)
    dead: list[Outlet] = []
    for loop, mine in loops.items():
        try:
            loop.call_soon_threadsafe(_wake, mine)
        except RuntimeError:
            # What asyncio raises for a closed loop; asking before the call would leave a gap between the two.
            dead += mine
    return dead


def _wake(outlets: Sequence[Outlet]) -> None:
    for outlet in outlets:
        outlet.wake()
