"""Anthropic's dialect as equations: both directions cancel, and a stream is its whole reply, however it is cut."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.canned_streams import ARGUMENTS, NAMES, WORDS, cut, one_choice, read, signed, written

from magister.types import (
    ChatRequest,
    Choice,
    Effort,
    Event,
    Finish,
    FinishReason,
    Image,
    JsonFormat,
    Message,
    Reply,
    Role,
    Sampling,
    TextDelta,
    Thinking,
    ThinkingDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolMode,
    ToolResult,
    assistant,
    fold,
    system,
    user,
)
from magister.wire import anthropic
from magister.wire.dialect import Asked, Stamp
from magister.wire.fault import BadRequest, Fault, Kind
from magister.wire.signature import sign

STAMP = Stamp(id="0123456789abcdef" * 2, created=1, model="nano", signing_key=b"k")
ASKED = Asked(chat=ChatRequest(messages=(user("hi"),)), stream=True)
IMAGES = st.sampled_from([Image(data=b"\xff\xd8\xff1"), Image(data=b"GIF89a"), Image(url="https://example.org/a.png")])


def carried(reply: Reply) -> Reply:
    """What Anthropic's words carry: a cut loop is an end too early. Whole thoughts are signed."""
    choice = signed(reply, lambda text: sign(STAMP.signing_key, text)).choices[0]
    finish = FinishReason.LENGTH if choice.finish is FinishReason.REPETITION else choice.finish
    return Reply(choices=(msgspec.structs.replace(choice, finish=finish),))


@given(st.data())
def test_a_stream_is_its_whole_reply(data: Any) -> None:
    events = data.draw(one_choice())
    groups = data.draw(st.lists(st.integers(0, 5), max_size=8))
    stream = written(anthropic.write_events(ASKED, STAMP), events, groups)
    assert read(anthropic.read_events(), data.draw(cut(stream))) == carried(fold(events))


@given(st.data())
def test_a_stream_says_the_same_in_one_write_or_many(data: Any) -> None:
    events = data.draw(one_choice())
    groups = data.draw(st.lists(st.integers(0, 5), max_size=8))
    streams = {written(anthropic.write_events(ASKED, STAMP), events, sizes) for sizes in (groups, [len(events)])}
    assert len(streams) == 1


@given(one_choice())
def test_a_reply_is_read_as_written(events: list[Event]) -> None:
    reply = fold(events)
    assert anthropic.read_reply(anthropic.write_reply(ASKED, reply, STAMP)) == carried(reply)


@given(st.sampled_from([[], [ToolCallDelta(index=0, id="c", name="f", arguments="{}")]]))
def test_a_thought_cut_short_stays_open(calls: list[Event]) -> None:
    events = [ThinkingDelta(text="h"), *calls, Finish(reason=FinishReason.LENGTH)]
    thought = Thinking("h", closed=False)
    expected = (Choice(message=assistant(thought, *fold(events).message.tool_calls), finish=FinishReason.LENGTH),)
    stream = written(anthropic.write_events(ASKED, STAMP), events, [1])
    assert read(anthropic.read_events(), [stream]).choices == expected
    assert anthropic.read_reply(anthropic.write_reply(ASKED, fold(events), STAMP)).choices == expected


def test_a_stop_string_is_told() -> None:
    events: list[Event] = [TextDelta(text="h"), Finish(reason=FinishReason.STOP, stop="x")]
    stream = written(anthropic.write_events(ASKED, STAMP), events, [])
    assert read(anthropic.read_events(), [stream]) == fold(events)
    assert anthropic.read_reply(anthropic.write_reply(ASKED, fold(events), STAMP)) == fold(events)


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@st.composite
def conversations(draw: Any) -> tuple[Message, ...]:
    messages = [system(draw(WORDS))] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 3))):
        messages.append(user(draw(WORDS), *draw(st.lists(IMAGES, max_size=2)), draw(WORDS)))
        if draw(st.booleans()):
            messages.append(system(draw(WORDS), draw(WORDS)))
        if not draw(st.booleans()):
            continue
        calls = [ToolCall(f"c{turn}{at}", draw(NAMES), dumps(draw(ARGUMENTS))) for at in range(draw(st.integers(0, 2)))]
        thought = [Thinking(draw(WORDS), signature=draw(st.sampled_from([None, "c2ln"])))]
        messages.append(assistant(*(thought if draw(st.booleans()) else []), draw(WORDS), *calls))
        if calls:
            results = [ToolResult(call.id, draw(st.text(max_size=4)), draw(st.booleans())) for call in calls]
            messages.append(Message(Role.TOOL, tuple(results)))
    last = draw(st.sampled_from([None, assistant("so"), assistant(Thinking("hm", closed=False))]))
    if last is not None and messages[-1].role is Role.USER:
        messages.append(last)
    return tuple(messages)


