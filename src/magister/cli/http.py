"""HTTP for `serve`: uvicorn's, with one write to the network where it would make two, and with limits of its own.

Uvicorn writes a response's head and its body apart, and each write is a system call that also carries the packet to
the other side: half of what a short answer costs. It also waits for ever for a request's head, takes one of any size,
and speaks in chunks to clients of HTTP/1.0, which know none. Knows no app.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_SECONDS = 30.0
"""In which a request's head must have arrived, from the connection's beginning or from its own first byte."""
HEAD_BYTES = 256 * 1024
"""Of a request's head, at most."""


def configured(site: Any, **more: Any) -> uvicorn.Config:
    """Uvicorn as `serve` has it: this protocol, no words of its own but of our faults; `more` of its settings."""
    return uvicorn.Config(
        site,
        http=GatheringProtocol,
        loop="none",
        lifespan="off",
        access_log=False,
        # Of its own lines only those are wanted that tell of our faults; clients' are answered.
        log_config=None,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        **more,
    )


class Gathered:
    """A transport whose writes of one turn of the loop go out together, at that turn's end."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """See `asyncio.Transport`."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """See `asyncio.Transport`; what was written goes out before."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        # The client may have gone since.
        if parts and not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class GatheringProtocol(HttpToolsProtocol):
    """Uvicorn's protocol over such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(cast(Any, Gathered(transport, self.loop)))
        self._head_bytes: int | None = None
        self._late: asyncio.TimerHandle | None = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self._head_bytes is None:
            return
        self._head_bytes += len(data)
        if self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self._too_late)
        if self._head_bytes > HEAD_BYTES:
            self._refuse(431, f"The request's head has more than {HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        """A request's first byte is here."""
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request's head is here."""
        self._arrived()
        super().on_headers_complete()
        if self.scope.get("http_version") == "1.0" and self.cycle is not None:
            self.cycle.send = unchunked(self.cycle)  # type: ignore[method-assign,assignment]

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _arrived(self) -> None:
        self._head_bytes = None
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if self._answering:
            # It asked again before it had its answer, which is not to be spoiled.
            self._late = self.loop.call_later(HEAD_SECONDS, self._too_late)
        elif self._head_bytes is None:
            # Browsers connect beforehand, for a request that may never come: to those there is nothing to say.
            self.transport.close()
        else:
            self._refuse(408, f"The request's head did not arrive within {HEAD_SECONDS:g} s.")

    def _refuse(self, status: int, told: str) -> None:
        """The last words of a connection."""
        self._arrived()
        if self.transport.is_closing():
            return
        if self._answering:
            self.transport.close()
            return
        body = told.encode()
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()


def unchunked(cycle: RequestResponseCycle) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """How a response is sent to a client that knows no chunks: where its length is not said, its end is the
    connection's.
    """
    send, told = cycle.send, True

    async def plainly(message: Any) -> None:
        nonlocal told
        if message["type"] == "http.response.start":
            told = any(name.lower() == b"content-length" for name, _ in message["headers"])
            if not told:
                cycle.chunked_encoding = False
        elif not told:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return plainly
