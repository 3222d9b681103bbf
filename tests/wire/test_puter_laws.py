"""Puter's dialect as equations: both directions cancel, and a stream is its whole reply, however it is cut."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.canned_streams import ARGUMENTS, NAMES, WORDS, cut, dumps, one_choice, read, written

from magister.types import (
    ChatRequest,
    Effort,
    Image,
    JsonFormat,
    Message,
    Role,
    Sampling,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    assistant,
    fold,
    system,
    user,
)
from magister.wire import puter
from magister.wire.dialect import Asked, Stamp
from magister.wire.fault import BadRequest

STAMP = Stamp(id="0123456789abcdef" * 2, created=1, model="nano")
ASKED = Asked(chat=ChatRequest(messages=(user("hi"),)), stream=True)
IMAGES = st.sampled_from([Image(data=b"\xff\xd8\xff1"), Image(data=b"BM"), Image(url="https://example.org/a.png")])


@given(st.data())
def test_a_stream_is_its_whole_reply(data: Any) -> None:
    events = data.draw(one_choice())
    reply = fold(events)
    groups = data.draw(st.lists(st.integers(0, 5), max_size=8))
    stream = written(puter.write_events(ASKED, STAMP), events, groups)
    assert stream.isascii()
    assert read(puter.read_events(), data.draw(cut(stream))) == reply
    assert puter.read_reply(puter.write_reply(ASKED, reply, STAMP)) == reply


@st.composite
def conversations(draw: Any) -> tuple[Message, ...]:
    messages = [system(draw(WORDS))] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 3))):
        messages.append(user(*draw(st.lists(st.one_of(WORDS, IMAGES), min_size=1, max_size=3))))
        if not draw(st.booleans()):
            continue
        calls = [ToolCall(f"c{turn}{at}", draw(NAMES), dumps(draw(ARGUMENTS))) for at in range(draw(st.integers(0, 2)))]
        thought = [Thinking(draw(WORDS), signature=draw(st.sampled_from([None, "c2ln"])))]
        messages.append(assistant(*(thought if draw(st.booleans()) else []), draw(WORDS), *calls))
        if calls:
            results = [ToolResult(call.id, draw(st.text(max_size=4)), draw(st.booleans())) for call in calls]
            messages.append(Message(Role.TOOL, tuple(results)))
    return tuple(messages)


@given(st.data())
def test_what_is_asked_is_what_is_read(data: Any) -> None:
    settings = data.draw(
        st.fixed_dictionaries({}, optional={"temperature": st.floats(0, 2), "max_tokens": st.integers(1, 99)})
    )
    formats = st.sampled_from([None, JsonFormat(), JsonFormat({"type": "object"}, "x")])
    tools = st.sampled_from([(), (Tool("f", {"type": "object", "properties": {}}, "does f"), Tool("g", {"x": 1}))])
    chat = ChatRequest(
        messages=data.draw(conversations()),
        model=data.draw(st.sampled_from(["", "nano"])),
        tools=data.draw(tools),
        json_format=data.draw(formats),
        sampling=Sampling(**settings),
        effort=data.draw(st.sampled_from([None, *Effort])),
    )
    echo = data.draw(st.sampled_from([{}, {"normalized": True}, {"test_mode": True}]))
    asked = Asked(chat=chat, given=frozenset(settings), stream=data.draw(st.booleans()), echo=echo)
    assert puter.read_request(puter.write_request(asked)) == asked


KEYS = st.sampled_from(["content", "type", "text", "role", "image_url", "tool_calls", "function", "name", "input"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["text", "tool_use", "tool_result", "assistant", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
OPTIONS = st.sampled_from(["messages", "tools", "response", "reasoning", "text", "model"])


@given(st.dictionaries(OPTIONS, VALUES), st.lists(VALUES, max_size=3))
def test_no_body_surprises(args: dict[str, Any], messages: list[Any]) -> None:
    call = {"interface": "puter-chat-completion", "method": "complete", "args": {"messages": messages, **args}}
    with suppress(BadRequest):
        puter.read_request(msgspec.json.encode(call))
