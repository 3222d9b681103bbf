"""What goes over the worker's socket: msgpack arrays, each behind its length in four bytes, big endian.

The engine says `Hello` to whoever connects. A client numbers its streams itself and never uses a number twice. All
streams of one client share a `Step` frame for one engine step or several. Knows no sockets and no engine.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from magister.types import (
    Busy,
    Chunk,
    FinishReason,
    Prompt,
    Refused,
    Sampling,
    Timings,
    TokenLogprob,
    TooLong,
    Upstream,
)

PROTOCOL = 2
"""Of both ends; they refuse each other where it differs."""
LARGEST_QUESTION = 512 << 20
"""Bytes of a client's frame at most: sixteen of the largest images a Magistral reads are 434 MiB of pixels."""
LARGEST_ANSWER = 64 << 20
"""Bytes of an engine's frame at most."""
PREFIX = 4
"""Bytes of a frame's length."""


_Top = tuple[tuple[tuple[int, float, bytes], ...], ...]
"""Alternatives by place: id, logprob, bytes."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Who answers here; the engine's first frame."""

    name: str
    """Of the model."""
    context: int
    """Tokens of prompt and answer that there is room for."""
    vocabulary: int
    """How many tokens the tokenizer has."""
    kernels: str
    """What computes, in words."""
    version: int = 0
    """Of the weights, at the start."""
    card: dict[str, Any] = {}
    """What else is known of the model, for people and `/v1/models`."""
    protocol: int = PROTOCOL


