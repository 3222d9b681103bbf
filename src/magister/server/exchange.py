"""The life of one request: read, authorise, ask the model, write what it says, end it when the client is gone.

The same for every dialect and for chats as for plain completions; what differs is a `Talk`. Until the first item an
error is an HTTP status; after it, or once the client was kept waiting for longer than a keep-alive, it is the dialect's
own error frame.
"""

from __future__ import annotations

import logging
import secrets
import time
from asyncio import CancelledError, Task, create_task, current_task, get_running_loop
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from magister.server.access import Access, Caller, cors, key_of
from magister.server.asgi import Disconnected, Receive, Scope, Send, answer, header, lines, read_body, wait_disconnect
from magister.server.faults import LAPSED, Rejected, fault_of
from magister.server.metrics import Metrics
from magister.server.models import Models, Resolved
from magister.server.pump import Pump
from magister.server.settings import Settings
from magister.types import ChatRequest, Usage
from magister.wire.dialect import Answer
from magister.wire.fault import STATUS, Fault, Kind

_AT_ONCE = 0.02
"""Seconds in which a whole answer may come before its client is watched."""

OUTCOME = "magister.outcome"
"""In a scope: who wants to be told the status that a request ended with. A stream that breaks off began with 200."""

_LOG = logging.getLogger("magister.access")

Prepare = Callable[[ChatRequest], Awaitable[ChatRequest]]


@dataclass(frozen=True, kw_only=True)
class House:
    """All that requests share."""

    models: Models
    access: Access
    settings: Settings
    metrics: Metrics
    prepare: Prepare
    """What is done to a request before the model has it: images fetched and counted. Raises `Rejected`."""
    flights: set[object] = field(default_factory=set)
    """Requests being answered."""


class Talk(Protocol):
    """One request, understood: what is asked of which model, and how its answer is written."""

    resolved: Resolved
    stream: bool
    labels: dict[str, str]
    """For the access log."""

    def start(self) -> AsyncGenerator[Any, None]:
        """What the model says, item by item."""
        ...

    def usages(self, items: Sequence[Any]) -> list[Usage]:
        """What is told of the cost among them."""
        ...

    def whole(self, items: Sequence[Any]) -> bytes:
        """All of it, as one body. Raises `Rejected` for what is no whole answer."""
        ...

    def write(self, items: Sequence[Any]) -> bytes:
        """Frames of a stream."""
        ...

    def end(self) -> bytes:
        """What closes a stream, or the error frame of one that broke off."""
        ...

    def fail(self, fault: Fault) -> bytes:
        """A stream's error frame."""
        ...

    @property
    def broken(self) -> bool:
        """Whether a choice of the stream has failed, or has no end."""
        ...


Begin = Callable[[House, bytes, str], Awaitable["Talk | bytes"]]
"""House, body and the request's id -> a talk, or what can be answered at once. Raises what `fault_of` knows."""


class Route(NamedTuple):
    """A dialect as an exchange needs it."""

    name: str
    stream_type: str
    keepalive: bytes
    begin: Begin
    write_error: Callable[[Fault, str], Answer]
    token_of: Callable[[bytes], str] | None = None
    """Finds the key in the body, in the one dialect that has it there."""


