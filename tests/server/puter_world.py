"""A small server for the clients of Puter and of Google: the real request path, around a chat model that does as told.

The user's words say what happens: `call` asks for the first tool, `fail` breaks off in the midst, `slow` takes long.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn

from magister.server.access import Access, Keys
from magister.server.app import Site
from magister.server.asgi import Receive, Scope, Send, answer
from magister.server.exchange import House
from magister.server.health import Condition
from magister.server.metrics import Metrics
from magister.server.models import Models, Served
from magister.server.puter import GuestTokens, PuterContext, puter_app
from magister.server.settings import Settings
from magister.types import (
    ChatRequest,
    Effort,
    Event,
    Finish,
    FinishReason,
    Image,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from magister.wire.dialect import Card

SETTINGS = Settings(signing_key=b"s" * 32, keepalive_seconds=0.2)
CARD = Card(name="nano", created=1, context=4096)


class ToldChat:
    """Says back what it was told, after a thought about it."""

    def __init__(self) -> None:
        self.closed = 0
        self.asked: list[ChatRequest] = []

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        self.asked.append(request)
        said = request.messages[-1].text or "a result"
        try:
            if request.effort is not Effort.NONE:
                yield ThinkingDelta(text="hm: ")
                yield ThinkingDelta(text=said, closed=True)
            if said == "slow":
                await asyncio.sleep(30)
            pictures = sum(isinstance(part, Image) for message in request.messages for part in message.parts)
            yield TextDelta(text="schön: ")
            yield TextDelta(text=said + " with an image" * pictures)
            if said == "fail":
                yield Finish(reason=FinishReason.ERROR, error="told to fail")
                return
            called = bool(said == "call" and request.tools)
            if called:
                yield ToolCallDelta(index=0, id="call_1", name=request.tools[0].name, arguments='{"city": ')
                yield ToolCallDelta(index=0, arguments='"Köln"}')
            yield Usage(prompt_tokens=3, thinking_tokens=2, completion_tokens=5)
            yield Finish(reason=FinishReason.TOOL_CALLS if called else FinishReason.END)
        finally:
            self.closed += 1


class World:
    """One server."""

    def __init__(self, *origins: str, keys: dict[str, str] | None = None) -> None:
        self.chat = ToldChat()
        self.guests = GuestTokens(SETTINGS.signing_key)
        found = None if keys is None else Keys(SETTINGS.signing_key, keys)
        self.house = House(
            models=Models([Served(card=CARD, chat=self.chat, text=_Words())], {"magistral-small-2509": "nano"}),
            access=Access(keys=found, origins=frozenset(origins), guest=self.guests.origin_of),
            settings=SETTINGS,
            metrics=Metrics(),
            prepare=_as_it_is,
        )
        self._site = Site(
            house=self.house,
            look=lambda: {CARD.name: Condition("ready")},
            puter=puter_app(PuterContext(house=self.house, guests=self.guests)),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._site(scope, receive, send)


class _Words:
    """Counts words for tokens."""

    def encode(self, text: str, specials: bool) -> tuple[int, ...]:
        raise NotImplementedError

    def token_bytes(self, ids: Sequence[int]) -> tuple[bytes, ...]:
        raise NotImplementedError

    def plain(self, ids: Sequence[int], specials: bool) -> bytes:
        raise NotImplementedError

    def count(self, request: ChatRequest) -> int:
        return sum(len(message.text.split()) for message in request.messages)


async def _as_it_is(request: ChatRequest) -> ChatRequest:
    return request


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The base URL of an app that answers until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(15)


def pages(**files: str) -> Any:
    """An app that serves these files, for pages of another origin."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        text = files.get(scope["path"].strip("/").replace(".", "_"))
        kind = "text/javascript" if scope["path"].endswith(".js") else "text/html"
        await answer(send, 404 if text is None else 200, (text or "").encode(), f"{kind}; charset=utf-8")

    return app


def call(**args: Any) -> bytes:
    """The body of a chat."""
    args = {"messages": [{"content": "hi"}], **args}
    return json.dumps({"interface": "puter-chat-completion", "method": "complete", "args": args}).encode()
