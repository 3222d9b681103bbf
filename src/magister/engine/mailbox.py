"""The way from the engine's thread to its callers' event loops.

A step fills any number of mailboxes and then wakes each loop once. What has gathered by the time a caller looks comes
as one chunk for each choice. Knows nothing of what is sent but how chunks are joined.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from magister.types import Chunk


class Mailbox:
    """Chunks on their way to the loop in which it was made. One thread puts, one task takes, neither holds a lock."""

    def __init__(self) -> None:
        """Must be made inside a running event loop."""
        self.loop = asyncio.get_running_loop()
        self._chunks: deque[Chunk] = deque()
        self._failure: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._rung = False

    def put(self, chunks: Iterable[Chunk]) -> bool:
        """Lays chunks down. True if the caller has to be woken for them, by `ring`."""
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
        """The chunks that came since the last call, at least one. RuntimeError if the engine failed."""
        while True:
            self._rung = False
            chunks: list[Chunk] = []
            while self._chunks:
                chunks.append(self._chunks.popleft())
            if self._failure is not None:
                raise RuntimeError(f"the engine failed: {self._failure!r}") from self._failure
            if chunks:
                return chunks if len(chunks) == 1 else joined(chunks)
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def wake(self) -> None:
        """Lets a waiting `take` look again. In the loop's own thread only."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def ring(mailboxes: Sequence[Mailbox]) -> list[Mailbox]:
    """Wakes the callers, one call for each loop. Gives back those whose loop is closed: nobody will ever read them."""
    loops: dict[asyncio.AbstractEventLoop, list[Mailbox]] = {}
    for mailbox in mailboxes:
        loops.setdefault(mailbox.loop, []).append(mailbox)
    dead: list[Mailbox] = []
    for loop, mine in loops.items():
        try:
            loop.call_soon_threadsafe(_wake, mine)
        except RuntimeError:
            # What asyncio raises for a closed loop; asking before the call would leave a gap between the two.
            dead += mine
    return dead


def joined(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Chunks of one choice and version that follow one another, as one; choices in the order of their first chunk."""
    runs: dict[int, list[list[Chunk]]] = {}
    for chunk in chunks:
        mine = runs.setdefault(chunk.choice, [])
        if mine and mine[-1][-1].version == chunk.version:
            mine[-1].append(chunk)
        else:
            mine.append([chunk])
    return [run[0] if len(run) == 1 else _join(run) for mine in runs.values() for run in mine]


def _wake(mailboxes: Sequence[Mailbox]) -> None:
    for mailbox in mailboxes:
        mailbox.wake()


def _join(run: Sequence[Chunk]) -> Chunk:
    last = run[-1]
    entropy = None if last.entropy is None else tuple([value for chunk in run for value in chunk.entropy or ()])
    top = None if last.top is None else tuple([value for chunk in run for value in chunk.top or ()])
    return Chunk(
        choice=last.choice,
        ids=tuple([id_ for chunk in run for id_ in chunk.ids]),
        logprobs=tuple([value for chunk in run for value in chunk.logprobs]),
        sampled_logprobs=tuple([value for chunk in run for value in chunk.sampled_logprobs]),
        forced=tuple([value for chunk in run for value in chunk.forced]),
        version=last.version,
        entropy=entropy,
        top=top,
        finish=last.finish,
        trim=last.trim,
        stop=last.stop,
        error=last.error,
        cached_tokens=last.cached_tokens,
        timings=last.timings,
    )
