"""Events, replies, errors and models as Google's clients read them.

A frame is `data: {...}` and two CRLFs; its last one carries why the answer ended and what it cost. No comments, no
`[DONE]`: the Python client fails on them. A whole thought that is shown has a signature. Clients send back the one on
the first call, or on the last text where no thought was shown; there it is the thought itself under seal. Knows
nothing of requests but what `Asked` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter

import msgspec

from magister.types import (
    Event,
    EventToken,
    Finish,
    FinishReason,
    Reply,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from magister.wire.dialect import Answer, Asked, Card, EventWriter, Stamp
from magister.wire.fault import STATUS, BadRequest, Fault, Kind
from magister.wire.signature import seal, sign

NAME = "google"
STREAM_TYPE = "text/event-stream"
KEEPALIVE = b""

LOOP = "a loop was found and cut"
"""What `finishMessage` says of `FinishReason.REPETITION`, for which Google has no word."""

_ENCODE = msgspec.json.Encoder().encode
_REASONS = {FinishReason.LENGTH: "MAX_TOKENS", FinishReason.REPETITION: "OTHER"}
_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
}
_DETAIL = "type.googleapis.com/google.rpc."


def write_reply(asked: Asked, reply: Reply, stamp: Stamp) -> bytes:
    """A GenerateContentResponse."""
    found = []
    show = asked.show_thinking
    for index, choice in enumerate(reply.choices):
        message = choice.message
        closed = any(part.closed for part in message.parts if isinstance(part, Thinking))
        whole = message.thinking if closed else ""
        parts = []
        if message.thinking and show:
            parts.append(_part(message.thinking, thought=True, signature=whole and sign(stamp.signing_key, whole)))
        if message.text:
            parts.append(_part(message.text))
        parts, broken = _with_calls(parts, message.tool_calls, index, stamp, whole, show=show)
        end = _end(Finish(reason=choice.finish or FinishReason.ERROR, error=choice.error), broken)
        if asked.chat.sampling.logprobs:
            # Thoughts come first.
            shown = choice.tokens[choice.usage.thinking_tokens if message.thinking and not show else 0 :]
            end += _logprobs(shown) + _average(len(shown), sum(token.logprob for token in shown))
        found.append(_candidate(index, parts, end))
    usage = _usage([choice.usage for choice in reply.choices])
    return b'{"candidates":[%b],"usageMetadata":%b%b' % (b",".join(found), usage, _tail(stamp))


def write_events(asked: Asked, stamp: Stamp) -> EventWriter:
    """One stream of partial GenerateContentResponses."""
    return _Writer(asked, stamp)


class _Choice:
    """What of one choice waits for its next frame, or its last."""

    def __init__(self) -> None:
        self.calls: dict[int, list[str]] = {}
        self.tokens: list[EventToken] = []
        self.count = 0
        self.logprob = 0.0
        """Of all tokens that were told, together."""
        self.thought: list[str] = []
        self.closed = False

    def add_call(self, delta: ToolCallDelta) -> None:
        call = self.calls.setdefault(delta.index, ["", "", ""])
        call[0], call[1] = call[0] or delta.id, call[1] or delta.name
        call[2] += delta.arguments

    def whole_calls(self) -> list[ToolCall]:
        return [ToolCall(*self.calls[index]) for index in sorted(self.calls)]

    def whole_thought(self) -> str:
        return "".join(self.thought) if self.closed else ""

    def take_tokens(self) -> list[EventToken]:
        tokens, self.tokens = self.tokens, []
        self.count += len(tokens)
        self.logprob += sum(token.logprob for token in tokens)
        return tokens


class _Writer:
    def __init__(self, asked: Asked, stamp: Stamp) -> None:
        self._show, self._logprobs = asked.show_thinking, asked.chat.sampling.logprobs
        self._n = asked.chat.sampling.n
        self._stamp, self._tail = stamp, _tail(stamp) + b"\r\n\r\n"
        self._choices: dict[int, _Choice] = {}
        self._usage: list[Usage] = []
        self._finished = 0

    def write(self, events: Sequence[Event]) -> bytes:
        runs = groupby(events, key=attrgetter("choice"))
        return b"".join([self._run(choice, list(run)) for choice, run in runs])

    def end(self) -> bytes:
        return b'data: {"usageMetadata":%b%b' % (self._cost(), self._tail) if self._usage else b""

    def fail(self, fault: Fault) -> bytes:
        return b"data: %b\r\n\r\n" % _error(fault)

    def _run(self, index: int, events: list[Event]) -> bytes:
        """At most one frame of one choice's events."""
        choice = self._choices.setdefault(index, _Choice())
        parts: list[bytes] = []
        texts: list[str] = []
        thought = False
        finish: Finish | None = None
        for event in events:
            match event:
                case TextDelta() | ThinkingDelta():
                    thinks = isinstance(event, ThinkingDelta)
                    if texts and thought is not thinks:
                        parts.append(_part("".join(texts), thought=thought))
                        texts.clear()
                    thought = thinks
                    signature = self._hear(choice, event)
                    if event.text and (self._show or not thinks):
                        texts.append(event.text)
                    if signature:
                        parts.append(_part("".join(texts), thought=True, signature=signature))
                        texts.clear()
                case ToolCallDelta():
                    self._note(choice, event.tokens)
                    choice.add_call(event)
                case Usage():
                    self._usage.append(event)
                case Finish():
                    finish = event
        if texts:
            parts.append(_part("".join(texts), thought=thought))
        if finish is None and not parts:
            return b""
        return self._frame(index, choice, parts, finish)

    def _hear(self, choice: _Choice, event: TextDelta | ThinkingDelta) -> str:
        """The signature of a shown thought at its end; elsewhere nothing."""
        if isinstance(event, TextDelta) or self._show:
            self._note(choice, event.tokens)
        if isinstance(event, TextDelta):
            return ""
        choice.thought.append(event.text)
        choice.closed = choice.closed or event.closed
        whole = choice.whole_thought() if event.closed and self._show else ""
        return whole and sign(self._stamp.signing_key, whole)

    def _frame(self, index: int, choice: _Choice, parts: list[bytes], finish: Finish | None) -> bytes:
        if finish is None:
            body = _candidate(index, parts, _logprobs(choice.take_tokens()))
            return b'data: {"candidates":[%b]%b' % (body, self._tail)
        if finish.reason is FinishReason.ERROR:
            failed = self.fail(Fault(kind=Kind.UPSTREAM, message=finish.error or "the model failed"))
            return (self._frame(index, choice, parts, None) if parts else b"") + failed
        calls, whole = choice.whole_calls(), choice.whole_thought()
        parts, broken = _with_calls(parts, calls, index, self._stamp, whole, show=self._show)
        end = _end(finish, broken) + _logprobs(choice.take_tokens()) + _average(choice.count, choice.logprob)
        body = _candidate(index, parts, end)
        self._finished += 1
        if self._finished < self._n:
            return b'data: {"candidates":[%b]%b' % (body, self._tail)
        return b'data: {"candidates":[%b],"usageMetadata":%b%b' % (body, self._cost(), self._tail)

    def _cost(self) -> bytes:
        usage, self._usage = self._usage, []
        return _usage(usage)

    def _note(self, choice: _Choice, tokens: Sequence[EventToken]) -> None:
        if self._logprobs:
            choice.tokens.extend(tokens)


