"""Requests straight to an app, without a socket: what is to be asked thousands of times."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from magister.server.asgi import App, Message, Scope


class Said(NamedTuple):
    """What was answered."""

    status: int
    headers: dict[str, str]
    body: bytes


async def send(
    app: App,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    query: str = "",
    seconds: float = 10.0,
) -> Said:
    """One request by a client that waits for the answer. Fails where it takes too long, or breaks ASGI's order."""
    given = {"host": "localhost", "content-type": "application/json", **(headers or {})}
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items()],
    }
    arrived = [False]
    said: list[Message] = []

    async def receive() -> Message:
        if arrived[0]:
            await asyncio.Event().wait()
        arrived[0] = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def take(message: Message) -> None:
        said.append(message)

    async with asyncio.timeout(seconds):
        await app(scope, receive, take)
    start, *parts = said
    assert start["type"] == "http.response.start"
    assert {part["type"] for part in parts} == {"http.response.body"}
    assert [bool(part.get("more_body")) for part in parts] == [True] * (len(parts) - 1) + [False]
    told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
    return Said(start["status"], told, b"".join(part.get("body", b"") for part in parts))
