"""The Responses API's replies and streams -> events and replies: the client's side.

A whole reply is read as the events of its items. Of a thought that is told both in full and as a summary, only the
first is taken. Knows nothing of requests.
"""

from __future__ import annotations

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
from magister.wire.sse import Frame, FrameReader

UNKNOWN = -1
"""The id of a token that came without one."""
_BETWEEN = "\n\n"
"""What stands between the parts of a summary."""


class _Logprob(msgspec.Struct):
    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None
    top_logprobs: list[_Logprob] = []


class _Part(msgspec.Struct):
    type: str = ""
    text: str = ""
    refusal: str = ""
    logprobs: list[_Logprob] | None = None


class _Item(msgspec.Struct):
    type: str = ""
    status: str | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    content: list[_Part] | None = None
    summary: list[_Part] | None = None
    encrypted_content: str | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int = 0


class _Thought(msgspec.Struct):
    reasoning_tokens: int = 0


class _Cost(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _Cached | None = None
    output_tokens_details: _Thought | None = None


class _Error(msgspec.Struct):
    message: str = ""


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    status: str | None = None
    output: list[_Item] = []
    usage: _Cost | None = None
    error: _Error | None = None
    incomplete_details: _Incomplete | None = None


class _Kind(msgspec.Struct):
    type: str


class _Frame(msgspec.Struct):
    type: str
    output_index: int = 0
    summary_index: int = 0
    delta: str = ""
    message: str = ""
    item: _Item | None = None
    response: _Response | None = None
    logprobs: list[_Logprob] | None = None


_DECODE_KIND = msgspec.json.Decoder(_Kind).decode
_DECODE_FRAME = msgspec.json.Decoder(_Frame).decode
_DECODE_RESPONSE = msgspec.json.Decoder(_Response).decode
_PIECES = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "text",
    "response.reasoning_text.delta": "thought",
    "response.reasoning_summary_text.delta": "summary",
    "response.function_call_arguments.delta": "call",
}
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
_SUMMARY_PART = "response.reasoning_summary_part.added"
_READ = frozenset({*_PIECES, _SUMMARY_PART, *_ENDS, "response.output_item.added", "response.output_item.done", "error"})


def read_events() -> EventReader:
    """One stream being read."""
    return _Reader()


def read_reply(body: bytes) -> Reply:
    """A Response. Raises `Upstream` for what is none, and for one that failed."""
    try:
        response = _DECODE_RESPONSE(body)
    except msgspec.DecodeError as error:
        raise Upstream(f"the reply is no response: {error}") from None
    if response.status is None:
        raise Upstream("the reply is no response: it has no status")
    reader = _Reader()
    events: list[Event] = []
    for index, item in enumerate(response.output):
        events += reader.add(index, item)
        events += reader.done(index, item)
    return fold([*events, *reader.finish(response)])


