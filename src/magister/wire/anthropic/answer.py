"""Replies, errors and models as Anthropic's clients read them, whole; streams are in `wire.anthropic.stream`.

Knows nothing of requests but what `Asked` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from magister.types import Finish, FinishReason, Reply, Text, Thinking, ToolCall, Usage
from magister.wire.dialect import Answer, Asked, Card, Stamp
from magister.wire.fault import STATUS, BadRequest, Fault, Kind
from magister.wire.openai_chat.errors import retry_headers
from magister.wire.signature import seal, sign

BROKEN = "INVALID_JSON"
"""The key under which Anthropic's guides put arguments that are no JSON object."""
TOO_LONG = "prompt is too long: "
"""How Anthropic's message begins where a prompt does not fit; agents shorten the conversation when they read it."""

_ENCODE = msgspec.json.Encoder().encode
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    529: "overloaded_error",
}
_OVERLOADED = 529


def write_reply(asked: Asked, reply: Reply, stamp: Stamp) -> bytes:
    """A Message. A cut loop has no word here; it is told as `max_tokens`, for the answer is not whole."""
    choice = reply.choices[0]
    content: list[dict[str, Any]] = []
    calls = 0
    for part in choice.message.parts:
        if isinstance(part, Thinking):
            proof = signature(stamp, part.text, shown=asked.show_thinking) if part.closed else ""
            thinking = part.text if asked.show_thinking else ""
            content.append({"type": "thinking", "thinking": thinking, "signature": proof})
        elif isinstance(part, Text):
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, ToolCall):
            use_id = part.id or call_id(stamp, calls)
            calls += 1
            content.append({"type": "tool_use", "id": use_id, "name": part.name, "input": _input(part.arguments)})
    finish = Finish(reason=choice.finish or FinishReason.ERROR, stop=choice.stop)
    message = {
        "id": message_id(stamp),
        "type": "message",
        "role": "assistant",
        "model": stamp.model,
        "content": content,
        **stopped(asked, finish, choice.usage),
        "usage": cost(choice.usage),
    }
    return _ENCODE(message)


def message_id(stamp: Stamp) -> str:
    """The id of the one message of a reply."""
    return f"msg_{stamp.id}"


def call_id(stamp: Stamp, index: int) -> str:
    """The id of a call that came without one."""
    return f"toolu_{stamp.id[:16]}_{index}"


def signature(stamp: Stamp, thought: str, *, shown: bool) -> str:
    """Of a thought that is shown, its signature; of one that is not, itself under seal."""
    return sign(stamp.signing_key, thought) if shown else seal(stamp.signing_key, thought)


def stopped(asked: Asked, finish: Finish, usage: Usage) -> dict[str, str | None]:
    """Why a reply ended; at the context's end where fewer tokens came than were asked for."""
    reasons = {
        FinishReason.END: "end_turn",
        FinishReason.STOP: "stop_sequence",
        FinishReason.TOOL_CALLS: "tool_use",
    }
    reason = reasons.get(finish.reason, "max_tokens")
    most = asked.chat.sampling.max_tokens
    if finish.reason is FinishReason.LENGTH and most is not None and 0 < usage.completion_tokens < most:
        reason = "model_context_window_exceeded"
    return {"stop_reason": reason, "stop_sequence": finish.stop if finish.reason is FinishReason.STOP else None}


def cost(usage: Usage) -> dict[str, Any]:
    """Cached tokens are no part of the input's here."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.thinking_tokens},
    }


def _input(arguments: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {BROKEN: arguments}


def write_error(fault: Fault, request_id: str) -> Answer:
    """An error; its details say the exact kind and the field."""
    headers = (("request-id", request_id),) if request_id else ()
    body = {"type": "error", "error": error_of(fault)} | ({"request_id": request_id} if request_id else {})
    return Answer(_status(fault), _ENCODE(body), (*headers, *retry_headers(fault)))


def error_of(fault: Fault) -> dict[str, Any]:
    """What stands under `error`, whole or in a stream."""
    details: dict[str, Any] = {"error_code": fault.kind.value}
    if fault.field:
        details["field"] = fault.field
    if fault.retry_after is not None:
        details["retry_after"] = fault.retry_after
    message = TOO_LONG + fault.message if fault.kind is Kind.TOO_LONG else fault.message
    return {"type": _TYPES[_status(fault)], "message": message, "details": details}


def _status(fault: Fault) -> int:
    return _OVERLOADED if fault.kind is Kind.BUSY else STATUS[fault.kind]


def write_count(tokens: int) -> bytes:
    """A MessageTokensCount."""
    return b'{"input_tokens":%d}' % tokens


def write_model(card: Card) -> bytes:
    """A ModelInfo."""
    return _ENCODE(_model(card))


def write_models(cards: Sequence[Card], query: Mapping[str, str] | None = None) -> bytes:
    """A page of models. `query` may hold `limit`, `after_id` and `before_id`. Raises `BadRequest`."""
    asked = query or {}
    limit = asked.get("limit", "20")
    if not (limit.isdecimal() and 1 <= int(limit) <= 1000):
        raise BadRequest("limit", f"must be from 1 to 1000, got {limit!r}")
    names = [card.name for card in cards]
    places = {name: names.index(asked[name]) if asked[name] in names else -1 for name in _CURSORS if name in asked}
    for name, place in places.items():
        if place < 0:
            raise BadRequest(name, f"there is no model {asked[name]!r}")
    if len(places) == len(_CURSORS):
        raise BadRequest("before_id", "does not go with after_id")
    if "before_id" in places:
        end = places["before_id"]
        start = max(0, end - int(limit))
        more = start > 0
    else:
        start = places.get("after_id", -1) + 1
        end = start + int(limit)
        more = end < len(cards)
    page = [_model(card) for card in cards[start:end]]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return _ENCODE({"data": page, "has_more": more, "first_id": first, "last_id": last})


_CURSORS = ("after_id", "before_id")


def _model(card: Card) -> dict[str, Any]:
    return {
        "type": "model",
        "id": card.name,
        "display_name": card.name,
        "created_at": datetime.fromtimestamp(card.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": card.context,
        "max_tokens": card.context,
    }
