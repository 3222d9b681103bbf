"""Replies as the Responses API tells them, whole: the response and its items. Streams are in `.stream`.

A response repeats what was asked, so `Asked.echo` holds those fields as the client wrote them. Knows nothing else of
requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from magister.types import EventToken, FinishReason, Reply, Text, Thinking, ToolCall, Usage
from magister.wire.dialect import Asked, Stamp
from magister.wire.openai_responses.request import SEALED
from magister.wire.signature import seal

_ENCODE = msgspec.json.Encoder().encode

Json = dict[str, Any]


def write_reply(asked: Asked, reply: Reply, stamp: Stamp) -> bytes:
    """A Response. A cut loop has no word here; it is told as `max_output_tokens`, for the answer is not whole."""
    choice = reply.choices[0]
    message = choice.message
    cut = is_cut(choice.finish)
    items: list[Json] = []
    calls = 0
    for part in message.parts:
        index, last = len(items), part is message.parts[-1]
        status = status_of(whole=not (cut and last))
        if isinstance(part, Thinking):
            items.append(reasoning_item(asked, stamp, index, part.text, status_of(whole=part.closed)))
        elif isinstance(part, Text):
            tokens = _text_tokens(choice.tokens, part.text, choice.usage, message.thinking, bool(message.tool_calls))
            items.append(message_item(asked, stamp, index, part.text, [logprob_of(one) for one in tokens], status))
        elif isinstance(part, ToolCall):
            items.append(call_item(stamp, index, calls, part, status))
            calls += 1
    said = response(asked, stamp)
    return said.told("incomplete" if cut else "completed", [_ENCODE(item) for item in items], choice.usage)


def is_cut(finish: FinishReason | None) -> bool:
    """Whether an answer is not whole."""
    return finish not in (FinishReason.END, FinishReason.STOP, FinishReason.TOOL_CALLS)


def status_of(*, whole: bool) -> str:
    """Of an item."""
    return "completed" if whole else "incomplete"


def wants_summary(asked: Asked) -> bool:
    """Whether thoughts are to be told as summaries, too, for clients that show only these."""
    reasoning = asked.echo.get("reasoning", {})
    return bool(reasoning.get("summary") or reasoning.get("generate_summary"))


def item_id(stamp: Stamp, kind: str, index: int) -> str:
    """The id of the item at this place of the output."""
    return f"{kind}_{stamp.id}{index:02x}"


def reasoning_item(asked: Asked, stamp: Stamp, index: int, text: str, status: str) -> Json:
    """A thought; under seal, too, where that is asked for."""
    item = {
        "id": item_id(stamp, "rs", index),
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text}] if wants_summary(asked) else [],
        "content": [{"type": "reasoning_text", "text": text}],
        "status": status,
    }
    if SEALED in asked.echo.get("include", ()):
        item["encrypted_content"] = seal(stamp.signing_key, text)
    return item


def text_part(asked: Asked, text: str, logprobs: list[Json]) -> Json:
    """The one part of a message."""
    part: Json = {"type": "output_text", "text": text, "annotations": []}
    return part | {"logprobs": logprobs} if asked.chat.sampling.logprobs else part


def message_item(asked: Asked, stamp: Stamp, index: int, text: str, logprobs: list[Json], status: str) -> Json:
    """An answer's text."""
    return {
        "id": item_id(stamp, "msg", index),
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [text_part(asked, text, logprobs)],
    }


def call_item(stamp: Stamp, index: int, number: int, call: ToolCall, status: str) -> Json:
    """A call; one that came without an id gets the id of its number."""
    return {
        "id": item_id(stamp, "fc", index),
        "type": "function_call",
        "call_id": call.id or f"call_{stamp.id[:16]}_{number}",
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }


def logprob_of(token: EventToken) -> Json:
    """A token of the text, with its alternatives."""
    return {
        "token": token.bytes.decode("utf-8", "replace"),
        "bytes": list(token.bytes),
        "logprob": token.logprob,
        "top_logprobs": [
            {"token": one.bytes.decode("utf-8", "replace"), "bytes": list(one.bytes), "logprob": one.logprob}
            for one in token.top
        ],
    }


def _text_tokens(
    tokens: Sequence[EventToken], text: str, usage: Usage, thinking: str, calls: bool
) -> Sequence[EventToken]:
    """The tokens of the text among those of a whole answer: behind the thought's, before the calls'."""
    size = len(text.encode())
    if sum(len(token.bytes) for token in tokens) == size:
        return tokens
    behind = tokens[usage.thinking_tokens :] if thinking else tokens
    if not calls:
        return behind
    for count, token in enumerate(behind):
        if size <= 0:
            return behind[:count]
        size -= len(token.bytes)
    return behind


class Told:
    """A response but for what changes while it is told."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    def told(self, status: str, items: Sequence[bytes], usage: Usage | None = None, error: Json | None = None) -> bytes:
        """The response with these items, each encoded already."""
        why = {"reason": "max_output_tokens"} if status == "incomplete" else None
        tail = {"status": status, "error": error, "incomplete_details": why, "usage": usage and _cost(usage)}
        return b'%b,"output":[%b],%b' % (self._head, b",".join(items), _ENCODE(tail)[1:])


def response(asked: Asked, stamp: Stamp) -> Told:
    """The response to a request, to be told once or many times."""
    sampling = asked.chat.sampling
    head = {
        "id": f"resp_{stamp.id}",
        "object": "response",
        "created_at": stamp.created,
        "model": stamp.model,
        "background": False,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": sampling.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "user": None,
    }
    return Told(_ENCODE(head | asked.echo)[:-1])


def _cost(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