def _part(text: str, *, thought: bool = False, signature: str = "") -> bytes:
    marks = b',"thought":true' if thought else b""
    return b'{"text":%b%b%b}' % (_ENCODE(text), marks, _signed(signature))


def _signed(signature: str) -> bytes:
    return b',"thoughtSignature":"%b"' % signature.encode() if signature else b""


def _with_calls(
    parts: list[bytes], calls: Sequence[ToolCall], index: int, stamp: Stamp, thought: str, *, show: bool
) -> tuple[list[bytes], str]:
    """All parts of an answer's end, and the name of a call whose arguments are no object.

    The first call carries the thought under seal, for clients that drop thoughts but send back what is on calls; so
    does the last text where there is no call and no thought was shown.
    """
    sealed = _signed(seal(stamp.signing_key, thought)) if thought and (calls or not show) else b""
    called: list[bytes] = []
    broken = ""
    for at, call in enumerate(calls):
        args = _args(call.arguments)
        if args is None:
            broken = call.name
            continue
        call_id = call.id or f"call_{stamp.id[:16]}_{index}_{at}"
        mark = b"" if called else sealed
        named = _ENCODE(call_id), _ENCODE(call.name), args, mark
        called.append(b'{"functionCall":{"id":%b,"name":%b,"args":%b}%b}' % named)
    said = parts or ([] if called else [_part("")])
    if sealed and not called and not show:
        said = [*said[:-1], said[-1][:-1] + sealed + b"}"]
    return [*said, *called], broken


def _end(finish: Finish, broken: str) -> bytes:
    """Why a candidate ended."""
    reason, why = _REASONS.get(finish.reason, "STOP"), ""
    if finish.reason is FinishReason.REPETITION:
        why = LOOP
    elif broken and reason == "STOP":
        reason, why = "MALFORMED_FUNCTION_CALL", f"the call of {broken!r} has no JSON object as arguments"
    return b',"finishReason":"%b"%b' % (reason.encode(), b',"finishMessage":%b' % _ENCODE(why) if why else b"")


def _candidate(index: int, parts: list[bytes], more: bytes) -> bytes:
    return b'{"content":{"parts":[%b],"role":"model"}%b,"index":%d}' % (b",".join(parts), more, index)


