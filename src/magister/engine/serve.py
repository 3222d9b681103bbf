"""The far end of the worker's socket: an engine for clients in other processes.

A stream's first tokens and its last go out at once; between them each client gets a frame with what all its streams
were given, every `PACE` seconds or after every step, whichever is less often. A client that does not read is not read
either, and what waits for it is bounded. Knows no text and starts no process.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

from magister.engine.engine import Engine
from magister.engine.mailbox import ring
from magister.engine.reply import Request
from magister.types import Chunk
from magister.worker import frames
from magister.worker.frames import AskLoad, Cancel, Generate, Hello, Load, LoadAnswer, Ping, Pong, Step
from magister.worker.joining import joined, weight
from magister.worker.link import Link

UNREAD = 1 << 16
"""Tokens and alternatives, of all its streams, that may wait for a client that does not read."""
PACE = 0.03
"""Seconds from one frame to the next while nothing begins or ends: thirty a second look continuous, and a small network
takes thousands of steps in that time, each of which would cost every process on the way a wake-up.
"""
_LONGEST_PATH = 107
"""Bytes of a socket's path that Linux takes; macOS takes 103."""


@asynccontextmanager
async def serving(engine: Engine, hello: Hello, path: Path, *, unread: int = UNREAD) -> AsyncGenerator[None, None]:
    """Answers whoever connects to `path`, which only this user may, until the context ends; then all are cut off.

    ValueError where the path is too long or somebody else listens there. The engine stays open.
    """
    door = _open_door(path)
    sessions: set[_Session] = set()

    def welcome() -> Link[frames.Question]:
        return _Session(engine, hello, unread, sessions).link

    server = await asyncio.get_running_loop().create_unix_server(welcome, sock=door)
    try:
        yield
    finally:
        server.close()
        for session in list(sessions):
            session.link.end("the engine was told to end")
        while sessions:
            # Each leaves, and cancels its streams, when the loop gets to it.
            await asyncio.sleep(0)
        await server.wait_closed()
        path.unlink(missing_ok=True)


class _Feed:
    """What the engine gave all streams of one client. Its thread puts, the loop takes, neither holds a lock."""

    def __init__(self, listener: Callable[[], None]) -> None:
        """`listener` is called on the running loop when there is something to take."""
        self.loop = asyncio.get_running_loop()
        self.listener = listener
        self.given: deque[tuple[int, list[Chunk] | BaseException]] = deque()
        self.rung = False
        """Whether the loop will look by itself: it was rung for, or it looked just now and will look again."""
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Lets the listener take what is there, and looks again later; if there is nothing, the next to come rings."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Cleared before looking: what comes later rings again.
        self.rung = False
        if self.given:
            self.rung = True
            self._timer = self.loop.call_later(PACE, self.look)
            self.listener()

    def take(self) -> list[tuple[int, list[Chunk] | BaseException]]:
        """All that came, by stream, in order."""
        taken = []
        while self.given:
            taken.append(self.given.popleft())
        return taken


class _Outlet:
    """The end of a feed into which one stream flows; see `Outlet`."""

    __slots__ = ("_begun", "_feed", "_stream", "loop")

    def __init__(self, feed: _Feed, stream: int) -> None:
        self._feed = feed
        self._stream = stream
        self._begun = False
        self.loop = feed.loop

    def put(self, chunks: list[Chunk]) -> bool:
        feed = self._feed
        feed.given.append((self._stream, chunks))
        urgent = not self._begun or any(chunk.finish is not None for chunk in chunks)
        self._begun = True
        if feed.rung and not urgent:
            return False
        feed.rung = True
        return True

    def fail(self, failure: BaseException) -> None:
        self._feed.given.append((self._stream, failure))
        ring([self])

    def wake(self) -> None:
        self._feed.look()


class _Stream:
    """One request of a client."""

    __slots__ = ("request", "unfinished")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.unfinished = request.sampling.n


