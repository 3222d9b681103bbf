"""What a chat model said -> La Plateforme's chat, whole or as a stream, as it was sent there.

A thinking answer's content is a list of chunks; streamed, it is a list while the model thinks, one list that holds the
thought's end and the text's beginning, and strings from there on. Tool calls come whole, the cost with the last
choice's end. A reply that goes on with a prefix begins with it.
"""

from __future__ import annotations

import hashlib
import re
import string
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
    Role,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    fold,
)
from magister.wire.dialect import Answer, Asked, Stamp
from magister.wire.fault import STATUS, Fault, Kind
from magister.wire.openai_chat.answer import LEAST_LOGPROB
from magister.wire.openai_chat.errors import retry_headers
from magister.wire.sse import COMMENT, DONE, frame

NAME = "mistral"
STREAM_TYPE = "text/event-stream; charset=utf-8"
KEEPALIVE = COMMENT

_FINISH = {
    FinishReason.END: "stop",
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.REPETITION: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.ERROR: "error",
}
_ERRORS = {
    Kind.UNAUTHENTICATED: "authentication_error",
    Kind.FORBIDDEN: "authentication_error",
    Kind.RATE: "rate_limit_error",
    Kind.OUT_OF_BUDGET: "rate_limit_error",
    Kind.BUSY: "server_error",
    Kind.FAILED: "server_error",
    Kind.UPSTREAM: "server_error",
}
_CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_ALPHABET = string.digits + string.ascii_letters

_encode = msgspec.json.Encoder().encode


def write_reply(asked: Asked, reply: Reply, stamp: Stamp) -> bytes:
    """The whole completion."""
    return _encode(
        {
            "id": stamp.id,
            "object": "chat.completion",
            "created": stamp.created,
            "model": stamp.model,
            "choices": [_choice(asked, stamp, index, choice) for index, choice in enumerate(reply.choices)],
            "usage": _usage(choice.usage for choice in reply.choices),
        }
    )


def _choice(asked: Asked, stamp: Stamp, index: int, choice: Choice) -> dict[str, Any]:
    prefix = _prefix(asked)
    message = choice.message
    if prefix:
        message = fold([*prefix, *_deltas(message.parts)]).message
    content: str | list[dict[str, Any]] = message.text
    thoughts = [part for part in message.parts if isinstance(part, Thinking) and part.text]
    if thoughts:
        content = [_thought(one.text, closed=one.closed or bool(message.text)) for one in thoughts]
        content += [{"type": "text", "text": message.text}] if message.text else []
    calls = [_call(stamp, index, at, call) for at, call in enumerate(message.tool_calls)]
    said: dict[str, Any] = {
        "index": index,
        "message": {"role": "assistant", "content": content, "tool_calls": calls or None, "prefix": False},
        "finish_reason": _FINISH[choice.finish or FinishReason.END],
    }
    return said | ({"logprobs": _logprobs(choice.tokens)} if asked.chat.sampling.logprobs else {})


def _prefix(asked: Asked) -> list[Event]:
    """What the reply goes on with, which belongs to it here."""
    last = asked.chat.messages[-1]
    return _deltas(last.parts) if last.role is Role.ASSISTANT else []


def _deltas(parts: Iterable[object]) -> list[Event]:
    """Parts of a message, as if they had been said."""
    found: list[Event] = []
    for at, part in enumerate(parts):
        match part:
            case Thinking():
                found.append(ThinkingDelta(text=part.text, closed=part.closed))
            case Text():
                found.append(TextDelta(text=part.text))
            case ToolCall():
                found.append(ToolCallDelta(index=at, id=part.id, name=part.name, arguments=part.arguments))
    return found


