"""A server around a model that answers at once, to measure what the server itself costs: says its address, serves."""

from __future__ import annotations

import asyncio
import socket
import sys

import uvicorn
import uvloop

from magister.cli.http import configured
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
from magister.wire.dialect import Card


def main() -> None:
    """Serve until killed."""
    settings = Settings(signing_key=b"k" * 32)
    served = Served(card=Card(name="mock", created=1, context=1000), chat=MockChat())
    house = House(
        models=Models([served]), access=Access(), settings=settings, metrics=Metrics(), prepare=Images(settings)
    )
    site = Site(house=house, look=lambda: {"mock": Condition("ready")}, pages=pages(house))
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        sys.stdout.write(f"mock at http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(uvicorn.Server(configured(site)).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
