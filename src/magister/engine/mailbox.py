"""The way from the engine's thread to one caller's event loop.

One call into the loop wakes the caller for however many chunks have gathered by then. Knows nothing of what is sent.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

from magister.types import Chunk


class Mailbox:
    """Chunks on their way to the loop in which it was made."""

    def __init__(self) -> None:
        """Must be made inside a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._lock = threading.Lock()
        self._chunks: list[Chunk] = []
        self._failure: BaseException | None = None
        self._rung = False

    def put(self, chunks: Iterable[Chunk]) -> bool:
        """Sends chunks, from any thread. False if the caller's loop is closed, so that nobody will ever read them."""
        with self._lock:
            self._chunks.extend(chunks)
            return self._ring()

    def fail(self, failure: BaseException) -> None:
        """Makes the caller's next `take` raise, from any thread."""
        with self._lock:
            self._failure = failure
            self._ring()

    async def take(self) -> list[Chunk]:
        """The chunks that came since the last call, at least one. RuntimeError if the engine failed."""
        await self._arrived.wait()
        self._arrived.clear()
        with self._lock:
            chunks, self._chunks = self._chunks, []
            self._rung = False
            failure = self._failure
        if failure is not None:
            raise RuntimeError(f"the engine failed: {failure!r}") from failure
        return chunks

    def _ring(self) -> bool:
        if not self._rung:
            try:
                self._loop.call_soon_threadsafe(self._arrived.set)
            except RuntimeError:
                # What asyncio raises for a closed loop; asking before the call would leave a gap between the two.
                return False
            self._rung = True
        return True