class _Reader:
    def __init__(self) -> None:
        self._frames = FrameReader()
        self._calls: dict[int, int] = {}
        self._said: dict[int, str] = {}
        """What was told first of each item."""
        self._over = False

    def feed(self, data: bytes) -> list[Event]:
        return [event for one in self._frames.feed(data) for event in self._read(one)]

    def end(self) -> list[Event]:
        events = [event for one in self._frames.end() for event in self._read(one)]
        if not self._over:
            raise Upstream("the stream broke off before its end")
        return events

    def _read(self, one: Frame) -> list[Event]:
        if one.data == b"[DONE]":
            return []
        try:
            if _DECODE_KIND(one.data).type not in _READ:
                return []
            said = _DECODE_FRAME(one.data)
        except msgspec.DecodeError as error:
            raise Upstream(f"a frame is no event: {error}") from None
        if said.type in _PIECES:
            return self._piece(said, _PIECES[said.type])
        if said.type == _SUMMARY_PART:
            # Its paragraphs come as parts, without a word between them.
            going_on = said.summary_index > 0 and self._said.get(said.output_index) == "summary"
            return [ThinkingDelta(text=_BETWEEN)] if going_on else []
        if said.type in _ENDS and said.response is not None:
            self._over = True
            return self.finish(said.response)
        if said.item is not None:
            add = said.type == "response.output_item.added"
            return self.add(said.output_index, said.item) if add else self.done(said.output_index, said.item)
        raise Upstream(said.message or "the stream failed")

    def _piece(self, said: _Frame, what: str) -> list[Event]:
        if self._said.setdefault(said.output_index, what) != what:
            return []
        if what == "text":
            return [TextDelta(text=said.delta, tokens=_tokens(said.logprobs))]
        if what == "call":
            if said.output_index not in self._calls:
                raise Upstream(f"a piece of item {said.output_index} came before the item")
            return [ToolCallDelta(index=self._calls[said.output_index], arguments=said.delta)]
        return [ThinkingDelta(text=said.delta)]

    def add(self, index: int, item: _Item) -> list[Event]:
        """An item begins; what it says comes in pieces, or at its end."""
        if item.type != "function_call":
            return []
        self._calls[index] = len(self._calls)
        return [ToolCallDelta(index=self._calls[index], id=item.call_id, name=item.name)]

    def done(self, index: int, item: _Item) -> list[Event]:
        """An item ends, with all it said, in case no piece of that came."""
        events: list[Event] = []
        told = index in self._said
        if item.type == "message" and not told:
            events += [TextDelta(text=part.text or part.refusal, tokens=_tokens(part.logprobs))
                       for part in item.content or ()]  # fmt: skip
        elif item.type == "function_call" and not told and index in self._calls:
            events.append(ToolCallDelta(index=self._calls[index], arguments=item.arguments))
        elif item.type == "reasoning":
            text = "".join(part.text for part in item.content or ())
            text = text or _BETWEEN.join(part.text for part in item.summary or ())
            if told or text:
                closed = item.status != "incomplete"
                signature = item.encrypted_content or None if closed else None
                events.append(ThinkingDelta(text="" if told else text, closed=closed, signature=signature))
        return events

    def finish(self, response: _Response) -> list[Event]:
        """What a response cost, and why it ended. Raises `Upstream` where it failed."""
        if response.status in ("failed", "cancelled"):
            told = response.error.message if response.error else ""
            raise Upstream(told or f"the response was {response.status}")
        cost = response.usage or _Cost()
        usage = Usage(
            prompt_tokens=cost.input_tokens,
            cached_tokens=cost.input_tokens_details.cached_tokens if cost.input_tokens_details else 0,
            thinking_tokens=cost.output_tokens_details.reasoning_tokens if cost.output_tokens_details else 0,
            completion_tokens=cost.output_tokens,
        )
        if response.status == "completed":
            return [usage, Finish(reason=FinishReason.TOOL_CALLS if self._calls else FinishReason.END)]
        reason = response.incomplete_details.reason if response.incomplete_details else response.status
        if reason == "max_output_tokens":
            return [usage, Finish(reason=FinishReason.LENGTH)]
        return [usage, Finish(reason=FinishReason.ERROR, error=f"the response ended with {reason}")]


def _tokens(said: list[_Logprob] | None) -> tuple[EventToken, ...]:
    """OpenAI tells one logprob a token; it stands for both."""
    return tuple(
        EventToken(
            id=UNKNOWN,
            bytes=_bytes(one),
            logprob=one.logprob,
            sampled_logprob=one.logprob,
            top=tuple(TokenLogprob(UNKNOWN, top.logprob, _bytes(top)) for top in one.top_logprobs),
        )
        for one in said or ()
    )


def _bytes(said: _Logprob) -> Any:
    try:
        return said.token.encode() if said.bytes is None else bytes(said.bytes)
    except ValueError:
        raise Upstream("a token's bytes are not from 0 to 255") from None