def _thought(text: str, closed: bool | None = None) -> dict[str, Any]:
    said: dict[str, Any] = {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
    if closed is not None:
        said["closed"] = closed
    return said


def _call(stamp: Stamp, choice: int, index: int, call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.id if _CALL_ID.fullmatch(call.id) else _call_id(stamp.id, choice, index, call.id),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
        "index": index,
    }


def _call_id(*key: object) -> str:
    """Nine letters and digits, as Mistral's formats want them: a function of the reply and the call's place in it."""
    number = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")
    return "".join(_ALPHABET[number // len(_ALPHABET) ** place % len(_ALPHABET)] for place in range(9))


def _usage(usages: Iterable[Usage]) -> dict[str, Any]:
    prompt = cached = completion = 0
    for usage in usages:
        prompt += usage.prompt_tokens
        cached += usage.cached_tokens
        completion += usage.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _logprobs(tokens: Sequence[EventToken]) -> dict[str, Any]:
    """All tokens, those of a thought too, each with its alternatives."""
    content = [
        {
            **_said(token.id, token.bytes, token.logprob),
            "top_logprobs": [_said(other.id, other.bytes, other.logprob) for other in token.top],
        }
        for token in tokens
    ]
    return {"content": content}


def _said(token: int, data: bytes, logprob: float) -> dict[str, Any]:
    text = data.decode("utf-8", "replace")
    return {"token": text, "token_id": token, "logprob": max(logprob, LEAST_LOGPROB), "bytes": list(data)}


def write_events(asked: Asked, stamp: Stamp) -> Writer:
    """One stream."""
    return Writer(asked, stamp)


class _State:
    """One choice under way."""

    def __init__(self, opening: bytes) -> None:
        self.opening = opening
        """The constant beginning of its frames."""
        self.thought: str | None = None
        """What is still to be told of a thought, perhaps nothing but its end; it comes with the text's beginning."""
        self.closed = False
        """The thought is known to have ended."""
        self.tokens: list[EventToken] = []
        """Those that no frame has told yet."""
        self.calls: dict[int, ToolCall] = {}


class Writer:
    """See `EventWriter`. Tool calls wait for their choice's end, for they come whole."""

    def __init__(self, asked: Asked, stamp: Stamp) -> None:
        self._logprobs = asked.chat.sampling.logprobs
        self._prefix = _prefix(asked)
        self._stamp = stamp
        self._unfinished = asked.chat.sampling.n
        self._states: dict[int, _State] = {}
        self._usages: list[Usage] = []
        self._failed = False
        head = {"id": stamp.id, "object": "chat.completion.chunk", "created": stamp.created, "model": stamp.model}
        self._head = b"data: " + _encode(head)[:-1]

    def write(self, events: Sequence[Event]) -> bytes:
        """Frames of some events."""
        out: list[bytes] = []
        for at, event in enumerate(events):
            if self._failed:
                break
            state = self._states.get(event.choice)
            if state is None:
                state = _State(self._head + b',"choices":[{"index":%d,"delta":' % event.choice)
                self._states[event.choice] = state
                out.append(self._frame(state, {"role": "assistant", "content": ""}))
                for said in self._prefix:
                    self._one(said, state, out)
            following = events[at + 1] if at + 1 < len(events) else None
            joins = isinstance(following, TextDelta) and following.choice == event.choice and following.text != ""
            self._one(event, state, out, joins)
        return b"".join(out)

    def end(self) -> bytes:
        """The mark of the end."""
        return b"" if self._failed else DONE

    def fail(self, fault: Fault) -> bytes:
        """The error's frame."""
        self._failed = True
        return frame(error_body(fault))

    def _one(self, event: Event, state: _State, out: list[bytes], joins: bool = False) -> None:
        match event:
            case ThinkingDelta():
                state.tokens += event.tokens
                state.closed = state.closed or event.closed
                if event.text and not (event.closed and joins):
                    state.thought = ""
                    out.append(self._frame(state, {"content": [_thought(event.text)]}))
                elif event.text:
                    state.thought = event.text
            case TextDelta():
                state.tokens += event.tokens
                if event.text:
                    out.append(self._frame(state, {"content": _content(state, event.text)}))
            case ToolCallDelta():
                state.tokens += event.tokens
                old = state.calls.get(event.index, ToolCall(id="", name="", arguments=""))
                state.calls[event.index] = ToolCall(
                    id=old.id or event.id, name=old.name or event.name, arguments=old.arguments + event.arguments
                )
            case Usage():
                self._usages.append(event)
            case Finish(reason=FinishReason.ERROR):
                out.append(self.fail(Fault(kind=Kind.UPSTREAM, message=event.error or "the model failed")))
            case Finish():
                self._finish(event, state, out)

    def _finish(self, event: Finish, state: _State, out: list[bytes]) -> None:
        self._unfinished -= 1
        if state.thought is not None and state.closed and not event.reason.complete:
            # Else nothing would tell the thought that ended just before the limit from one that was cut by it.
            out.append(self._frame(state, {"content": [_thought("", closed=True)]}))
        delta: dict[str, Any] = {"content": ""}
        if state.calls:
            calls = enumerate(call for _, call in sorted(state.calls.items()))
            delta["tool_calls"] = [_call(self._stamp, event.choice, at, call) for at, call in calls]
        usage = _usage(self._usages) if self._unfinished <= 0 else None
        out.append(self._frame(state, delta, _FINISH[event.reason], usage))

    def _frame(
        self, state: _State, delta: dict[str, Any], finish: str | None = None, usage: dict[str, Any] | None = None
    ) -> bytes:
        logprobs = _logprobs(state.tokens) if state.tokens and self._logprobs else None
        state.tokens = []
        said = state.opening + _encode(delta) + b',"finish_reason":%b' % _encode(finish)
        cost = b"" if usage is None else b',"usage":%b' % _encode(usage)
        return b'%b,"logprobs":%b}]%b}\n\n' % (said, _encode(logprobs), cost)


def _content(state: _State, text: str) -> str | list[dict[str, Any]]:
    """A text; the first one after a thought comes with the thought's end."""
    if state.thought is None:
        return text
    thought, state.thought = state.thought, None
    return [_thought(thought, closed=True), {"type": "text", "text": text}]


def error_body(fault: Fault) -> dict[str, Any]:
    """What is told of an error."""
    return {
        "object": "error",
        "message": fault.message,
        "type": _ERRORS.get(fault.kind, "invalid_request_error"),
        "param": fault.field or None,
        "code": fault.kind.value,
    }


def write_error(fault: Fault, request_id: str) -> Answer:
    """Status, body and headers; a field that there is not is a 422 in FastAPI's words, as it was there."""
    headers = (*retry_headers(fault), ("mistral-correlation-id", request_id))
    if fault.kind is Kind.UNKNOWN_FIELD:
        place: list[Any] = ["body", *fault.field.replace("[", ".").replace("]", "").split(".")]
        detail = {
            "type": "extra_forbidden",
            "loc": [int(one) if one.isdigit() else one for one in place],
            "msg": "Extra inputs are not permitted",
            "input": None,
        }
        return Answer(422, _encode({"detail": [detail]}), headers)
    status = 429 if fault.kind is Kind.OUT_OF_BUDGET else STATUS[fault.kind]
    return Answer(status, _encode(error_body(fault)), headers)