SETTINGS = st.fixed_dictionaries(
    {"max_tokens": st.integers(2000, 3000)},
    optional={
        "temperature": st.floats(0, 1),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(0, 99),
        "stop": st.lists(WORDS, min_size=1, max_size=5).map(tuple),
        "thinking_tokens": st.integers(1024, 1999),
    },
)
TOOLS = (Tool("f", {"type": "object", "properties": {"a": {"type": "string"}}}, "does f"), Tool("g", {"x": 1}))
CHOICES = st.sampled_from(
    [
        ToolChoice(),
        ToolChoice(parallel=False),
        ToolChoice(ToolMode.NONE),
        ToolChoice(ToolMode.REQUIRED),
        ToolChoice(ToolMode.NAMED, "g", parallel=False),
    ]
)
EFFORTS = st.sampled_from([None, Effort.LOW, Effort.MEDIUM, Effort.HIGH, Effort.XHIGH, Effort.MAX])


@given(st.data())
def test_what_is_asked_is_what_is_read(data: Any) -> None:
    settings = data.draw(SETTINGS)
    off = "thinking_tokens" not in settings and data.draw(st.booleans())
    tooled = data.draw(st.booleans())
    chat = ChatRequest(
        messages=data.draw(conversations()),
        model="nano",
        tools=TOOLS if tooled else (),
        tool_choice=data.draw(CHOICES) if tooled else ToolChoice(),
        json_format=data.draw(st.sampled_from([None, JsonFormat({"type": "object"})])),
        sampling=Sampling(**settings),
        effort=Effort.NONE if off else data.draw(EFFORTS),
    )
    asked = Asked(
        chat=chat,
        given=frozenset(settings),
        stream=data.draw(st.booleans()),
        show_thinking=off or data.draw(st.booleans()),
        labels=data.draw(st.sampled_from([{}, {"user_id": "u", "user_profile_id": "p"}])),
    )
    assert anthropic.read_request(anthropic.write_request(asked)) == asked


KEYS = st.sampled_from(["type", "text", "role", "content", "thinking", "input", "id", "source", "input_schema", "name"])
KINDS = st.sampled_from(["text", "thinking", "tool_use", "tool_result", "image", "user", "assistant", "enabled"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | KINDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
TOPS = st.sampled_from(["messages", "system", "tools", "tool_choice", "thinking", "output_config", "metadata"])
BLOCKS = st.lists(st.dictionaries(KEYS, VALUES, max_size=5), max_size=3)


@given(st.dictionaries(TOPS, VALUES), st.none() | BLOCKS, st.sampled_from(["user", "assistant", "system"]))
def test_no_body_surprises(fields: dict[str, Any], blocks: list[Any] | None, role: str) -> None:
    body: dict[str, Any] = {"model": "nano", "max_tokens": 9, **fields}
    if blocks is not None:
        body["messages"] = [{"role": role, "content": blocks}]
    with suppress(BadRequest):
        anthropic.read_request(msgspec.json.encode(body))


@pytest.mark.parametrize("kind", list(Kind))
def test_a_fault_is_read_as_written(kind: Kind) -> None:
    fault = Fault(kind=kind, message="m", field="messages[0]", retry_after=2.0)
    answer = anthropic.write_error(fault, "r")
    assert anthropic.read_error(answer.status, answer.body) == fault
