"""Anthropic's replies, streams and errors -> events, replies and faults: the client's side.

A whole reply is read as the events of its blocks. Knows nothing of requests.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from magister.types import (
    Event,
    Finish,
    FinishReason,
    Reply,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Upstream,
    Usage,
    fold,
)
from magister.wire.anthropic.answer import TOO_LONG
from magister.wire.dialect import EventReader
from magister.wire.fault import STATUS, Fault, Kind
from magister.wire.sse import Frame, FrameReader

_REASONS = {
    "end_turn": FinishReason.END,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
}


class _Block(msgspec.Struct):
    type: str
    text: str = ""
    thinking: str = ""
    signature: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, Any] = {}


class _Details(msgspec.Struct):
    thinking_tokens: int = 0


class _Cost(msgspec.Struct):
    """What a later one leaves out stays as an earlier one had it."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _Details | None = None


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Message(msgspec.Struct):
    type: str
    content: list[_Block]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: _Cost | None = None


class _Error(msgspec.Struct):
    type: str = ""
    message: str = ""
    details: dict[str, Any] | None = None


class _Frame(msgspec.Struct):
    type: str
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Cost | None = None
    error: _Error | None = None


_DECODE_FRAME = msgspec.json.Decoder(_Frame).decode
_DECODE_MESSAGE = msgspec.json.Decoder(_Message).decode
_DECODE_ERROR = msgspec.json.Decoder(dict[str, Any]).decode


def read_events() -> EventReader:
    """One stream being read."""
    return _Reader()


def read_reply(body: bytes) -> Reply:
    """A Message. Raises `Upstream` for what is none."""
    try:
        message = _DECODE_MESSAGE(body)
    except msgspec.DecodeError as error:
        raise Upstream(f"the reply is no message: {error}") from None
    reader = _Reader()
    events: list[Event] = []
    for index, block in enumerate(message.content):
        events += reader.start(index, block)
        if block.input:
            events += reader.delta(index, _Delta(partial_json=json.dumps(block.input, ensure_ascii=False)))
        events += reader.stop(index)
    reader.spend(message.usage)
    return fold([*events, *reader.finish(message.stop_reason, message.stop_sequence)])


class _Reader:
    def __init__(self) -> None:
        self._frames = FrameReader()
        self._open: dict[int, _Block] = {}
        self._calls: dict[int, int] = {}
        self._said: set[int] = set()
        """Blocks of calls whose arguments have begun."""
        self._unsigned = False
        """A thought ended without a signature: cut off, unless text follows."""
        self._cost = _Cost()
        self._over = False

    def feed(self, data: bytes) -> list[Event]:
        return [event for one in self._frames.feed(data) for event in self._read(one)]

    def end(self) -> list[Event]:
        events = [event for one in self._frames.end() for event in self._read(one)]
        if not self._over:
            raise Upstream("the stream broke off before its end")
        return events

    def _read(self, one: Frame) -> list[Event]:
        try:
            said = _DECODE_FRAME(one.data)
        except msgspec.DecodeError as error:
            raise Upstream(f"a frame is no event: {error}") from None
        match said:
            case _Frame(type="error"):
                raise Upstream(said.error.message if said.error and said.error.message else "the stream failed")
            case _Frame(type="message_start", message=_Message() as message):
                self.spend(message.usage)
            case _Frame(type="content_block_start", content_block=_Block() as block):
                return self.start(said.index, block)
            case _Frame(type="content_block_delta", delta=_Delta() as delta):
                return self.delta(said.index, delta)
            case _Frame(type="content_block_stop"):
                return self.stop(said.index)
            case _Frame(type="message_delta", delta=_Delta() as delta):
                self.spend(said.usage)
                return self.finish(delta.stop_reason, delta.stop_sequence)
            case _Frame(type="message_stop"):
                self._over = True
        return []

    def start(self, index: int, block: _Block) -> list[Event]:
        """A block opens, with what it holds already."""
        self._open[index] = block
        match block.type:
            case "thinking":
                return [ThinkingDelta(text=block.thinking)]
            case "text":
                closed = [ThinkingDelta(text="", closed=True)] if self._unsigned else []
                self._unsigned = False
                return [*closed, *([TextDelta(text=block.text)] if block.text else [])]
            case "tool_use":
                self._calls[index] = len(self._calls)
                return [ToolCallDelta(index=self._calls[index], id=block.id, name=block.name)]
        return []

    def delta(self, index: int, delta: _Delta) -> list[Event]:
        """More of an open block."""
        block = self._open.get(index)
        if block is None:
            raise Upstream(f"a piece of block {index} came before the block")
        if delta.signature:
            block.signature = delta.signature
        if delta.thinking:
            return [ThinkingDelta(text=delta.thinking)]
        if delta.text:
            return [TextDelta(text=delta.text)]
        if delta.partial_json and index in self._calls:
            self._said.add(index)
            return [ToolCallDelta(index=self._calls[index], arguments=delta.partial_json)]
        return []

    def stop(self, index: int) -> list[Event]:
        """A block closes."""
        block = self._open.pop(index, None)
        if block is not None and block.type == "thinking":
            if block.signature:
                return [ThinkingDelta(text="", closed=True, signature=block.signature)]
            self._unsigned = True
        if block is not None and block.type == "tool_use" and index not in self._said:
            return [ToolCallDelta(index=self._calls[index], arguments="{}")]
        return []

    def spend(self, cost: _Cost | None) -> None:
        """Numbers of tokens; later ones replace earlier ones."""
        for name in _Cost.__struct_fields__ if cost is not None else ():
            value = getattr(cost, name)
            if value is not None:
                setattr(self._cost, name, value)

    def finish(self, reason: str | None, stop: str | None) -> list[Event]:
        """The end of a message, if it has a reason."""
        if reason is None:
            return []
        cost = self._cost
        cached = cost.cache_read_input_tokens or 0
        usage = Usage(
            prompt_tokens=(cost.input_tokens or 0) + cached + (cost.cache_creation_input_tokens or 0),
            cached_tokens=cached,
            thinking_tokens=cost.output_tokens_details.thinking_tokens if cost.output_tokens_details else 0,
            completion_tokens=cost.output_tokens or 0,
        )
        if reason not in _REASONS:
            return [usage, Finish(reason=FinishReason.ERROR, error=f"the reply ended with {reason}")]
        return [usage, Finish(reason=_REASONS[reason], stop=stop)]


_KINDS = {402: Kind.OUT_OF_BUDGET, 504: Kind.TIMEOUT, 529: Kind.BUSY}


def read_error(status: int, body: bytes) -> Fault:
    """The fault behind an error's status and body, whoever wrote it."""
    kind = _KINDS.get(status) or next((one for one, code in STATUS.items() if code == status), None)
    kind = kind or (Kind.UPSTREAM if status >= 500 else Kind.INVALID)
    try:
        error = msgspec.convert(_DECODE_ERROR(body).get("error"), _Error)
    except msgspec.DecodeError:
        return Fault(kind=kind, message=f"the answer was {status}, without a reason")
    details = error.details or {}
    known = details.get("error_code")
    if known == "enforced_spend_limit_reached":
        kind = Kind.OUT_OF_BUDGET
    elif known in {one.value for one in Kind}:
        kind = Kind(known)
    elif error.message.startswith(TOO_LONG):
        kind = Kind.TOO_LONG
    retry_after = details.get("retry_after")
    return Fault(
        kind=kind,
        message=error.message.removeprefix(TOO_LONG) if kind is Kind.TOO_LONG else error.message,
        field=str(details.get("field", "")),
        retry_after=float(retry_after) if isinstance(retry_after, int | float) else None,
    )
