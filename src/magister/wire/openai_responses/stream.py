"""Events -> the Responses API's stream: one item after the other, each added, told in pieces and done.

Clients fail on pieces of what was never added, so the skeleton is kept in full. The last frame repeats the whole
response. Knows nothing of requests but what `Asked` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from magister.types import Event, Finish, FinishReason, TextDelta, ThinkingDelta, ToolCall, ToolCallDelta, Usage
from magister.wire.dialect import Asked, EventWriter, Stamp
from magister.wire.fault import Fault, Kind
from magister.wire.openai_chat.errors import error_body
from magister.wire.openai_responses.answer import (
    call_item,
    is_cut,
    item_id,
    logprob_of,
    message_item,
    reasoning_item,
    response,
    status_of,
    text_part,
    wants_summary,
)
from magister.wire.sse import COMMENT

NAME = "openai_responses"
STREAM_TYPE = "text/event-stream"
KEEPALIVE = COMMENT

_ENCODE = msgspec.json.Encoder().encode

Json = dict[str, Any]


def write_events(asked: Asked, stamp: Stamp) -> EventWriter:
    """One stream of a Response."""
    return _Writer(asked, stamp)


class _Frames:
    """Frames in order, numbered through."""

    def __init__(self) -> None:
        self._number = 0
        self._out: list[bytes] = []

    def add(self, name: str, rest: bytes) -> None:
        """`rest`: the encoded fields behind type and number, with the closing brace."""
        kind = name.encode()
        self._out.append(
            b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b\n\n' % (kind, kind, self._number, rest)
        )
        self._number += 1

    def tell(self, name: str, fields: Json) -> None:
        """A frame of these fields."""
        self.add(name, _ENCODE(fields)[1:])

    def take(self) -> bytes:
        """What was added since the last time."""
        out, self._out = self._out, []
        return b"".join(out)


class _Item:
    """The item under way."""

    def __init__(self, what: str | int, stamp: Stamp, index: int, call: ToolCall) -> None:
        kind = "fc" if isinstance(what, int) else {"thought": "rs", "text": "msg"}[what]
        self.what = what
        """"thought", "text", or the index of a call."""
        self.id = item_id(stamp, kind, index)
        self.index = index
        self.call = call
        """Of a call its id and name."""
        self.texts: list[str] = []
        self.logprobs: list[Json] = []
        self.closed = False
        self.place: Json = {"output_index": index, "item_id": self.id}
        self.head = b'"output_index":%d,"item_id":"%b"' % (index, self.id.encode())


class _Writer:
    def __init__(self, asked: Asked, stamp: Stamp) -> None:
        self._asked, self._stamp = asked, stamp
        self._logprobs = asked.chat.sampling.logprobs
        self._summary = wants_summary(asked)
        self._response = response(asked, stamp)
        self._frames = _Frames()
        self._begun = self._failed = False
        self._usage = Usage()
        self._item: _Item | None = None
        self._done: list[bytes] = []
        self._cut = False

    def write(self, events: Sequence[Event]) -> bytes:
        if not self._begun:
            self._begun = True
            told = b'"response":%b}' % self._response.told("in_progress", [])
            self._frames.add("response.created", told)
            self._frames.add("response.in_progress", told)
        for event in events:
            match event:
                case TextDelta():
                    self._text(event)
                case ThinkingDelta():
                    self._think(event)
                case ToolCallDelta():
                    self._call(event)
                case Usage():
                    self._usage = event
                case Finish(reason=FinishReason.ERROR):
                    self._fail(Fault(kind=Kind.UPSTREAM, message=event.error or "the model failed"))
                case Finish():
                    self._cut = is_cut(event.reason)
                    self._leave(cut=self._cut)
        return self._frames.take()

    def end(self) -> bytes:
        if self._failed:
            return b""
        status = status_of(whole=not self._cut)
        self._frames.add(f"response.{status}", b'"response":%b}' % self._response.told(status, self._done, self._usage))
        return self._frames.take()

    def fail(self, fault: Fault) -> bytes:
        self._fail(fault)
        return self._frames.take()

    def _fail(self, fault: Fault) -> None:
        """An error, and where a response had begun, its failure."""
        self._failed = True
        error = error_body(fault)["error"]
        self._frames.tell("error", {name: error[name] for name in ("code", "message", "param")})
        if self._begun:
            why = {"code": "server_error", "message": fault.message}
            told = self._response.told("failed", self._done, None, why)
            self._frames.add("response.failed", b'"response":%b}' % told)

    def _text(self, event: TextDelta) -> None:
        item = self._item
        if item is None or item.what != "text":
            if not event.text:
                return
            item = self._enter("text")
        if not event.text and not (self._logprobs and event.tokens):
            return
        item.texts.append(event.text)
        logprobs = [logprob_of(token) for token in event.tokens] if self._logprobs else []
        item.logprobs += logprobs
        rest = b'%b,"content_index":0,"delta":%b,"logprobs":%b}'
        self._frames.add("response.output_text.delta", rest % (item.head, _ENCODE(event.text), _ENCODE(logprobs)))

    def _think(self, event: ThinkingDelta) -> None:
        item = self._item
        if item is None or item.what != "thought":
            item = self._enter("thought")
        item.texts.append(event.text)
        if event.text:
            said = _ENCODE(event.text)
            self._frames.add("response.reasoning_text.delta", b'%b,"content_index":0,"delta":%b}' % (item.head, said))
            if self._summary:
                rest = b'%b,"summary_index":0,"delta":%b}' % (item.head, said)
                self._frames.add("response.reasoning_summary_text.delta", rest)
        if event.closed:
            item.closed = True
            self._leave(cut=False)

    def _call(self, event: ToolCallDelta) -> None:
        item = self._item
        if item is None or item.what != event.index:
            item = self._enter(event.index, ToolCall(event.id, event.name, ""))
        item.texts.append(event.arguments)
        if event.arguments:
            rest = b'%b,"delta":%b}' % (item.head, _ENCODE(event.arguments))
            self._frames.add("response.function_call_arguments.delta", rest)

    def _enter(self, what: str | int, call: ToolCall | None = None) -> _Item:
        """A new item and its one part."""
        self._leave(cut=False)
        item = self._item = _Item(what, self._stamp, len(self._done), call or ToolCall("", "", ""))
        added = self._whole(item, "", "in_progress")
        if not isinstance(what, int):
            part = added["content"][0]
            added |= {"content": [], "summary": []} if what == "thought" else {"content": []}
        self._frames.tell("response.output_item.added", {"output_index": item.index, "item": added})
        if not isinstance(what, int):
            self._frames.tell("response.content_part.added", item.place | {"content_index": 0, "part": part})
        if what == "thought" and self._summary:
            fields = item.place | {"summary_index": 0, "part": {"type": "summary_text", "text": ""}}
            self._frames.tell("response.reasoning_summary_part.added", fields)
        return item

    def _whole(self, item: _Item, text: str, status: str) -> Json:
        """The item as it is told at its ends."""
        if item.what == "thought":
            return reasoning_item(self._asked, self._stamp, item.index, text, status)
        if item.what == "text":
            return message_item(self._asked, self._stamp, item.index, text, item.logprobs, status)
        assert isinstance(item.what, int)
        call = ToolCall(item.call.id, item.call.name, text)
        return call_item(self._stamp, item.index, item.what, call, status)

    def _leave(self, *, cut: bool) -> None:
        """Out of the item under way; a thought is whole only if it was closed."""
        item, self._item = self._item, None
        if item is None:
            return
        text = "".join(item.texts)
        if item.what == "thought":
            self._end_thought(item, text)
        elif item.what == "text":
            place = item.place | {"content_index": 0}
            self._frames.tell("response.output_text.done", place | {"text": text, "logprobs": item.logprobs})
            part = text_part(self._asked, text, item.logprobs)
            self._frames.tell("response.content_part.done", place | {"part": part})
        else:
            fields = item.place | {"name": item.call.name, "arguments": text}
            self._frames.tell("response.function_call_arguments.done", fields)
        status = status_of(whole=item.closed if item.what == "thought" else not cut)
        done = _ENCODE(self._whole(item, text, status))
        self._done.append(done)
        self._frames.add("response.output_item.done", b'"output_index":%d,"item":%b}' % (item.index, done))

    def _end_thought(self, item: _Item, text: str) -> None:
        place = item.place | {"content_index": 0}
        self._frames.tell("response.reasoning_text.done", place | {"text": text})
        part = {"type": "reasoning_text", "text": text}
        self._frames.tell("response.content_part.done", place | {"part": part})
        if self._summary:
            place = item.place | {"summary_index": 0}
            self._frames.tell("response.reasoning_summary_text.done", place | {"text": text})
            part = {"type": "summary_text", "text": text}
            self._frames.tell("response.reasoning_summary_part.done", place | {"part": part})