class _Session:
    """One client: its streams, and what waits to be sent to it. All on the loop."""

    def __init__(self, engine: Engine, hello: Hello, unread: int, sessions: set[_Session]) -> None:
        self._engine = engine
        self._hello = hello
        self._unread = unread
        self._sessions = sessions
        self._feed = _Feed(self._collect)
        self._streams: dict[int, _Stream] = {}
        self._preparing: dict[int, Generate] = {}
        self._waiting: list[tuple[int, Chunk]] = []
        self._weight = 0
        self._held = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.link = Link(self, frames.read_question, frames.LARGEST_QUESTION)

    # What the link calls.

    def opened(self) -> None:
        """See `Handler`."""
        self._sessions.add(self)
        self.link.send(self._hello)

    def received(self, frame: frames.Question) -> None:
        """See `Handler`."""
        match frame:
            case Generate():
                self._begin(frame)
            case Cancel():
                self._preparing.pop(frame.stream, None)
                if (stream := self._streams.pop(frame.stream, None)) is not None:
                    self._engine.cancel(stream.request)
            case Ping():
                self.link.send(Pong(frame.number, *self._engine.pulse))
            case AskLoad():
                self._spawn(self._tell_load(frame.stream))

    def paused(self) -> None:
        """See `Handler`."""
        self._held = True
        self.link.hold(reading=False)

    def resumed(self) -> None:
        """See `Handler`."""
        self._held = False
        self.link.hold(reading=True)
        self._flush()

    def lost(self, reason: str) -> None:
        """See `Handler`."""
        self._sessions.discard(self)
        for stream in self._streams.values():
            self._engine.cancel(stream.request)
        self._streams = {}
        self._preparing = {}
        self._waiting = []

    # What streams do.

    def _begin(self, asked: Generate) -> None:
        number = asked.stream
        if number in self._streams or number in self._preparing:
            raise ValueError(f"stream {number} has begun already")
        if asked.sampling.grammar is None:
            self._submit(asked)
        else:
            self._preparing[number] = asked
            self._spawn(self._prepare(asked))

    async def _prepare(self, asked: Generate) -> None:
        number = asked.stream
        failure: Exception | None = None
        try:
            # Compiling takes a while, and nobody else shall wait for it.
            await asyncio.to_thread(self._engine.prepare, asked.sampling)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client waits to be told
            failure = error
        if self._preparing.get(number) is not asked:
            # Cancelled meanwhile, or the client is gone.
            return
        del self._preparing[number]
        if failure is None:
            self._submit(asked)
        else:
            self._refuse(number, failure)

    def _submit(self, asked: Generate) -> None:
        number = asked.stream
        try:
            request = self._engine.submit(asked.prompt, asked.sampling, _Outlet(self._feed, number))
        except Exception as error:  # noqa: BLE001 - this stream's own; it must not end the link, and so all others
            self._refuse(number, error)
            return
        self._streams[number] = _Stream(request)

    def _collect(self) -> None:
        """Takes what all streams were given, and sends it."""
        streams, waiting = self._streams, self._waiting
        failures: dict[int, BaseException] = {}
        for number, given in self._feed.take():
            stream = streams.get(number)
            if stream is None:
                continue
            if isinstance(given, BaseException):
                failures[number] = given
                continue
            for chunk in given:
                waiting.append((number, chunk))
                if chunk.finish is not None:
                    stream.unfinished -= 1
                if self._held:
                    self._weight += weight(chunk)
            if not stream.unfinished:
                del streams[number]
        if self._weight > self._unread:
            self.link.end(f"{self._weight} tokens waited for a client that does not read")
            return
        self._flush()
        for number, failure in failures.items():
            # One failure may be told once for each of a request's choices.
            del streams[number]
            self._refuse(number, RuntimeError(f"the engine failed: {failure!r}"))

    def _refuse(self, number: int, error: Exception) -> None:
        if not isinstance(error, ValueError | RuntimeError):
            error = RuntimeError(f"the engine failed: {error!r}")
        self.link.send(frames.refusal(number, error))

    def _flush(self) -> None:
        if self._held or not self._waiting:
            return
        waiting, self._waiting, self._weight = self._waiting, [], 0
        if len(waiting) > len({number for number, _ in waiting}):
            streams: dict[int, list[Chunk]] = {}
            for number, chunk in waiting:
                streams.setdefault(number, []).append(chunk)
            waiting = [(number, chunk) for number, chunks in streams.items() for chunk in joined(chunks)]
        rows: list[frames.Row] = []
        for number, chunk in waiting:
            row = frames.row(number, chunk)
            if row.prompt_logprobs is None:
                rows.append(row)
            else:
                # It alone may fill a third of the largest frame. Nothing of its choice comes before it.
                self.link.send(Step([row]))
        if rows:
            self.link.send(Step(rows))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._feed.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_load(self, number: int) -> None:
        try:
            # Waits for the step in progress, and nobody else shall.
            load = await asyncio.to_thread(self._engine.load)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client waits to be told
            self._refuse(number, error)
            return
        self.link.send(LoadAnswer(number, Load(**load._asdict())))


def _open_door(path: Path) -> socket.socket:
    """A bound socket that nobody else may connect to; what a dead process left there is taken over."""
    size = len(str(path).encode())
    if size > _LONGEST_PATH:
        raise ValueError(f"socket: {path} has {size} bytes, at most {_LONGEST_PATH} are possible")
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as knock:
            try:
                knock.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise ValueError(f"socket: somebody listens at {path} already")
    door = socket.socket(socket.AF_UNIX)
    try:
        door.bind(str(path))
        # Until somebody listens, nobody can connect.
        path.chmod(0o600)
    except OSError as error:
        door.close()
        raise ValueError(f"socket: {path}: {error.strerror}") from error
    door.setblocking(False)
    return door
