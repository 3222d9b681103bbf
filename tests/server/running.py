"""A server under test: any app on a free port of this machine, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import uvicorn

from magister.server.access import Access
from magister.server.app import Site
from magister.server.exchange import House
from magister.server.fetch import Images
from magister.server.health import Condition
from magister.server.metrics import Metrics
from magister.server.mock import MockChat
from magister.server.models import Models, Served
from magister.server.pages import pages
from magister.server.settings import Settings
from magister.types import ChatModel
from magister.wire.dialect import Card

SETTINGS = Settings(signing_key=b"k" * 32, keepalive_seconds=0.2)
CARD = Card(name="mock", created=1, context=1000, aliases=("m",))


def site(
    chat: ChatModel | None = None, *, settings: Settings = SETTINGS, access: Access | None = None, **served: Any
) -> Site:
    """An app around one chat model called `mock`."""
    card = served.pop("card", CARD)
    model = Served(card=card, chat=chat or MockChat(), **served)
    house = House(
        models=Models([model], {"magistral-small-2509": card.name}),
        access=access or Access(),
        settings=settings,
        metrics=Metrics(),
        prepare=Images(settings),
    )
    return Site(house=house, look=lambda: {card.name: Condition("ready")}, pages=pages(house))


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The base URL of an app that answers until the block ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            app, http="httptools", lifespan="off", log_level="warning", access_log=False, timeout_graceful_shutdown=5
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(15)
            assert not thread.is_alive(), "the server does not stop"


def with_limits(**changes: Any) -> Settings:
    """The tests' settings with some of them changed."""
    return replace(SETTINGS, **changes)
