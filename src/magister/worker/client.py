"""The token socket's near end of an engine in another process: many streams over one connection.

Knows nothing of how the process was started, and never starts one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from pathlib import Path

from magister.types import Chunk, Prompt, Refused, Sampling, Upstream
from magister.worker import frames
from magister.worker.frames import AskLoad, Cancel, Generate, Hello, Load, LoadAnswer, Ping, Pong, Refusal, Step
from magister.worker.joining import joined, weight
from magister.worker.link import Link

UNREAD = 1 << 16
"""Tokens and alternatives that may wait in one stream for its reader."""


class WorkerClient:
    """A `TokenModel` over a local socket, of one event loop. Made by `connect`; `close` it at the end.

    A lost connection gives every stream in flight `Upstream` at once, and so does every call from then on.
    """

    def __init__(self, unread: int = UNREAD) -> None:
        """Use `connect`."""
        loop = self._loop = asyncio.get_running_loop()
        self._unread = unread
        self._numbers = itertools.count(1)
        self._streams: dict[int, _Stream] = {}
        self._questions: dict[int, asyncio.Future[Pong | Load]] = {}
        self._hello: asyncio.Future[Hello] = loop.create_future()
        self._writable = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._ended: asyncio.Future[str] = loop.create_future()
        self._link = Link(self, frames.read_answer, frames.LARGEST_ANSWER)

    @classmethod
    async def connect(cls, path: Path, *, unread: int = UNREAD) -> WorkerClient:
        """Connects and waits for the engine's hello. OSError where nobody listens; `Upstream` where no engine does.

        `unread`: how many tokens and alternatives may wait in one stream, past which it is cancelled.
        """
        client = cls(unread)
        await asyncio.get_running_loop().create_unix_connection(lambda: client._link, str(path))
        try:
            await asyncio.shield(client._hello)
        except BaseException:
            client.end("nobody waited for its hello")
            raise
        return client

    @property
    def hello(self) -> Hello:
        """What the engine said of itself."""
        return self._hello.result()

    @property
    def streams(self) -> int:
        """Requests in flight."""
        return len(self._streams)

    @property
    def ended(self) -> asyncio.Future[str]:
        """Done when the connection is gone, with the reason."""
        return self._ended

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """See `TokenModel.generate`; further `ValueError` for what an engine cannot take, and `Upstream` if it stops.

        What came while nobody looked comes as one chunk.
        """
        number, stream = next(self._numbers), _Stream(self._loop)
        await self._begin(number, prompt, sampling, stream)
        unfinished = sampling.n
        try:
            while unfinished:
                for chunk in await stream.take():
                    unfinished -= chunk.finish is not None
                    yield chunk
        finally:
            self._forget(number, cancel=bool(unfinished) and not stream.over)

    async def load(self) -> Load:
        """How much the engine is doing; waits for the step in progress. `Upstream` if it stops."""
        number = next(self._numbers)
        answer = await self._ask(number, AskLoad(number))
        assert isinstance(answer, Load)
        return answer

    async def ping(self) -> Pong:
        """Waits for the engine's pong, for as long as it takes. `Upstream` if it stops."""
        number = next(self._numbers)
        answer = await self._ask(number, Ping(number))
        assert isinstance(answer, Pong)
        return answer

    async def settle(self) -> None:
        """Waits until no request is in flight."""
        await self._settled.wait()

    def end(self, reason: str) -> None:
        """Ends the connection at once; streams in flight are told why."""
        self._link.end(reason)

    async def close(self) -> None:
        """Ends the connection, and with it every stream."""
        self.end("the connection was closed on this side")
        await asyncio.shield(self._ended)

    # What streams do.

    async def _begin(self, number: int, prompt: Prompt, sampling: Sampling, stream: _Stream) -> None:
        if not self._writable.is_set():
            await self._writable.wait()
        self._check()
        encoded = frames.encode(Generate(number, prompt, sampling))
        if len(encoded) > frames.LARGEST_QUESTION:
            raise Refused("images", f"the request has {len(encoded)} bytes, at most {frames.LARGEST_QUESTION} are sent")
        self._streams[number] = stream
        self._settled.clear()
        self._link.write(encoded)

    def _forget(self, number: int, *, cancel: bool) -> None:
        self._streams.pop(number, None)
        if not self._streams:
            self._settled.set()
        if cancel:
            self._link.send(Cancel(number))

    async def _ask(self, number: int, question: AskLoad | Ping) -> Pong | Load:
        self._check()
        answer: asyncio.Future[Pong | Load] = self._loop.create_future()
        self._questions[number] = answer
        try:
            self._link.send(question)
            return await answer
        finally:
            del self._questions[number]

    def _check(self) -> None:
        if self._ended.done():
            raise _stopped(self._ended.result())

    # What the link calls.

    def opened(self) -> None:
        """See `Handler`."""
        self._writable.set()

    def received(self, frame: frames.Answer) -> None:
        """See `Handler`."""
        match frame:
            case Step():
                streams = self._streams
                for row in frame.rows:
                    stream = streams.get(row.stream)
                    if stream is not None and stream.put(frames.chunk_of(row)) > self._unread:
                        stream.fail(Upstream(f"more than {self._unread} tokens waited for their reader"))
                        self._link.send(Cancel(row.stream))
            case Refusal():
                error = frames.error_of(frame)
                if (stream := self._streams.get(frame.stream)) is not None:
                    stream.fail(error)
                self._answer(frame.stream, error)
            case Pong():
                self._answer(frame.number, frame)
            case LoadAnswer():
                self._answer(frame.stream, frame.load)
            case Hello():
                if frame.protocol != frames.PROTOCOL:
                    raise ValueError(f"the engine speaks protocol {frame.protocol}, this side {frames.PROTOCOL}")
                if not self._hello.done():
                    self._hello.set_result(frame)

    def paused(self) -> None:
        """See `Handler`."""
        self._writable.clear()

    def resumed(self) -> None:
        """See `Handler`."""
        self._writable.set()

    def lost(self, reason: str) -> None:
        """See `Handler`."""
        self._ended.set_result(reason)
        self._writable.set()
        for stream in self._streams.values():
            stream.fail(_stopped(reason))
        for number in list(self._questions):
            self._answer(number, _stopped(reason))
        if not self._hello.done():
            self._hello.set_exception(_stopped(reason))
            # Nobody may be waiting for it any more.
            self._hello.exception()

    def _answer(self, number: int, answer: Pong | Load | Exception) -> None:
        question = self._questions.get(number)
        if question is None or question.done():
            return
        if isinstance(answer, Exception):
            question.set_exception(answer)
        else:
            question.set_result(answer)


class _Stream:
    """Chunks of one request on their way to its reader, all on one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._chunks: list[Chunk] = []
        self._weight = 0
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def over(self) -> bool:
        """Whether it failed."""
        return self._failure is not None

    def put(self, chunk: Chunk) -> int:
        """Lays a chunk down; how much waits now. After a failure nothing is taken."""
        if self._failure is not None:
            return 0
        self._chunks.append(chunk)
        self._weight += weight(chunk)
        self._wake()
        return self._weight

    def fail(self, failure: Exception) -> None:
        """Makes the reader's `take` raise, after what is there has been read."""
        self._failure = self._failure or failure
        self._wake()

    async def take(self) -> list[Chunk]:
        """The chunks that came since the last call, at least one."""
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunks, self._chunks, self._weight = self._chunks, [], 0
        return chunks if len(chunks) == 1 else joined(chunks)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _stopped(reason: str) -> Upstream:
    return Upstream(f"the engine stopped: {reason}")
