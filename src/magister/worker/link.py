"""One end of the worker's socket on an event loop: frames in, frames out, and when to hold back.

The same for both ends; knows of frames only how they are framed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, cast

from magister.worker.frames import Answer, Framer, Question, encode

F_contra = TypeVar("F_contra", contravariant=True)
F = TypeVar("F")

_HIGH_WATER = 1 << 20
"""Bytes that the other end has not read, past which we hold back."""
_ROOM = 1 << 16
"""Bytes read at once, into a buffer that stays: a new one for every frame would cost more than the frame."""


class Handler(Protocol[F_contra]):
    """Who reads a link's frames; all is called on the loop."""

    def opened(self) -> None:
        """The link may be written to."""
        ...

    def received(self, frame: F_contra) -> None:
        """One frame."""
        ...

    def paused(self) -> None:
        """The other end does not read; what is sent from now on only piles up."""
        ...

    def resumed(self) -> None:
        """It reads again."""
        ...

    def lost(self, reason: str) -> None:
        """Nothing more will come. Called once, and last."""
        ...


class Link(asyncio.BufferedProtocol, Generic[F]):
    """Made by the loop for each connection. Bytes that are no frame end the connection, and nothing else."""

    def __init__(self, handler: Handler[F], read: Callable[[memoryview], F], largest: int) -> None:
        """`read` decodes a frame, ValueError for what is none; `largest` is in bytes."""
        self._handler = handler
        self._read = read
        self._framer = Framer(largest)
        self._room = bytearray(_ROOM)
        self._transport: asyncio.Transport | None = None
        self._reason: str | None = None

    def send(self, frame: Question | Answer) -> None:
        """Sends a frame; after the end of the connection that is nothing."""
        self.write(encode(frame))

    def write(self, encoded: bytearray) -> None:
        """Sends what `encode` made."""
        if self._transport is not None and self._reason is None:
            self._transport.write(encoded)

    def hold(self, reading: bool) -> None:
        """Stops reading, or goes on with it."""
        if self._transport is None or self._transport.is_closing():
            return
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def end(self, reason: str) -> None:
        """Ends the connection at once; the handler's `lost` is told this reason. Once is enough."""
        if self._reason is None:
            self._reason = reason
            if self._transport is not None:
                self._transport.abort()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # What uvloop hands over behaves like one, but is none.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_HIGH_WATER)
        self._handler.opened()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for payload in self._framer.feed(bytes(memoryview(self._room)[:nbytes])):
                if self._reason is not None:
                    return
                self._handler.received(self._read(payload))
        except ValueError as error:
            self.end(str(error))

    def pause_writing(self) -> None:
        self._handler.paused()

    def resume_writing(self) -> None:
        self._handler.resumed()

    def connection_lost(self, error: Exception | None) -> None:
        self._reason = self._reason or (f"the connection broke: {error}" if error else "the connection was closed")
        self._handler.lost(self._reason)
