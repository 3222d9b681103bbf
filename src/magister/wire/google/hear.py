"""Google's replies, streams and errors -> events, replies and faults: the client's side.

A whole reply is read as a stream of one frame. Knows nothing of requests.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from magister.types import (
    Event,
    EventToken,
    Finish,
    FinishReason,
    Reply,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCallDelta,
    Upstream,
    Usage,
    fold,
)
from magister.wire.dialect import EventReader
from magister.wire.fault import STATUS, Fault, Kind
from magister.wire.google.answer import LOOP
from magister.wire.sse import Frame, FrameReader

_REASONS = {"STOP": FinishReason.END, "MAX_TOKENS": FinishReason.LENGTH}


class _Logprob(msgspec.Struct, rename="camel"):
    token: str = ""
    token_id: int = 0
    log_probability: float = 0.0


class _Top(msgspec.Struct):
    candidates: list[_Logprob] = []


class _Logprobs(msgspec.Struct, rename="camel"):
    chosen_candidates: list[_Logprob] = []
    top_candidates: list[_Top] = []


class _Call(msgspec.Struct):
    name: str
    id: str | None = None
    args: dict[str, Any] | None = None


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str = ""
    index: int = 0
    logprobs_result: _Logprobs | None = None


class _Cost(msgspec.Struct, rename="camel"):
    prompt_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    cached_content_token_count: int = 0


class _Response(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] = []
    usage_metadata: _Cost | None = None
    error: dict[str, Any] | None = None


class _Choice:
    """How far one choice has come."""

    def __init__(self) -> None:
        self.thinks = False
        self.calls = 0
        self.finish: Finish | None = None


def read_events() -> EventReader:
    """One stream being read."""
    return _Reader()


def read_reply(body: bytes) -> Reply:
    """A GenerateContentResponse. Raises `Upstream` for what is none."""
    reader = _Reader()
    return fold([*reader.read(body), *reader.finish()])


class _Reader:
    def __init__(self) -> None:
        self._frames = FrameReader()
        self._choices: dict[int, _Choice] = {}
        self._usage: Usage | None = None

    def feed(self, data: bytes) -> list[Event]:
        return self._all(self._frames.feed(data))

    def end(self) -> list[Event]:
        return [*self._all(self._frames.end()), *self.finish()]

    def finish(self) -> list[Event]:
        """What the end settles: the cost, told once, and why each choice ended."""
        if not self._choices or any(choice.finish is None for choice in self._choices.values()):
            raise Upstream("the stream broke off before its end")
        usage: list[Event] = [] if self._usage is None else [self._usage]
        return [*usage, *(self._choices[at].finish for at in sorted(self._choices))]  # type: ignore[list-item]

    def read(self, body: bytes) -> list[Event]:
        """Events of one frame but its ends, which wait for the cost."""
        try:
            said = _DECODE(body)
        except msgspec.DecodeError as error:
            raise Upstream(f"this is no GenerateContentResponse: {error}") from None
        if said.error is not None:
            raise Upstream(str(said.error.get("message", "no reason was given")), _code(said.error))
        if said.usage_metadata is not None:
            cost = said.usage_metadata
            self._usage = Usage(
                prompt_tokens=cost.prompt_token_count,
                cached_tokens=cost.cached_content_token_count,
                thinking_tokens=cost.thoughts_token_count,
                completion_tokens=cost.candidates_token_count + cost.thoughts_token_count,
            )
        return [event for candidate in said.candidates for event in self._candidate(candidate)]

    def _all(self, frames: list[Frame]) -> list[Event]:
        return [event for frame in frames for event in self.read(frame.data)]

    def _candidate(self, said: _Candidate) -> list[Event]:
        choice = self._choices.setdefault(said.index, _Choice())
        events: list[Event] = []
        for part in (said.content and said.content.parts) or ():
            events += self._part(choice, part, said.index)
        if said.finish_reason is not None:
            choice.finish = _finish(said, choice)
            if choice.thinks and choice.finish.reason is not FinishReason.LENGTH:
                events.append(ThinkingDelta(text="", closed=True, choice=said.index))
        tokens = _tokens(said.logprobs_result)
        if tokens:
            events.append(TextDelta(text="", choice=said.index, tokens=tokens))
        return events

    def _part(self, choice: _Choice, part: _Part, index: int) -> list[Event]:
        if part.thought:
            # Only a whole thought is signed.
            told, signature = part.text or "", part.thought_signature or None
            choice.thinks = (choice.thinks or bool(told)) and not signature
            thought = ThinkingDelta(text=told, closed=bool(signature), signature=signature, choice=index)
            return [thought] if told or signature else []
        if not part.text and part.function_call is None:
            return []
        # Google's own servers sign what follows a thought.
        end = ThinkingDelta(text="", closed=True, signature=part.thought_signature or None, choice=index)
        closing: list[Event] = [end] if choice.thinks else []
        choice.thinks = False
        if part.function_call is None:
            return [*closing, TextDelta(text=part.text or "", choice=index)]
        call = part.function_call
        said = json.dumps(call.args or {}, ensure_ascii=False)
        delta = ToolCallDelta(index=choice.calls, id=call.id or "", name=call.name, arguments=said, choice=index)
        choice.calls += 1
        return [*closing, delta]


_DECODE = msgspec.json.Decoder(_Response).decode


def _finish(said: _Candidate, choice: _Choice) -> Finish:
    reason = said.finish_reason or ""
    if reason == "OTHER" and said.finish_message == LOOP:
        return Finish(reason=FinishReason.REPETITION, choice=said.index)
    if reason not in _REASONS:
        why = f"{reason}: {said.finish_message}" if said.finish_message else reason
        return Finish(reason=FinishReason.ERROR, choice=said.index, error=why)
    found = _REASONS[reason]
    if found is FinishReason.END and choice.calls:
        found = FinishReason.TOOL_CALLS
    return Finish(reason=found, choice=said.index)


def _tokens(said: _Logprobs | None) -> tuple[EventToken, ...]:
    """Google tells one logprob a token; it stands for both."""
    if said is None:
        return ()
    tops = [
        tuple(TokenLogprob(one.token_id, one.log_probability, one.token.encode()) for one in top.candidates)
        for top in said.top_candidates
    ]
    return tuple(
        EventToken(
            id=one.token_id,
            bytes=one.token.encode(),
            logprob=one.log_probability,
            sampled_logprob=one.log_probability,
            top=tops[at] if at < len(tops) else (),
        )
        for at, one in enumerate(said.chosen_candidates)
    )


def _code(error: dict[str, Any]) -> int | None:
    code = error.get("code")
    return code if isinstance(code, int) else None


def read_error(status: int, body: bytes) -> Fault:
    """The fault behind an error's status and body, whoever wrote it."""
    try:
        said = msgspec.json.decode(body)
    except msgspec.DecodeError:
        said = None
    error = said.get("error") if isinstance(said, dict) else None
    if not isinstance(error, dict):
        return Fault(kind=_kind(status), message=f"the answer was {status}, without a reason")
    kind, field, retry_after = _kind(status), "", None
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        violations = detail.get("fieldViolations")
        if isinstance(violations, list) and violations and isinstance(violations[0], dict):
            field = str(violations[0].get("field", ""))
        if detail.get("domain") == "magister" and detail.get("reason") in Kind.__members__:
            kind = Kind[detail["reason"]]
        retry_after = _seconds(detail.get("retryDelay"), retry_after)
    return Fault(kind=kind, message=str(error.get("message", "")), field=field, retry_after=retry_after)


def _kind(status: int) -> Kind:
    """The first kind of a status; of those this server does not give, our fault or theirs."""
    found = next((kind for kind, code in STATUS.items() if code == status), None)
    return found or (Kind.UPSTREAM if status >= 500 else Kind.INVALID)


def _seconds(said: object, otherwise: float | None) -> float | None:
    if not isinstance(said, str) or not said.endswith("s"):
        return otherwise
    try:
        return float(said[:-1])
    except ValueError:
        return otherwise