def _args(arguments: str) -> bytes | None:
    """A call's arguments on one line; None for what is no JSON object."""
    try:
        parsed = msgspec.json.decode(arguments or "{}", type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return None
    # Line breaks between tokens would end the frame's line.
    broken = "\n" in arguments or "\r" in arguments
    return _ENCODE(msgspec.json.decode(arguments) if broken else parsed)


def _logprobs(tokens: Sequence[EventToken]) -> bytes:
    if not tokens:
        return b""
    chosen = [_logprob(token.id, token.bytes, token.logprob) for token in tokens]
    result: dict[str, object] = {"chosenCandidates": chosen}
    if any(token.top for token in tokens):
        result["topCandidates"] = [
            {"candidates": [_logprob(one.id, one.bytes, one.logprob) for one in token.top]} for token in tokens
        ]
    return b',"logprobsResult":%b' % _ENCODE(result)


def _average(count: int, logprob: float) -> bytes:
    return b',"avgLogprobs":%b' % _ENCODE(logprob / count) if count else b""


def _logprob(number: int, said: bytes, logprob: float) -> dict[str, object]:
    return {"token": said.decode("utf-8", "replace"), "tokenId": number, "logProbability": logprob}


def _usage(usage: Sequence[Usage]) -> bytes:
    """Thoughts are no part of the candidates' tokens here."""
    prompt = sum(one.prompt_tokens for one in usage)
    thoughts = sum(one.thinking_tokens for one in usage)
    completion = sum(one.completion_tokens for one in usage)
    return _ENCODE(
        {
            "promptTokenCount": prompt,
            "candidatesTokenCount": completion - thoughts,
            "thoughtsTokenCount": thoughts,
            "totalTokenCount": prompt + completion,
            "cachedContentTokenCount": sum(one.cached_tokens for one in usage),
        }
    )


def _tail(stamp: Stamp) -> bytes:
    return b',"modelVersion":%b,"responseId":%b}' % (_ENCODE(stamp.model), _ENCODE(stamp.id))


def write_error(fault: Fault, request_id: str) -> Answer:
    """A google.rpc.Status; its details say the exact kind, the field, and when to try again."""
    headers = () if fault.retry_after is None else (("retry-after", str(max(1, math.ceil(fault.retry_after)))),)
    return Answer(_status(fault), _error(fault, request_id), headers)


def _status(fault: Fault) -> int:
    return 429 if fault.kind is Kind.OUT_OF_BUDGET else STATUS[fault.kind]


def _error(fault: Fault, request_id: str = "") -> bytes:
    code = _status(fault)
    details: list[dict[str, object]] = [
        {"@type": f"{_DETAIL}ErrorInfo", "reason": fault.kind.name, "domain": "magister"}
    ]
    if fault.field:
        violation = {"field": fault.field, "description": fault.message}
        details.append({"@type": f"{_DETAIL}BadRequest", "fieldViolations": [violation]})
    if fault.retry_after is not None:
        details.append({"@type": f"{_DETAIL}RetryInfo", "retryDelay": f"{fault.retry_after:g}s"})
    if request_id:
        details.append({"@type": f"{_DETAIL}RequestInfo", "requestId": request_id})
    error = {"code": code, "message": fault.message, "status": _WORDS[code], "details": details}
    return _ENCODE({"error": error})


def write_count(tokens: int) -> bytes:
    """A CountTokensResponse."""
    return b'{"totalTokens":%d}' % tokens


def write_model(card: Card) -> bytes:
    """A Model."""
    return _ENCODE(_model(card))


def write_models(cards: Sequence[Card], query: Mapping[str, str] | None = None) -> bytes:
    """A ListModelsResponse. `query` may hold `pageSize` and `pageToken`. Raises `BadRequest`."""
    asked = query or {}
    size = asked.get("pageSize", asked.get("page_size", ""))
    token = asked.get("pageToken", asked.get("page_token", ""))
    if size and not (size.isdecimal() and len(size) < 10):
        raise BadRequest("pageSize", f"must be a whole number, got {size!r}")
    names = [card.name for card in cards]
    if token and token not in names:
        raise BadRequest("pageToken", "is none that this server gave")
    start = names.index(token) if token else 0
    # As at Google, 0 and no size mean fifty.
    end = start + (min(int(size or 0), 1000) or 50)
    page: dict[str, object] = {"models": [_model(card) for card in cards[start:end]]}
    if end < len(cards):
        page["nextPageToken"] = names[end]
    return _ENCODE(page)


def _model(card: Card) -> dict[str, object]:
    return {
        "name": f"models/{card.name}",
        "baseModelId": card.name,
        "version": str(card.created),
        "displayName": card.name,
        "description": card.description,
        "inputTokenLimit": card.context,
        "outputTokenLimit": card.context,
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
        "temperature": card.temperature,
        "maxTemperature": 2.0,
        "thinking": card.thinking,
    }