class Exchange:
    """One request under way."""

    def __init__(self, house: House, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        self._house = house
        self._route = route
        self._scope, self._receive, self._send = scope, receive, send
        self.id = secrets.token_hex(16)
        self._began = time.perf_counter()
        self._origin = ""
        self._caller = Caller("")
        self._talk: Talk | None = None
        self._usage: list[Usage] = []
        self._started = False

    async def run(self) -> None:
        """From the body to the last byte. Raises nothing."""
        house = self._house
        house.flights.add(self)
        status = 499
        try:
            status = await self._answer()
        except Disconnected:
            house.metrics.disconnects.inc()
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets its dialect's error
            status = await self._refuse(fault_of(error, self.id, self._route.name))
        finally:
            house.flights.discard(self)
            seconds = time.perf_counter() - self._began
            house.metrics.answered(self._route.name, self._model, status, seconds)
            for usage in self._usage:
                house.metrics.used(self._model, usage)
            if OUTCOME in self._scope:
                self._scope[OUTCOME](status)
            if _LOG.isEnabledFor(logging.INFO):
                self._log(status, seconds)

    @property
    def _model(self) -> str:
        return "" if self._talk is None else self._talk.resolved.served.card.name

    async def _answer(self) -> int:
        house, route = self._house, self._route
        settings = house.settings
        house.access.check_host(self._scope)
        origin = header(self._scope, b"origin")
        if origin and house.access.allows(self._scope, origin):
            # Whatever is wrong with the request, its page may read it.
            self._origin = origin
        if len(house.flights) > settings.in_flight:
            told = f"{len(house.flights) - 1} requests are being answered, at most {settings.in_flight} are at a time"
            raise Rejected(Fault(kind=Kind.BUSY, message=told, retry_after=1.0))
        body = await read_body(self._scope, self._receive, settings.body_bytes, settings.body_seconds)
        token = route.token_of(body) if route.token_of else ""
        key = key_of(self._scope, token)
        if route.token_of and (page := house.access.lapsed(self._scope, key)):
            self._origin = page
            raise Rejected(LAPSED)
        self._origin = house.access.check_origin(self._scope, key)
        self._caller = house.access.authorise(key)
        talk = await route.begin(house, body, self.id)
        if isinstance(talk, bytes):
            await answer(self._send, 200, talk, headers=self._headers())
            return 200
        self._talk = talk
        return await (self._stream(talk) if talk.stream else self._whole(talk))

    async def _whole(self, talk: Talk) -> int:
        items = await _all(talk.start(), self._receive)
        self._usage = talk.usages(items)
        self._first()
        await answer(self._send, 200, talk.whole(items), headers=self._headers())
        return 200

    async def _stream(self, talk: Talk) -> int:
        async with Pump(talk.start()) as pump:
            watch = create_task(wait_disconnect(self._receive))
            watch.add_done_callback(lambda _: pump.leave())
            try:
                return await self._streamed(talk, pump)
            finally:
                watch.cancel()

    async def _streamed(self, talk: Talk, pump: Pump[Any]) -> int:
        send, route, silence = self._send, self._route, self._house.settings.keepalive_seconds
        items = await pump.take(silence)
        if items == [] and not pump.gone:
            raise Rejected(Fault(kind=Kind.UPSTREAM, message="the model ended without an answer"))
        headers = [*self._headers(), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]
        await send({"type": "http.response.start", "status": 200, "headers": lines(route.stream_type, headers, None)})
        self._started = True
        self._first()
        try:
            while items is None or items:
                if items is None:
                    data = route.keepalive
                else:
                    self._usage += talk.usages(items)
                    data = talk.write(items)
                if data:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                items = await pump.take(silence)
            if pump.gone:
                raise Disconnected
            await send({"type": "http.response.body", "body": talk.end()})
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001 - the stream has begun, so its own error frame must tell
            fault = fault_of(error, self.id, self._route.name)
            await send({"type": "http.response.body", "body": talk.fail(fault)})
            return STATUS[fault.kind]
        return STATUS[Kind.UPSTREAM] if talk.broken else 200

    def _first(self) -> None:
        self._house.metrics.first(self._model, time.perf_counter() - self._began)

    def _headers(self) -> list[tuple[str, str]]:
        headers = [("x-request-id", self.id), ("request-id", self.id), *cors(self._origin)]
        if self._talk is not None and self._talk.resolved.instead_of:
            headers.append(("x-magister-model", f"{self._model}; asked={self._talk.resolved.instead_of}"))
        return headers

    async def _refuse(self, fault: Fault) -> int:
        """The dialect's error, while there is still a status to send."""
        if self._started:
            return 500
        told = self._route.write_error(fault, self.id)
        with suppress(OSError):
            await answer(self._send, told.status, told.body, headers=[*self._headers(), *told.headers])
        return told.status

    def _log(self, status: int, seconds: float) -> None:
        tokens = sum(usage.completion_tokens for usage in self._usage)
        prompt = sum(usage.prompt_tokens for usage in self._usage)
        given = {} if self._talk is None else self._talk.labels
        labels = "".join(f" {name}={value[:64]!r}" for name, value in given.items())
        _LOG.info(
            "%s %s %s %s %d %.3fs prompt=%d completion=%d%s",
            self.id, self._caller.name, self._route.name, self._model or "-", status, seconds, prompt, tokens, labels,
        )  # fmt: skip


async def _all(items: AsyncGenerator[Any, None], receive: Receive) -> list[Any]:
    """Every item. Raises `Disconnected`, with the work ended, where the client leaves meanwhile.

    What answers at once needs nobody to watch the client: that begins after `_AT_ONCE` seconds.
    """
    me, watch, gone, done = current_task(), None, False, False
    assert me is not None

    def left(_: Task[None]) -> None:
        nonlocal gone
        if not done:
            gone = True
            me.cancel()

    def look() -> None:
        nonlocal watch
        watch = create_task(wait_disconnect(receive))
        watch.add_done_callback(left)

    timer = get_running_loop().call_later(_AT_ONCE, look)
    try:
        async with aclosing(items):
            return [item async for item in items]
    except CancelledError:
        if gone:
            me.uncancel()
            raise Disconnected from None
        raise
    finally:
        done = True
        timer.cancel()
        if watch is not None:
            watch.cancel()


BROKE_OFF = Fault(kind=Kind.UPSTREAM, message="the model fell silent before it had finished")
"""What a stream ends with whose model did not end it."""
