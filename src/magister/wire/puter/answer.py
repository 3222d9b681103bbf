"""Events, replies, errors and models as Puter's client reads them: one object, or a line of JSON an event.

Everything is written in ASCII: the client's Node shim breaks characters that fall between two network chunks. What
comes together goes into one line, for that shim's work grows with the square of the lines. Knows nothing of requests
but what `Asked` says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from magister.types import (
    Event,
    Finish,
    FinishReason,
    Reply,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    fold,
)
from magister.wire.dialect import Answer, Asked, Card, EventWriter, Stamp
from magister.wire.fault import STATUS, Fault, Kind

NAME = "puter"
STREAM_TYPE = "application/x-ndjson"
KEEPALIVE = b"\n"

TEST_EVENTS: tuple[Event, ...] = (
    TextDelta(text="This is a test response. No model was asked, and nothing was spent."),
    Usage(),
    Finish(reason=FinishReason.END),
)
"""What test mode answers."""

REASONS = {
    FinishReason.END: "stop",
    FinishReason.STOP: "stop",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.LENGTH: "length",
    FinishReason.REPETITION: "repetition",
    FinishReason.ERROR: "error",
}
"""The last two are our own words; the client's set is an open one."""

_CODES = {
    Kind.INVALID: "bad_request",
    Kind.UNKNOWN_FIELD: "unknown_field",
    Kind.TOO_LONG: "context_length_exceeded",
    # The client signs in again on this code.
    Kind.UNAUTHENTICATED: "token_auth_failed",
    # Not 429, which the client repeats eight times in silence.
    Kind.OUT_OF_BUDGET: "insufficient_funds",
    Kind.FORBIDDEN: "forbidden",
    Kind.NO_MODEL: "model_not_found",
    Kind.NOT_FOUND: "not_found",
    Kind.NOT_ALLOWED: "method_not_allowed",
    Kind.TIMEOUT: "request_timeout",
    Kind.TOO_LARGE: "too_large",
    Kind.RATE: "too_many_requests",
    Kind.BUSY: "server_busy",
    Kind.FAILED: "internal_error",
    Kind.UPSTREAM: "upstream_error",
}
KINDS = {code: kind for kind, code in _CODES.items()}


def ascii_json(value: Any) -> bytes:
    """JSON in ASCII, without spaces."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()


def write_reply(asked: Asked, reply: Reply, stamp: Stamp) -> bytes:
    """A driver's result. `message.content` is always a string, for the client's `toString` gives it as it is."""
    choice = reply.choices[0]
    message: dict[str, Any] = {"role": "assistant", "content": choice.message.text}
    if choice.message.thinking:
        message["reasoning"] = choice.message.thinking
    message["tool_calls"] = [
        {
            "id": _call_id(call, stamp, at),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for at, call in enumerate(choice.message.tool_calls)
    ]
    result = {
        "index": 0,
        "message": message,
        "finish_reason": REASONS[choice.finish or FinishReason.ERROR],
        "usage": _usage(choice.usage),
        "model": stamp.model,
        "via_ai_chat_service": True,
        **asked.echo,
    }
    return ascii_json(_envelope(result, stamp.model))


def _envelope(result: Any, model: str = "") -> dict[str, Any]:
    about = {"metadata": {"service_used": "magister", "providerUsed": model}} if model else {}
    return {"success": True, "service": {"name": "ai-chat"}, **about, "result": result}


def write_events(asked: Asked, stamp: Stamp) -> EventWriter:
    """One stream of lines."""
    return _Writer(stamp)


class _Writer:
    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self._calls: list[Event] = []
        self._usage = Usage()

    def write(self, events: Sequence[Event]) -> bytes:
        lines: list[bytes] = []
        said, thought = "", False
        for event in events:
            match event:
                case TextDelta() | ThinkingDelta():
                    thinks = isinstance(event, ThinkingDelta)
                    if not event.text:
                        continue
                    if said and thinks is not thought:
                        lines.append(_line(said, thought))
                        said = ""
                    said, thought = said + event.text, thinks
                case ToolCallDelta():
                    self._calls.append(event)
                case Usage():
                    self._usage = event
                case Finish():
                    lines += [_line(said, thought), *self._ends(event)]
                    said = ""
        return b"".join([*lines, _line(said, thought)])

    def end(self) -> bytes:
        return b""

    def fail(self, fault: Fault) -> bytes:
        code = _CODES[fault.kind]
        return ascii_json({"type": "error", "message": fault.message, "code": code}) + b"\n"

    def _ends(self, finish: Finish) -> list[bytes]:
        """The calls, whole, then what it cost and why it ended."""
        if finish.reason is FinishReason.ERROR:
            return [self.fail(Fault(kind=Kind.UPSTREAM, message=finish.error or "the model failed"))]
        lines = [
            {"type": "tool_use", "id": _call_id(call, self._stamp, at), "name": call.name, "input": _input(call),
             "text": ""}
            for at, call in enumerate(fold(self._calls).message.tool_calls if self._calls else ())
        ]  # fmt: skip
        ended = {"finish_reason": REASONS[finish.reason], "model": self._stamp.model}
        last = {"type": "usage", "usage": _usage(self._usage), **ended}
        return [ascii_json(line) + b"\n" for line in (*lines, last)]


def _line(said: str, thought: bool) -> bytes:
    name = b"reasoning" if thought else b"text"
    return b'{"type":"%b","%b":%b}\n' % (name, name, ascii_json(said)) if said else b""


def _input(call: ToolCall) -> Any:
    """A call's arguments, parsed; what is no JSON object stays the text it is, and is not lost."""
    try:
        said = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return call.arguments
    return said if isinstance(said, dict) else call.arguments


def _call_id(call: ToolCall, stamp: Stamp, at: int) -> str:
    return call.id or f"call_{stamp.id[:16]}_{at}"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.thinking_tokens,
        "usd_cents": 0,
    }


def write_error(fault: Fault, request_id: str) -> Answer:
    """What the client's promise is rejected with, just as it is."""
    status, code = STATUS[fault.kind], _CODES[fault.kind]
    error: dict[str, Any] = {"code": code, "message": fault.message, "status": status}
    if fault.field:
        error["field"] = fault.field
    headers: tuple[tuple[str, str], ...] = ()
    if fault.retry_after is not None:
        error["retry_after"] = fault.retry_after
        headers = (("retry-after", str(max(1, math.ceil(fault.retry_after)))),)
    about = {"code": code, "message": fault.message, "request_id": request_id}
    return Answer(status, ascii_json({"success": False, "error": error, **about}), headers)


def write_models(cards: Sequence[Card]) -> bytes:
    """What `puter.ai.listModels()` reads."""
    return ascii_json({"models": [_model(card) for card in cards]})


def write_driver_models(cards: Sequence[Card]) -> bytes:
    """The same as the result of the driver's method `models`."""
    return ascii_json(_envelope([_model(card) for card in cards]))


def write_model(card: Card) -> bytes:
    """One of them."""
    return ascii_json(_model(card))


def _model(card: Card) -> dict[str, Any]:
    return {
        "id": card.name,
        "name": card.name,
        "provider": "magister",
        "aliases": list(card.aliases),
        "description": card.description,
        "context": card.context,
        "max_tokens": card.context,
        "modalities": {"input": ["text", "image"] if card.vision else ["text"], "output": ["text"]},
        "tool_call": card.tools,
        "reasoning": card.thinking,
        "costs_currency": "usd-cents",
        "costs": {"tokens": 1_000_000, "prompt_tokens": 0, "completion_tokens": 0},
    }
