"""Keeps an engine's process alive: starts it, watches it, and starts it again when it died or stands still.

A token model itself, so that whoever asks need not know. Knows nothing of what the process loads: it is given a command
line, and the path of the socket on which that will listen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from magister.types import Busy, Chunk, Prompt, Sampling, Upstream
from magister.worker.client import WorkerClient
from magister.worker.frames import Hello, Load
from magister.worker.process import Process, how_it_ended

REFUSED = 2
"""The exit code of an engine that will not load what it was told to."""
_KNOCK_SECONDS = 0.02
"""Between two attempts to connect to a process that starts."""
_DEATH_SECONDS = 0.5
"""Between a lost connection and the news that the process is dead."""


class Status(StrEnum):
    """What an engine's process is doing."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    """It is not started again."""
    DRAINING = "draining"
    """It finishes what it has, and takes nothing more."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How an engine's process is, for `/health`."""

    status: Status
    restarts: int = 0
    """How often it was started again."""
    reason: str = ""
    """Why it is not ready, or why it was last started again."""
    process: int | None = None
    """Its number, while there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a supervisor waits for what; seconds but for `attempts`. ValueError for less than nothing."""

    start: float = 600.0
    """For a new process to be ready: it reads the weights in that time."""
    ping: float = 1.0
    """Between two pings."""
    pong: float = 5.0
    """For a pong."""
    step: float = 600.0
    """For a step while sequences are in flight: a large model reads a long prompt slowly."""
    fails: int = 3
    """Steps that fail in a row, none between them that does not: a GPU that was lost once stays lost to its process."""
    stop: float = 5.0
    """Between asking a process to end and killing it."""
    steady: float = 60.0
    """After which a process that dies is one that ran well: it is started again at once."""
    backoff: float = 0.1
    """Before a new start where the last process did not run well; doubled with each one in a row."""
    longest_backoff: float = 10.0
    attempts: int = 6
    """Starts in a row that came to nothing, after which there is no other."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be above 0")


class Supervisor:
    """A `TokenModel` over a process that it keeps alive. Use as `start`, then any of the others, `drain` at the end.

    Of one event loop. Requests in flight when the process dies get `Upstream`; while it starts again, `Busy`.
    """

    def __init__(
        self,
        command: Sequence[str],
        path: Path,
        *,
        patience: Patience | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """`command` must lead to an engine that listens on `path`; `tell` is given each line that it prints."""
        self._command = tuple(command)
        self._path = path
        self._patience = patience or Patience()
        self._tell = tell
        self._status = Status.STOPPED
        self._reason = ""
        self._restarts = 0
        self._process: Process | None = None
        self._client: WorkerClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._start_took = 1.0

    @property
    def state(self) -> State:
        """How the process is."""
        alive = self._process is not None and not self._process.exited.done()
        process = self._process.pid if alive and self._process is not None else None
        return State(status=self._status, restarts=self._restarts, reason=self._reason, process=process)

    @property
    def hello(self) -> Hello:
        """What the engine says of itself. Raises as `generate` does while there is none."""
        return self._require().hello

    async def start(self) -> Hello:
        """Starts the process and waits until it is ready; it is watched from then on.

        ValueError, in the process's own words, where it refuses what it was told to load; `Upstream` where it ends or
        is not ready in time.
        """
        assert self._task is None, "started twice"
        self._status = Status.STARTING
        try:
            client = await self._begin()
        except BaseException:
            self._status = Status.FAILED
            await self._clear()
            raise
        self._task = asyncio.get_running_loop().create_task(self._keep(client))
        return client.hello

    def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """See `TokenModel.generate`. `Busy` while there is no engine, `Upstream` where there will be none."""
        try:
            return self._require().generate(prompt, sampling)
        except (Busy, Upstream) as error:
            return _raising(error)

    async def load(self) -> Load:
        """See `WorkerClient.load`; raises as `generate` does while there is no engine."""
        return await self._require().load()

    async def drain(self, seconds: float) -> bool:
        """Takes no more requests, waits that long for those in flight, ends the process. Whether all had finished."""
        if self._status in (Status.STARTING, Status.READY, Status.RESTARTING):
            self._status = Status.DRAINING
        finished = True
        if self._client is not None and self._status is Status.DRAINING:
            settled = asyncio.ensure_future(self._client.settle())
            await _first(seconds, settled, self._client.ended)
            finished = settled.done()
            settled.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._clear()
        self._path.unlink(missing_ok=True)
        if self._status is not Status.FAILED:
            self._status = Status.STOPPED
        return finished

    # What the watching task does.

    async def _keep(self, client: WorkerClient) -> None:
        """Watches, and starts again, until it is no use or the task is cancelled."""
        unwell = 0
        while True:
            ready_at = time.monotonic()
            self._reason = await self._watch(client)
            if self._status is Status.DRAINING:
                return
            self._status = Status.RESTARTING
            again = await self._reconnect()
            if again is None:
                if self._process is not None and self._process.exited.done():
                    self._reason = how_it_ended(self._process.exited.result())
                await self._clear()
                unwell = 0 if time.monotonic() - ready_at > self._patience.steady else unwell + 1
                again = await self._restart(unwell)
                if again is None:
                    return
            client = again

    async def _reconnect(self) -> WorkerClient | None:
        """The same process over a new connection, where only that was lost: loading again may take minutes."""
        if self._process is None or self._process.exited.done() or not (self._client and self._client.ended.done()):
            return None
        try:
            self._client = await _connected(self._path, self._patience.pong)
        except (OSError, Upstream):
            # Nobody listens any more: it is ending, and how it does is worth knowing.
            await _first(self._patience.stop, self._process.exited)
            return None
        self._ready()
        return self._client

    async def _restart(self, unwell: int) -> WorkerClient | None:
        """A new process, ready; None where no attempt led to one. `unwell`: how many before it did not run well."""
        for attempt in range(self._patience.attempts):
            if unwell + attempt:
                # Past 2^32 it is the longest anyway, and past 2^1023 it would be no number.
                delay = self._patience.backoff * 2.0 ** min(unwell + attempt - 1, 32)
                await asyncio.sleep(min(delay, self._patience.longest_backoff))
            self._restarts += 1
            try:
                return await self._begin()
            except (ValueError, Upstream) as error:
                # Refused is an attempt like any other: it has loaded the same once, and what it lacks may come back.
                await self._clear()
                self._reason = str(error)
        self._status = Status.FAILED
        return None

    async def _begin(self) -> WorkerClient:
        """A new process, ready. ValueError where it refuses, `Upstream` where it is not ready in time or ends."""
        began = time.monotonic()
        try:
            process = self._process = Process(self._command, self._tell)
        except OSError as error:
            raise ValueError(f"{self._command[0]}: {error.strerror}") from error
        while True:
            try:
                client = await _connected(self._path, self._patience.start)
                break
            except (OSError, Upstream):
                # Nobody listens yet, or, for a moment, one that is just ending.
                await _first(_KNOCK_SECONDS, process.exited)
            if process.exited.done():
                code = process.exited.result()
                words = process.last_line or how_it_ended(code)
                raise ValueError(words) if code == REFUSED else Upstream(f"the engine does not start: {words}")
            if time.monotonic() - began > self._patience.start:
                raise Upstream(f"the engine does not start: it was not ready within {self._patience.start:g} s")
        self._client = client
        self._start_took = time.monotonic() - began
        self._ready()
        return client

    def _ready(self) -> None:
        # `drain` may have begun meanwhile, and then nothing more is taken.
        if self._status is not Status.DRAINING:
            self._status = Status.READY

    async def _watch(self, client: WorkerClient) -> str:
        """Returns, with the reason, when the process has died, stands still or only fails, or its link is lost."""
        process = self._process
        assert process is not None
        steps, moved = -1, time.monotonic()
        while True:
            asked = asyncio.ensure_future(client.ping())
            # Where the connection is lost, `ended` says so; the ping's own failure is no news.
            asked.add_done_callback(lambda ping: ping.cancelled() or ping.exception())
            await asyncio.wait([asked], timeout=self._patience.pong)
            if client.ended.done():
                asked.cancel()
                # A process that dies loses its connection first.
                await _first(_DEATH_SECONDS, process.exited)
                return how_it_ended(process.exited.result()) if process.exited.done() else client.ended.result()
            if not asked.done():
                asked.cancel()
                return f"it gave no sign of life for {self._patience.pong:g} s"
            pong, now = asked.result(), time.monotonic()
            if pong.fails >= self._patience.fails:
                return f"{pong.fails} steps in a row failed"
            if pong.steps != steps or not pong.in_flight:
                steps, moved = pong.steps, now
            if now - moved > self._patience.step:
                return f"a step took more than {self._patience.step:g} s"
            await _first(self._patience.ping, client.ended)

    async def _clear(self) -> None:
        """Nothing is left: no connection and no process."""
        client, self._client = self._client, None
        process, self._process = self._process, None
        if client is not None:
            client.end(self._reason or "it was told to")
        if process is None:
            return
        if self._status is Status.DRAINING:
            await process.stop(self._patience.stop)
        else:
            await process.kill()

    def _require(self) -> WorkerClient:
        if self._status is Status.READY and self._client is not None and not self._client.ended.done():
            return self._client
        match self._status:
            case Status.FAILED | Status.STOPPED:
                raise Upstream(f"there is no engine: {self._reason or 'it was stopped'}")
            case Status.DRAINING:
                raise Busy("the engine finishes what it has and takes nothing more", self._start_took)
        raise Busy(f"the engine is starting again: {self._reason}", max(1.0, round(self._start_took)))


async def _connected(path: Path, seconds: float) -> WorkerClient:
    """A connection. `TimeoutError`, an `OSError`, where nobody says hello in time."""
    # Not `wait_for`, which until Python 3.12 forgets that it was cancelled where its time and its answer come together.
    async with asyncio.timeout(seconds):
        return await WorkerClient.connect(path)


async def _first(seconds: float, *futures: asyncio.Future[Any]) -> None:
    """Waits until one of them is done, but no longer than that; cancels none."""
    await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


async def _raising(error: Exception) -> AsyncGenerator[Chunk, None]:
    """A stream whose first step raises."""
    for chunk in _no_chunks(error):
        yield chunk


def _no_chunks(error: Exception) -> Iterable[Chunk]:
    raise error
