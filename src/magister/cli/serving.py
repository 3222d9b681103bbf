"""A model behind the server's app, its engine in a process of its own: what `serve` listens with and `batch` asks.

No torch here: this process renders, speaks the dialects and watches the engine.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from magister.chat import LocalChat
from magister.cli.engine_process import command
from magister.cli.flags import ModelOptions
from magister.cli.hub import shelf
from magister.cli.places import beside, find, served_name
from magister.cli.texts import Texts
from magister.server.access import Access
from magister.server.app import Site
from magister.server.exchange import House
from magister.server.fetch import Images
from magister.server.health import Condition
from magister.server.metrics import Metrics
from magister.server.models import Models, Served
from magister.server.pages import pages
from magister.server.puter import GuestTokens, PuterContext, puter_app
from magister.server.settings import Settings
from magister.text.formats import Format, load_format
from magister.text.images import ImageLimits
from magister.text.render import Renderer
from magister.text.tokenizer import TekkenPlan, Tokenizer, load_tokenizer, make_tokenizer
from magister.wire.dialect import Card
from magister.worker.supervisor import Status, Supervisor

_KEY_BYTES = 32
_PATH_BYTES = 103 if sys.platform == "darwin" else 107
"""Of a socket's path, at most."""

DRAIN_SECONDS = 30.0
"""That requests under way have left to end in, once a server is told to stop."""


def signing_key() -> bytes:
    """The key that signs thoughts and guests' tokens: the same over restarts, so that what clients hold stays good.

    Kept in the user's own folder of data, readable by its owner only. `OSError` or `RuntimeError` where there is no
    such place, `ValueError` where something else is in it, or a key that others may know.
    """
    path = shelf.data() / "signing-key"
    if (found := _found_key(path)) is not None:
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    key = secrets.token_bytes(_KEY_BYTES)
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(key)
        # Of servers that start together the first one's key is everybody's.
        os.link(part, path)
    except FileExistsError:
        pass
    finally:
        part.unlink(missing_ok=True)
    return _found_key(path) or key


def _found_key(path: Path) -> bytes | None:
    try:
        found, status = path.read_bytes(), path.stat()
    except FileNotFoundError:
        return None
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise ValueError(
            f"{path}: others may read or write it (mode {status.st_mode & 0o777:o}, owner {status.st_uid}), so they "
            "could sign too; chmod 600 it, or remove it for a new one"
        )
    if len(found) != _KEY_BYTES:
        raise ValueError(f"{path}: has {len(found)} bytes, a signing key has {_KEY_BYTES}; remove it for a new one")
    return found


@asynccontextmanager
async def opened(options: ModelOptions, settings: Settings, access: Access) -> AsyncIterator[Site]:
    """The app with its model ready; leaving it waits for requests under way, then ends the engine.

    Raises `ValueError` for what a person can put right, `RuntimeError` where the engine does not start.
    """
    path, answers = find(options.model), _answers(options.answers)
    with tempfile.TemporaryDirectory(prefix="magister-") as folder:
        place = Path(folder) / "engine.sock"
        if (size := len(os.fsencode(place))) > _PATH_BYTES:
            raise ValueError(
                f"TMPDIR: {place} has {size} bytes, a socket's path at most {_PATH_BYTES}; set a shorter one"
            )

        def tell(line: str) -> None:
            # What it says where it does not start is why it does not, and that is told once.
            if supervisor.state.status not in (Status.STARTING, Status.FAILED) and sys.stderr is not None:
                print(f"engine: {line}", file=sys.stderr, flush=True)

        supervisor = Supervisor(command(options.model, place, **options.placement), place, tell=tell)
        try:
            tokenizer, form = await _started(supervisor, path)
            limits = ImageLimits(bytes=settings.image_bytes, count=settings.images)
            served = _served(options, path, supervisor, Renderer(tokenizer, form, limits))
            yield _site(served, supervisor, settings, access, answers)
        finally:
            await supervisor.drain(DRAIN_SECONDS)


async def _started(supervisor: Supervisor, path: Path) -> tuple[Tokenizer, Format]:
    """The engine's process started, and how its model is spoken to."""
    if (beside(path) / "tekken.json").is_file():
        # The engine's process reads its weights while this one reads the tokenizer.
        speech, _ = await asyncio.gather(asyncio.to_thread(_speech, path), supervisor.start())
        return speech
    await supervisor.start()
    # Only the engine has read whether the network sees.
    return await asyncio.to_thread(_speech, path, supervisor.hello.card["images"])


def _speech(path: Path, vision: bool = True) -> tuple[Tokenizer, Format]:
    """How the model at `path` is spoken to. A folder without a Tekken file has Magistral's own vocabulary, with images
    where it has `vision`; the engine's process refuses to start where that does not fit.
    """
    folder = beside(path)
    own = folder / "tekken.json"
    tokenizer = load_tokenizer(own) if own.is_file() else make_tokenizer(TekkenPlan(vision=vision))
    return tokenizer, load_format(folder, tokenizer)


def _served(options: ModelOptions, path: Path, supervisor: Supervisor, renderer: Renderer) -> Served:
    hello, tokenizer, form = supervisor.hello, renderer.tokenizer, renderer.format
    card = Card(
        name=options.name or served_name(options.model, path, form.name),
        created=int(time.time()),
        context=hello.context,
        description=form.description,
        vision=form.images,
        temperature=form.sampling.temperature,
    )
    chat = LocalChat(supervisor, renderer, context=hello.context)
    return Served(
        card=card,
        chat=chat,
        tokens=supervisor,
        text=Texts(tokenizer, chat),
        longest=max(map(len, tokenizer.vocabulary)),
        defaults={"temperature": form.sampling.temperature, "top_p": form.sampling.top_p},
    )


def _site(
    served: Served, supervisor: Supervisor, settings: Settings, access: Access, answers: Mapping[str, str]
) -> Site:
    guests = GuestTokens(settings.signing_key)
    house = House(
        models=Models([served], answers),
        access=replace(access, guest=guests.origin_of),
        settings=settings,
        metrics=Metrics(),
        prepare=Images(settings),
    )

    hello = supervisor.hello
    told = {"kernels": hello.kernels, "context": hello.context}

    def look() -> Mapping[str, Condition]:
        state = supervisor.state
        facts = {**told, "process": state.process, **({"reason": state.reason} if state.reason else {})}
        return {served.card.name: Condition(state.status, state.restarts, facts)}

    return Site(house=house, look=look, pages=pages(house), puter=puter_app(PuterContext(house=house, guests=guests)))


def _answers(given: tuple[str, ...]) -> dict[str, str]:
    answers: dict[str, str] = {}
    for one in given:
        name, equals, model = one.partition("=")
        if not (name and equals and model):
            raise ValueError(f"--answer: {one!r} is not NAME=MODEL")
        answers[name] = model
    return answers
