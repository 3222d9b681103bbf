"""One request's events on their way to its client: gathered while the client is slow, watched while it is silent.

What comes between two sends goes out together, so a slow client or a busy server costs frames, not tokens. Knows no
dialect and no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Generic, Self, TypeVar

T = TypeVar("T")

MOST = 256
"""Items held for a client that does not read; the model waits beyond that."""


class Pump(Generic[T]):
    """Runs the events in a task of its own. Use as an asynchronous context manager: leaving it cancels the work."""

    def __init__(self, events: AsyncGenerator[T, None]) -> None:
        self._events = events
        self._held: list[T] = []
        self._done = False
        self._error: BaseException | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._room: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self.gone = False
        """The client has left."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        if not self._task.done():
            self._task.cancel()
        # Its own failure was told by `take`; here only its end is awaited.
        await asyncio.wait((self._task,))

    def leave(self) -> None:
        """The client has gone: `take` returns at once."""
        self.gone = True
        self._wake()

    async def take(self, seconds: float | None) -> list[T] | None:
        """What has come since the last call, at least one event; none where there will be no more or the client left.

        None after `seconds` of silence. Raises what the model raised, once everything before it was taken.
        """
        if not self._held and not self._done and not self.gone:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            timer = None if seconds is None else loop.call_later(seconds, self._wake)
            try:
                await self._waiting
            finally:
                self._waiting = None
                if timer is not None:
                    timer.cancel()
        if self.gone:
            return []
        if self._held:
            taken, self._held = self._held, []
            if self._room is not None:
                self._room.set()
            return taken
        if not self._done:
            return None
        if self._error is not None:
            raise self._error
        return []

    async def _run(self) -> None:
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    self._held.append(event)
                    self._wake()
                    if len(self._held) >= MOST:
                        await self._wait_for_room()
        except Exception as error:  # noqa: BLE001 - handed to whoever takes
            self._error = error
        finally:
            self._done = True
            self._wake()

    async def _wait_for_room(self) -> None:
        self._room = asyncio.Event()
        await self._room.wait()
        self._room = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
