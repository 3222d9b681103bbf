"""Events -> Anthropic's stream: one block after the other, each opened, told in pieces and closed.

What the prompt cost is known at the end only, so `message_start` says 0 and `message_delta` the whole; clients take
the later number. Knows nothing of requests but what `Asked` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from magister.types import Event, Finish, FinishReason, TextDelta, ThinkingDelta, ToolCallDelta, Usage
from magister.wire.anthropic.answer import call_id, cost, error_of, message_id, signature, stopped
from magister.wire.dialect import Asked, EventWriter, Stamp
from magister.wire.fault import Fault, Kind
from magister.wire.sse import frame

NAME = "anthropic"
STREAM_TYPE = "text/event-stream"
KEEPALIVE = b'event: ping\ndata: {"type":"ping"}\n\n'

_ENCODE = msgspec.json.Encoder().encode
_TEXT = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":%b}}\n\n'
)
_THINKING = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"thinking_delta","thinking":%b}}\n\n'
)
_SIGNATURE = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"signature_delta","signature":%b}}\n\n'
)
_ARGUMENTS = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"input_json_delta","partial_json":%b}}\n\n'
)
_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_END = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def write_events(asked: Asked, stamp: Stamp) -> EventWriter:
    """One stream of a Message."""
    return _Writer(asked, stamp)


class _Writer:
    def __init__(self, asked: Asked, stamp: Stamp) -> None:
        self._asked, self._stamp, self._show = asked, stamp, asked.show_thinking
        self._begun = self._failed = False
        self._usage = Usage()
        self._index = -1
        self._open: str | int = ""
        """What the open block is: "thinking", "text", the index of a call, or none."""
        self._thought: list[str] = []

    def write(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        if not self._begun:
            self._begun = True
            out.append(self._start())
        for event in events:
            match event:
                case TextDelta():
                    if event.text:
                        self._enter("text", {"type": "text", "text": ""}, out)
                        out.append(_TEXT % (self._index, _ENCODE(event.text)))
                case ThinkingDelta():
                    self._think(event, out)
                case ToolCallDelta():
                    self._call(event, out)
                case Usage():
                    self._usage = event
                case Finish():
                    self._finish(event, out)
        return b"".join(out)

    def end(self) -> bytes:
        return b"" if self._failed else _END

    def fail(self, fault: Fault) -> bytes:
        self._failed = True
        return frame({"type": "error", "error": error_of(fault)}, "error")

    def _start(self) -> bytes:
        message: dict[str, Any] = {
            "id": message_id(self._stamp),
            "type": "message",
            "role": "assistant",
            "model": self._stamp.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return frame({"type": "message_start", "message": message}, "message_start") + KEEPALIVE

    def _think(self, event: ThinkingDelta, out: list[bytes]) -> None:
        self._enter("thinking", {"type": "thinking", "thinking": "", "signature": ""}, out)
        self._thought.append(event.text)
        if event.text and self._show:
            out.append(_THINKING % (self._index, _ENCODE(event.text)))
        if event.closed:
            proof = signature(self._stamp, "".join(self._thought), shown=self._show)
            out.append(_SIGNATURE % (self._index, _ENCODE(proof)))
            self._leave(out)

    def _call(self, event: ToolCallDelta, out: list[bytes]) -> None:
        use_id = event.id or call_id(self._stamp, event.index)
        block = {"type": "tool_use", "id": use_id, "name": event.name, "input": {}}
        self._enter(event.index, block, out)
        if event.arguments:
            out.append(_ARGUMENTS % (self._index, _ENCODE(event.arguments)))

    def _enter(self, what: str | int, block: dict[str, Any], out: list[bytes]) -> None:
        """Into a block of this kind, the open one or a new one."""
        if self._open == what:
            return
        self._leave(out)
        self._open, self._index = what, self._index + 1
        started = {"type": "content_block_start", "index": self._index, "content_block": block}
        out.append(frame(started, "content_block_start"))

    def _leave(self, out: list[bytes]) -> None:
        if self._open != "":
            out.append(_STOP % self._index)
        self._open, self._thought = "", []

    def _finish(self, finish: Finish, out: list[bytes]) -> None:
        if finish.reason is FinishReason.ERROR:
            out.append(self.fail(Fault(kind=Kind.UPSTREAM, message=finish.error or "the model failed")))
            return
        self._leave(out)
        delta = stopped(self._asked, finish, self._usage)
        out.append(frame({"type": "message_delta", "delta": delta, "usage": cost(self._usage)}, "message_delta"))
