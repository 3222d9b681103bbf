"""What a chat model said -> Chat Completions, whole or as a stream.

The content stays a string, the thought is a field of its own, under both of its names. Knows no request's fields but
those of `Asked`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from magister.types import (
    Choice,
    Event,
    EventToken,
    Finish,
    FinishReason,
    Reply,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from magister.wire.dialect import Asked, Card, Stamp
from magister.wire.fault import Fault, Kind
from magister.wire.openai_chat.errors import error_body
from magister.wire.sse import COMMENT, DONE, frame

NAME = "openai_chat"
STREAM_TYPE = "text/event-stream; charset=utf-8"
KEEPALIVE = COMMENT

FINISH = {
    FinishReason.END: "stop",
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.REPETITION: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.ERROR: "stop",
}
LEAST_LOGPROB = -9999.0
"""JSON has no infinity; OpenAI's own number for what is as good as impossible."""

_encode = msgspec.json.Encoder().encode


def write_reply(asked: Asked, reply: Reply, stamp: Stamp) -> bytes:
    """The whole completion."""
    return _encode(
        {
            "id": f"chatcmpl-{stamp.id}",
            "object": "chat.completion",
            "created": stamp.created,
            "model": stamp.model,
            "choices": [_choice(asked, stamp, index, choice) for index, choice in enumerate(reply.choices)],
            "usage": usage_of(choice.usage for choice in reply.choices),
        }
    )


def _choice(asked: Asked, stamp: Stamp, index: int, choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.message.text, "refusal": None}
    thinking = choice.message.thinking
    if thinking and asked.show_thinking:
        message |= {"reasoning": thinking, "reasoning_content": thinking}
    calls = choice.message.tool_calls
    if calls:
        message["content"] = choice.message.text or None
        message["tool_calls"] = [
            {
                "id": call.id or _call_id(stamp, index, at),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for at, call in enumerate(calls)
        ]
    said = {
        "index": index,
        "message": message,
        "logprobs": logprobs_of(choice.tokens) if asked.chat.sampling.logprobs else None,
        "finish_reason": FINISH[choice.finish or FinishReason.END],
    }
    return said | _stop_reason(choice)


def _stop_reason(said: Choice | Finish) -> dict[str, str]:
    """vLLM's word for the stop string that was found; OpenAI has none."""
    return {} if said.stop is None else {"stop_reason": said.stop}


def _call_id(stamp: Stamp, choice: int, index: int) -> str:
    """The id of a call that has none: a function of the reply and the call's place in it."""
    return "call_" + hashlib.blake2b(f"{stamp.id} {choice} {index}".encode(), digest_size=12).hexdigest()


def usage_of(usages: Iterable[Usage]) -> dict[str, Any]:
    """What all choices cost together."""
    prompt = cached = thinking = completion = 0
    for usage in usages:
        prompt += usage.prompt_tokens
        cached += usage.cached_tokens
        thinking += usage.thinking_tokens
        completion += usage.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thinking},
    }


