"""Engines behind sockets, in this process and in others, and the streams one gets from them."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tests.engine.world import LIMITS, PIECES, VOCABULARY, opened, random_model

from magister.cli.engine_process import command
from magister.engine.engine import Engine
from magister.engine.limits import Limits
from magister.engine.serve import UNREAD, serving
from magister.model.network import Model
from magister.types import Chunk, Prompt, Sampling, TokenModel
from magister.worker.client import WorkerClient
from magister.worker.frames import Hello
from magister.worker.supervisor import Patience, Supervisor

T = TypeVar("T")
HELLO = Hello(name="tiny", context=LIMITS.context, vocabulary=len(PIECES), kernels="torch", version=3, card={"a": [1]})
ENDLESS = Sampling(max_tokens=1000, ignore_end=True, seed=1)
_numbers = itertools.count()


def short_path() -> Path:
    """Where a socket may be: pytest's own folders have names too long for one."""
    folder = Path(tempfile.gettempdir()) / f"magister-{os.getpid()}-{next(_numbers)}"
    folder.mkdir(mode=0o700)
    return folder / "s"


class Served(NamedTuple):
    """An engine in this process that listens."""

    engine: Engine
    path: Path

    async def connect(self, unread: int = UNREAD) -> WorkerClient:
        return await WorkerClient.connect(self.path, unread=unread)


@asynccontextmanager
async def served(model: Model | None = None, limits: Limits = LIMITS, unread: int = UNREAD) -> AsyncIterator[Served]:
    """Ends with an engine that is empty and whole."""
    path = short_path()
    with opened(model or random_model(), VOCABULARY, limits) as engine:
        async with serving(engine, HELLO, path, unread=unread):
            yield Served(engine, path)
        assert not path.exists()
        path.parent.rmdir()


@asynccontextmanager
async def supervised(
    line: Callable[[Path], Sequence[str]] | None = None, patience: Patience | None = None
) -> AsyncIterator[Supervisor]:
    """Nano in a process of its own, or whatever `line` starts; not started yet."""
    path = short_path()
    supervisor = Supervisor(line(path) if line else command("nano", path, device="cpu"), path, patience=patience)
    try:
        yield supervisor
    finally:
        await supervisor.drain(0)
        assert not path.exists()
        path.parent.rmdir()


def run(main: Coroutine[Any, Any, T], seconds: float = 60) -> T:
    """On a fresh loop, which must be done in time."""
    return asyncio.run(asyncio.wait_for(main, seconds))


async def read(model: TokenModel, ids: Sequence[int], sampling: Sampling) -> list[Chunk]:
    """All chunks of a request."""
    return [chunk async for chunk in model.generate(Prompt(tuple(ids)), sampling)]


def said(chunks: Sequence[Chunk], choice: int = 0) -> tuple[int, ...]:
    """The ids of one choice."""
    return sum((chunk.ids for chunk in chunks if chunk.choice == choice), ())


def alive(process: int) -> bool:
    """Whether there is such a process that is no zombie."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def open_files() -> int:
    """File descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))
