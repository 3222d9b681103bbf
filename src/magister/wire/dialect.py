"""What every dialect offers under the same names, and the values its functions take and give.

Server side: `read_request`, `write_events`, `write_reply`, `write_error`, `write_models`, `write_model`, `write_count`.
Client side: `write_request`, `read_events`, `read_reply`, `read_error`. Knows no sockets: bytes in, bytes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from magister.types import ChatRequest, Event, Reply
from magister.wire.fault import Fault


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a body asks for."""

    chat: ChatRequest
    """The request itself; `model` as the client wrote it, `sampling` with types' defaults where it wrote nothing."""
    given: frozenset[str] = frozenset()
    """Names of the fields of `Sampling` that the client set itself; the model's own defaults fill the others."""
    stream: bool = False
    usage_at_end: bool = True
    """Streams: tell what it cost at the end (OpenAI's `stream_options.include_usage`)."""
    show_thinking: bool = True
    """Whether thoughts are shown (Google's `includeThoughts`); they are thought, and counted, either way."""
    labels: dict[str, str] = {}
    """What the client calls the request (`user`, `metadata`): written to the access log, never to the prompt."""
    echo: dict[str, Any] = {}
    """What the dialect's reply repeats of the request, under the reply's names."""


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What a reply says of itself besides what the model said."""

    id: str
    """32 hex digits; dialects put their own prefix before it."""
    created: int
    """Unix seconds."""
    model: str
    """The name of the model that answers."""
    signing_key: bytes = b""
    """For the signatures of thoughts."""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What lists of models say of one."""

    name: str
    created: int
    """Unix seconds of its release, or of its loading."""
    context: int
    """Tokens of prompt and answer."""
    description: str = ""
    owner: str = "magister"
    vision: bool = False
    thinking: bool = True
    tools: bool = True
    temperature: float = 0.7
    """Where a client sets none."""
    aliases: tuple[str, ...] = ()


class Answer(NamedTuple):
    """A whole HTTP answer but its transport."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    """Beyond content type and length, which the server sets: `retry-after`, `x-should-retry` and the like."""


class EventWriter(Protocol):
    """One stream under way: events in, bytes out. May hold bytes back until the next call, never events that a
    client could already see: what `write` returns is to be sent at once."""

    def write(self, events: Sequence[Event]) -> bytes:
        """The frames of some events, in order; the frames that open the stream come with the first call."""
        ...

    def end(self) -> bytes:
        """The frames that close a stream whose every choice has had its `Finish`."""
        ...

    def fail(self, fault: Fault) -> bytes:
        """The frames that end a stream in which something went wrong; nothing may follow."""
        ...


class EventReader(Protocol):
    """One stream being read: bytes in, events out, however the bytes are cut."""

    def feed(self, data: bytes) -> list[Event]:
        """Events complete so far. Raises `Upstream` for an error frame or a frame that is none of the dialect's."""
        ...

    def end(self) -> list[Event]:
        """What was held back. Raises `Upstream` where the stream broke off before its end."""
        ...


class Dialect(Protocol):
    """A module of `wire`."""

    NAME: str
    STREAM_TYPE: str
    """Content type of streams."""
    KEEPALIVE: bytes
    """Bytes that clients skip, for a stream that has been silent; empty where there are none."""

    def read_request(self, body: bytes, model: str = "", stream: bool = False) -> Asked:
        """What a body asks for. `model` and `stream` come from the path where the dialect has them there.

        Raises `BadRequest` that names the field: unknown fields, wrong types, values that nothing here can honour.
        """
        ...

    def write_reply(self, asked: Asked, reply: Reply, stamp: Stamp) -> bytes: ...

    def write_events(self, asked: Asked, stamp: Stamp) -> EventWriter: ...

    def write_error(self, fault: Fault, request_id: str) -> Answer: ...

    def write_models(self, cards: Sequence[Card]) -> bytes: ...

    def write_model(self, card: Card) -> bytes: ...

    def write_request(self, asked: Asked) -> bytes:
        """The body that asks for this. Raises `Refused` naming the field that the dialect has no word for."""
        ...

    def read_events(self) -> EventReader: ...

    def read_reply(self, body: bytes) -> Reply: ...

    def read_error(self, status: int, body: bytes) -> Fault: ...
