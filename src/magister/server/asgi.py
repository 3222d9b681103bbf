"""The few ASGI acts that every handler does: read a body within limits, answer with bytes.

Knows no dialect and no model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from magister.server.faults import Rejected
from magister.wire.fault import Fault, Kind

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = tuple[tuple[str, str], ...]

JSON = "application/json"


class Disconnected(Exception):
    """The client has gone; there is nobody to tell."""


def header(scope: Scope, name: bytes) -> str:
    """A header's value, the first of several; empty where it is not there. `name` in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


def query(scope: Scope) -> dict[str, str]:
    """The query's parameters, the last of several."""
    if not scope["query_string"]:
        return {}
    parsed = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return {name: values[-1] for name, values in parsed.items()}


async def read_body(scope: Scope, receive: Receive, most: int, seconds: float) -> bytes:
    """The whole body. Raises `Rejected` beyond `most` bytes or `seconds`, `Disconnected` where the client left."""
    said = header(scope, b"content-length")
    if said.isdigit() and int(said) > most:
        raise Rejected(_too_large(int(said), most))
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        return _within(bytes(message.get("body", b"")), most)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                if message["type"] == "http.disconnect":
                    raise Disconnected
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise Rejected(_too_large(size, most))
                if not message.get("more_body"):
                    return b"".join(parts)
                message = await receive()
    except TimeoutError:
        told = Fault(kind=Kind.TIMEOUT, message=f"the body did not arrive within {seconds:g} s; {size} bytes of it did")
        raise Rejected(told) from None


def _within(body: bytes, most: int) -> bytes:
    if len(body) > most:
        raise Rejected(_too_large(len(body), most))
    return body


def _too_large(size: int, most: int) -> Fault:
    return Fault(kind=Kind.TOO_LARGE, message=f"the body has {size} bytes or more, at most {most} are taken")


async def answer(
    send: Send, status: int, body: bytes, content_type: str = JSON, headers: Iterable[tuple[str, str]] = ()
) -> None:
    """A whole answer."""
    await send({"type": "http.response.start", "status": status, "headers": lines(content_type, headers, len(body))})
    await send({"type": "http.response.body", "body": body})


def lines(content_type: str, headers: Iterable[tuple[str, str]], length: int | None) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI has them; `length` None for a stream."""
    found = [(b"content-type", content_type.encode("latin-1"))]
    if length is not None:
        found.append((b"content-length", str(length).encode()))
    found += [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]
    return found


async def wait_disconnect(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