class Generate(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Begin a stream."""

    stream: int
    prompt: Prompt
    sampling: Sampling


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """End a stream; of one that has ended already, nothing comes of it."""

    stream: int


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A `Chunk` of one stream, without the names of its fields."""

    stream: int
    choice: int
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampled_logprobs: tuple[float, ...]
    forced: tuple[bool, ...]
    version: int
    entropy: tuple[float, ...] | None
    top: _Top | None
    prompt_logprobs: tuple[float, ...] | None
    prompt_top: _Top | None
    finish: FinishReason | None
    trim: int
    stop: str | None
    error: str | None
    cached_tokens: int
    timings: Timings | None


class Step(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """What all streams of a client were given since the last one."""

    rows: list[Row]


class Kind(StrEnum):
    """Which error a refusal becomes."""

    TOO_LONG = "too_long"
    REFUSED = "refused"
    BUSY = "busy"
    VALUE = "value"
    FAILED = "failed"


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A stream, or a question for the load, has failed; its last frame."""

    stream: int
    kind: Kind
    message: str
    field: str = ""
    tokens: int = 0
    limit: int = 0
    retry_after: float = 0.0


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Are you there?"""

    number: int


class Pong(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Yes; said without waiting for the step in progress."""

    number: int
    steps: int
    """Taken so far: with sequences in flight, a number that stands still is an engine that does."""
    in_flight: int
    """Sequences."""
    fails: int
    """Steps that failed since the last one that did not: an engine that only fails will not get well by itself."""


class AskLoad(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """How much are you doing? Answered between two steps."""

    stream: int


class Load(msgspec.Struct, frozen=True, array_like=True):
    """How much an engine is doing, and has done since its start; see `magister.engine.engine.Load`."""

    running: int
    waiting: int
    free_blocks: int
    preemptions: int
    idle_blocks: int
    steps: int
    tokens: int
    guessed: int
    right: int


class LoadAnswer(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """This much."""

    stream: int
    load: Load


Question = Generate | Cancel | Ping | AskLoad
"""What a client says."""
Answer = Hello | Step | Refusal | Pong | LoadAnswer
"""What an engine says."""

_ENCODER = msgspec.msgpack.Encoder()
_QUESTIONS: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question)
_ANSWERS: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(frame: Question | Answer) -> bytearray:
    """A frame behind its length."""
    whole = bytearray(PREFIX)
    _ENCODER.encode_into(frame, whole, PREFIX)
    whole[:PREFIX] = (len(whole) - PREFIX).to_bytes(PREFIX, "big")
    return whole


def read_question(payload: memoryview) -> Question:
    """One frame of a client, without its length. ValueError for what is none."""
    try:
        return _QUESTIONS.decode(payload)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a client's frame: {error}") from error


def read_answer(payload: memoryview) -> Answer:
    """One frame of an engine, without its length. ValueError for what is none."""
    try:
        return _ANSWERS.decode(payload)
    except msgspec.DecodeError as error:
        raise ValueError(f"not an engine's frame: {error}") from error


class Framer:
    """Cuts a stream of bytes into frames."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._parts: list[bytes] = []
        self._size = 0
        self._wanted = PREFIX

    def feed(self, data: bytes) -> list[memoryview]:
        """The frames that are whole now, without their lengths. ValueError, naming both, for one that is too long."""
        self._parts.append(data)
        self._size += len(data)
        if self._size < self._wanted:
            return []
        whole = memoryview(data if len(self._parts) == 1 else b"".join(self._parts))
        frames: list[memoryview] = []
        start = 0
        while True:
            left = len(whole) - start
            self._wanted = PREFIX
            if left >= PREFIX:
                self._wanted += self._length(whole[start : start + PREFIX])
            if left < self._wanted:
                break
            frames.append(whole[start + PREFIX : start + self._wanted])
            start += self._wanted
        self._parts = [bytes(whole[start:])] if start < len(whole) else []
        self._size = len(whole) - start
        return frames

    def _length(self, prefix: memoryview) -> int:
        length = int.from_bytes(prefix, "big")
        if length > self._largest:
            raise ValueError(f"a frame has {length} bytes, at most {self._largest} are taken")
        return length


def row(stream: int, chunk: Chunk) -> Row:
    """A chunk on its way."""
    return Row(
        stream,
        chunk.choice,
        chunk.ids,
        chunk.logprobs,
        chunk.sampled_logprobs,
        chunk.forced,
        chunk.version,
        chunk.entropy,
        _bare(chunk.top),
        chunk.prompt_logprobs,
        _bare(chunk.prompt_top),
        chunk.finish,
        chunk.trim,
        chunk.stop,
        chunk.error,
        chunk.cached_tokens,
        chunk.timings,
    )


def chunk_of(row: Row) -> Chunk:
    """A chunk that has arrived."""
    return Chunk(
        choice=row.choice,
        ids=row.ids,
        logprobs=row.logprobs,
        sampled_logprobs=row.sampled_logprobs,
        forced=row.forced,
        version=row.version,
        entropy=row.entropy,
        top=_named(row.top),
        prompt_logprobs=row.prompt_logprobs,
        prompt_top=_named(row.prompt_top),
        finish=row.finish,
        trim=row.trim,
        stop=row.stop,
        error=row.error,
        cached_tokens=row.cached_tokens,
        timings=row.timings,
    )


def _bare(top: tuple[tuple[TokenLogprob, ...], ...] | None) -> _Top | None:
    if top is None:
        return None
    return tuple([tuple([(one.id, one.logprob, one.bytes) for one in place]) for place in top])


def _named(top: _Top | None) -> tuple[tuple[TokenLogprob, ...], ...] | None:
    return None if top is None else tuple([tuple([TokenLogprob(*one) for one in place]) for place in top])


def refusal(stream: int, error: ValueError | RuntimeError) -> Refusal:
    """An error on its way; numbers and names go along."""
    message = str(error)
    match error:
        case TooLong():
            return Refusal(stream, Kind.TOO_LONG, message, tokens=error.tokens, limit=error.limit)
        case Refused():
            return Refusal(stream, Kind.REFUSED, message.removeprefix(f"{error.field}: "), field=error.field)
        case Busy():
            return Refusal(stream, Kind.BUSY, message, retry_after=error.retry_after)
        case ValueError():
            return Refusal(stream, Kind.VALUE, message)
    return Refusal(stream, Kind.FAILED, message)


def error_of(refusal: Refusal) -> ValueError | RuntimeError:
    """The error that has arrived; a failure of the engine is `Upstream`."""
    match refusal.kind:
        case Kind.TOO_LONG:
            return TooLong(refusal.tokens, refusal.limit)
        case Kind.REFUSED:
            return Refused(refusal.field, refusal.message)
        case Kind.BUSY:
            return Busy(refusal.message, refusal.retry_after)
        case Kind.VALUE:
            return ValueError(refusal.message)
        case Kind.FAILED:
            return Upstream(refusal.message)
