"""Puter's replies, streams and errors -> events, replies and faults: the client's side. Knows nothing of requests."""

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
from magister.wire.dialect import EventReader
from magister.wire.fault import STATUS, Fault, Kind
from magister.wire.puter.answer import KINDS, REASONS

_FINISHES = {word: reason for reason, word in reversed(REASONS.items())}


class _Cost(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class _Function(msgspec.Struct, frozen=True):
    name: str = ""
    arguments: str = ""


class _Call(msgspec.Struct):
    function: _Function = _Function()
    id: str = ""


class _Said(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None


class _Result(msgspec.Struct):
    message: _Said
    finish_reason: str | None = None
    usage: _Cost | None = None


class _Reply(msgspec.Struct):
    success: bool = True
    result: _Result | None = None
    error: Any = None


class _Line(msgspec.Struct):
    type: str
    text: str | None = None
    reasoning: str = ""
    id: str = ""
    name: str = ""
    input: Any = None
    usage: _Cost | None = None
    finish_reason: str | None = None
    message: str = ""


_REPLY = msgspec.json.Decoder(_Reply).decode
_LINE = msgspec.json.Decoder(_Line).decode


def read_events() -> EventReader:
    """One stream being read."""
    return _Reader()


def read_reply(body: bytes) -> Reply:
    """A driver's result. Raises `Upstream` for what is none."""
    try:
        said = _REPLY(body)
    except msgspec.DecodeError as error:
        raise Upstream(f"this is no result of a driver: {error}") from None
    if not said.success or said.result is None:
        raise Upstream(_message(said.error) or "the driver gave no result")
    message = said.result.message
    events: list[Event] = []
    if message.reasoning:
        closed = bool(message.content or message.tool_calls) or said.result.finish_reason != "length"
        events.append(ThinkingDelta(text=message.reasoning, closed=closed))
    if message.content:
        events.append(TextDelta(text=message.content))
    for at, call in enumerate(message.tool_calls or ()):
        name, arguments = call.function.name, call.function.arguments
        events.append(ToolCallDelta(index=at, id=call.id, name=name, arguments=arguments))
    return fold([*events, *_ends(said.result.usage, said.result.finish_reason, bool(message.tool_calls))])


class _Reader:
    def __init__(self) -> None:
        self._rest = b""
        self._thinks = False
        self._calls = 0
        self._finished = False

    def feed(self, data: bytes) -> list[Event]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [event for line in lines for event in self._read(line)]

    def end(self) -> list[Event]:
        line, self._rest = self._rest, b""
        events = self._read(line)
        if not self._finished:
            raise Upstream("the stream broke off before its end")
        return events

    def _read(self, line: bytes) -> list[Event]:
        if not line.strip():
            return []
        try:
            said = _LINE(line)
        except msgspec.DecodeError as error:
            raise Upstream(f"this is no line of a stream: {error}") from None
        match said.type:
            case "error":
                raise Upstream(said.message or "no reason was given")
            case "reasoning":
                self._thinks = True
                return [ThinkingDelta(text=said.reasoning)]
            case "text":
                return [*self._close(), TextDelta(text=said.text or "")] if said.text else []
            case "tool_use":
                arguments = said.input if isinstance(said.input, str) else _dumps(said.input)
                self._calls += 1
                call = ToolCallDelta(index=self._calls - 1, id=said.id, name=said.name, arguments=arguments)
                return [*self._close(), call]
            case "usage":
                self._finished = True
                closing = [] if said.finish_reason == "length" else self._close()
                return [*closing, *_ends(said.usage, said.finish_reason, self._calls > 0)]
        # Kinds of lines that this side has no word for, such as `extra_content`.
        return []

    def _close(self) -> list[Event]:
        thinks, self._thinks = self._thinks, False
        return [ThinkingDelta(text="", closed=True)] if thinks else []


def _dumps(value: Any) -> str:
    return json.dumps({} if value is None else value, ensure_ascii=False)


def _ends(cost: _Cost | None, reason: str | None, called: bool) -> list[Event]:
    said = cost or _Cost()
    usage = Usage(
        prompt_tokens=said.prompt_tokens,
        cached_tokens=said.cached_tokens,
        thinking_tokens=said.reasoning_tokens,
        completion_tokens=said.completion_tokens,
    )
    found = _FINISHES.get(reason or "stop", FinishReason.ERROR)
    if called and found is FinishReason.END:
        found = FinishReason.TOOL_CALLS
    return [usage, Finish(reason=found, error=reason if found is FinishReason.ERROR else None)]


def _message(error: object) -> str:
    if isinstance(error, dict):
        return str(error.get("message") or error.get("code") or "")
    return error if isinstance(error, str) else ""


def read_error(status: int, body: bytes) -> Fault:
    """The fault behind an error's status and body, whoever wrote it."""
    try:
        said = msgspec.json.decode(body)
    except msgspec.DecodeError:
        said = None
    told: dict[str, Any] = said if isinstance(said, dict) else {}
    inner = told.get("error")
    error: dict[str, Any] = inner if isinstance(inner, dict) else told
    code = error.get("code", told.get("code"))
    otherwise = next((kind for kind, known in STATUS.items() if known == status), None)
    kind = KINDS.get(code) if isinstance(code, str) else None
    retry_after = error.get("retry_after")
    return Fault(
        kind=kind or otherwise or (Kind.UPSTREAM if status >= 500 else Kind.INVALID),
        message=_message(error) or _message(told) or f"the answer was {status}, without a reason",
        field=str(error.get("field", "")),
        retry_after=float(retry_after) if isinstance(retry_after, int | float) else None,
    )