def logprobs_of(tokens: Sequence[EventToken]) -> dict[str, Any]:
    """All tokens, those of a thought too, each with its alternatives."""
    content = [
        {
            **_said(token.bytes, token.logprob),
            "top_logprobs": [_said(other.bytes, other.logprob) for other in token.top],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _said(data: bytes, logprob: float) -> dict[str, Any]:
    return {"token": data.decode("utf-8", "replace"), "logprob": max(logprob, LEAST_LOGPROB), "bytes": list(data)}


def write_events(asked: Asked, stamp: Stamp) -> Writer:
    """One stream."""
    return Writer(asked, stamp)


class Writer:
    """See `EventWriter`. A frame's constant part is made once."""

    def __init__(self, asked: Asked, stamp: Stamp) -> None:
        self._asked = asked
        self._stamp = stamp
        self._logprobs = asked.chat.sampling.logprobs
        self._begun: dict[int, bytes] = {}
        self._calls: set[tuple[int, int]] = set()
        self._usages: list[Usage] = []
        self._failed = False
        head = {
            "id": f"chatcmpl-{stamp.id}",
            "object": "chat.completion.chunk",
            "created": stamp.created,
            "model": stamp.model,
        }
        self._head = b"data: " + _encode(head)[:-1]

    def write(self, events: Sequence[Event]) -> bytes:
        """Frames; deltas of one kind that come together go out together."""
        out: list[bytes] = []
        for event in _joined(events):
            if self._failed:
                break
            if event.choice not in self._begun:
                self._begun[event.choice] = self._head + b',"choices":[{"index":%d,"delta":' % event.choice
                out.append(self._frame(event.choice, {"role": "assistant", "content": ""}))
            self._one(event, out)
        return b"".join(out)

    def end(self) -> bytes:
        """The cost, if it was asked for, and the mark of the end."""
        if self._failed:
            return b""
        if not self._asked.usage_at_end:
            return DONE
        return self._head + b',"choices":[],"usage":%b}\n\n' % _encode(usage_of(self._usages)) + DONE

    def fail(self, fault: Fault) -> bytes:
        """The error's frame."""
        self._failed = True
        return frame(error_body(fault))

    def _one(self, event: Event, out: list[bytes]) -> None:
        match event:
            case ThinkingDelta() if not self._asked.show_thinking:
                pass
            case ThinkingDelta():
                if event.text or (self._logprobs and event.tokens):
                    # No empty content here: clients take it for the thought's end.
                    delta = {"reasoning": event.text, "reasoning_content": event.text} if event.text else {}
                    out.append(self._frame(event.choice, delta, event.tokens))
            case TextDelta():
                if event.text or (self._logprobs and event.tokens):
                    out.append(self._frame(event.choice, {"content": event.text} if event.text else {}, event.tokens))
            case ToolCallDelta():
                out.append(self._frame(event.choice, {"tool_calls": [self._call(event)]}, event.tokens))
            case Usage():
                self._usages.append(event)
            case Finish(reason=FinishReason.ERROR):
                out.append(self.fail(Fault(kind=Kind.UPSTREAM, message=event.error or "the model failed")))
            case Finish():
                tail = {"logprobs": None, "finish_reason": FINISH[event.reason], **_stop_reason(event)}
                out.append(self._begun[event.choice] + b"{}," + _encode(tail)[1:] + b"]}\n\n")

    def _frame(self, choice: int, delta: dict[str, Any], tokens: Sequence[EventToken] = ()) -> bytes:
        said = self._begun[choice] + _encode(delta)
        if tokens and self._logprobs:
            return said + b',"logprobs":%b,"finish_reason":null}]}\n\n' % _encode(logprobs_of(tokens))
        return said + b',"logprobs":null,"finish_reason":null}]}\n\n'

    def _call(self, event: ToolCallDelta) -> dict[str, Any]:
        place = (event.choice, event.index)
        if place in self._calls:
            return {"index": event.index, "function": {"arguments": event.arguments}}
        self._calls.add(place)
        function = {"name": event.name, "arguments": event.arguments}
        call_id = event.id or _call_id(self._stamp, *place)
        return {"index": event.index, "id": call_id, "type": "function", "function": function}


def _joined(events: Sequence[Event]) -> Iterable[Event]:
    """Neighbours that are deltas of the same kind and choice, as one."""
    if len(events) < 2:
        return events
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta) and last.choice == event.choice:
            out[-1] = TextDelta(text=last.text + event.text, choice=event.choice, tokens=last.tokens + event.tokens)
        elif isinstance(event, ThinkingDelta) and isinstance(last, ThinkingDelta) and last.choice == event.choice:
            tokens = last.tokens + event.tokens
            out[-1] = ThinkingDelta(
                text=last.text + event.text, choice=event.choice, closed=event.closed, tokens=tokens
            )
        else:
            out.append(event)
    return out


def write_models(cards: Sequence[Card]) -> bytes:
    """The list of models; it serves Mistral's clients too, which want to know what each can do."""
    return _encode({"object": "list", "data": [_card(card) for card in cards]})


def write_model(card: Card) -> bytes:
    """One of them."""
    return _encode(_card(card))


def _card(card: Card) -> dict[str, Any]:
    return {
        "id": card.name,
        "object": "model",
        "created": card.created,
        "owned_by": card.owner,
        "name": card.name,
        "description": card.description,
        "type": "base",
        "aliases": card.aliases,
        "max_context_length": card.context,
        "default_model_temperature": card.temperature,
        "deprecation": None,
        "deprecation_replacement_model": None,
        "capabilities": {
            "completion_chat": True,
            "completion_fim": False,
            "function_calling": card.tools,
            "reasoning": card.thinking,
            "vision": card.vision,
            "fine_tuning": False,
            "classification": False,
        },
    }
