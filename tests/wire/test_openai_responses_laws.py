"""The Responses dialect as equations: both directions cancel, and a stream is its whole reply, however it is cut."""

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
    EventToken,
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
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolMode,
    ToolResult,
    Usage,
    assistant,
    fold,
    system,
    user,
)
from magister.wire import openai_responses as responses
from magister.wire.dialect import Asked, Stamp
from magister.wire.fault import BadRequest, Fault, Kind
from magister.wire.signature import seal
from magister.wire.sse import FrameReader

STAMP = Stamp(id="0123456789abcdef" * 2, created=1, model="nano", signing_key=b"k")
ASKED = Asked(chat=ChatRequest(messages=(user("hi"),)), stream=True)
PLAIN: dict[str, Any] = {"echo": {}}
SEALED = {"echo": {"include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"}}}
IMAGES = st.sampled_from([Image(data=b"\xff\xd8\xff1"), Image(data=b"GIF89a"), Image(url="https://example.org/a.png")])


def carried(reply: Reply) -> Reply:
    """What OpenAI's words carry: a cut loop is an end too early."""
    choice = reply.choices[0]
    finish = FinishReason.LENGTH if choice.finish is FinishReason.REPETITION else choice.finish
    return Reply(choices=(msgspec.structs.replace(choice, finish=finish),))


def last_of(stream: bytes) -> Any:
    """The response that ends a stream."""
    frames = [json.loads(frame.data) for frame in FrameReader().feed(stream)]
    assert [frame["sequence_number"] for frame in frames] == list(range(len(frames)))
    return frames[-1]["response"]


@given(st.data(), st.sampled_from([PLAIN, SEALED]))
def test_a_stream_is_its_whole_reply(data: Any, echo: Any) -> None:
    events = data.draw(one_choice())
    asked = msgspec.structs.replace(ASKED, **echo)
    groups = data.draw(st.lists(st.integers(0, 5), max_size=8))
    stream = written(responses.write_events(asked, STAMP), events, groups)
    expected = carried(fold(events))
    if echo is SEALED:
        expected = signed(expected, lambda text: seal(STAMP.signing_key, text))
    assert read(responses.read_events(), data.draw(cut(stream))) == expected
    assert last_of(stream) == json.loads(responses.write_reply(asked, fold(events), STAMP))
    assert responses.read_reply(responses.write_reply(asked, fold(events), STAMP)) == expected


@given(one_choice())
def test_a_reply_is_read_as_written(events: list[Event]) -> None:
    reply = fold(events)
    assert responses.read_reply(responses.write_reply(ASKED, reply, STAMP)) == carried(reply)


@given(st.sampled_from([[], [ToolCallDelta(index=0, id="c", name="f", arguments="{}")]]))
def test_a_thought_cut_short_stays_open(calls: list[Event]) -> None:
    events = [ThinkingDelta(text="h"), *calls, Finish(reason=FinishReason.LENGTH)]
    thought = Thinking("h", closed=False)
    expected = (Choice(message=assistant(thought, *fold(events).message.tool_calls), finish=FinishReason.LENGTH),)
    stream = written(responses.write_events(ASKED, STAMP), events, [1])
    assert read(responses.read_events(), [stream]).choices == expected
    assert responses.read_reply(responses.write_reply(ASKED, fold(events), STAMP)).choices == expected
    assert last_of(stream) == json.loads(responses.write_reply(ASKED, fold(events), STAMP))


def token(data: bytes, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> EventToken:
    return EventToken(id=-1, bytes=data, logprob=logprob, sampled_logprob=logprob, top=top)


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(WORDS, max_size=3), st.booleans())
def test_logprobs_are_those_of_the_text(texts: list[str], thoughts: list[str], called: bool) -> None:
    asked = Asked(chat=ChatRequest(messages=(user("hi"),), sampling=Sampling(logprobs=True, top_logprobs=1)))
    said = [token(text.encode(), -0.5, (TokenLogprob(-1, -0.25, b"\xff"),)) for text in texts]
    events: list[Event] = [
        ThinkingDelta(text=text, closed=at == len(thoughts) - 1, tokens=(token(text.encode(), -1.0),))
        for at, text in enumerate(thoughts)
    ]
    events += [TextDelta(text=text, tokens=(one,)) for text, one in zip(texts, said, strict=True)]
    if called:
        events.append(ToolCallDelta(index=0, id="c", name="f", arguments="{}", tokens=(token(b"[CALL]", -1.0),)))
    reason = FinishReason.TOOL_CALLS if called else FinishReason.END
    events += [Usage(thinking_tokens=len(thoughts)), Finish(reason=reason)]
    stream = written(responses.write_events(asked, STAMP), events, [])
    whole = responses.write_reply(asked, fold(events), STAMP)
    assert last_of(stream) == json.loads(whole)
    assert read(responses.read_events(), [stream]).choices[0].tokens == tuple(said)
    assert responses.read_reply(whole).choices[0].tokens == tuple(said)


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
            results = [ToolResult(call.id, draw(st.text(max_size=4))) for call in calls]
            messages.append(Message(Role.TOOL, tuple(results)))
    last = draw(st.sampled_from([None, assistant("so"), assistant(Thinking("hm", closed=False))]))
    if last is not None and messages[-1].role is Role.USER:
        messages.append(last)
    return tuple(messages)


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "max_tokens": st.integers(1, 99),
        "logprobs": st.just(True),
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


@given(st.data())
def test_what_is_asked_is_what_is_read(data: Any) -> None:
    settings = data.draw(SETTINGS)
    if "logprobs" in settings and data.draw(st.booleans()):
        settings["top_logprobs"] = data.draw(st.integers(0, 20))
    tooled = data.draw(st.booleans())
    chat = ChatRequest(
        messages=data.draw(conversations()),
        model="nano",
        tools=TOOLS if tooled else (),
        tool_choice=data.draw(CHOICES) if tooled else ToolChoice(),
        json_format=data.draw(st.sampled_from([None, JsonFormat(), JsonFormat({"type": "object"}, "n")])),
        sampling=Sampling(**settings),
        keep_thinking=data.draw(st.booleans()),
        effort=data.draw(st.sampled_from([None, *Effort])),
    )
    asked = Asked(
        chat=chat,
        given=frozenset(settings),
        stream=data.draw(st.booleans()),
        labels=data.draw(st.sampled_from([{}, {"user": "u", "k": "v"}])),
        echo=data.draw(st.sampled_from([{}, {"include": ["reasoning.encrypted_content"]}])),
    )
    once = responses.read_request(responses.write_request(asked))
    assert msgspec.structs.replace(once, echo={}) == msgspec.structs.replace(asked, echo={})
    assert responses.read_request(responses.write_request(once)) == once


KEYS = st.sampled_from(["type", "text", "role", "content", "summary", "arguments", "call_id", "output", "name", "id"])
KINDS = st.sampled_from(["message", "reasoning", "function_call", "function_call_output", "input_text", "user", "{}"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | KINDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
TOPS = st.sampled_from(["input", "instructions", "tools", "tool_choice", "reasoning", "text", "metadata", "include"])
ITEMS = st.lists(st.dictionaries(KEYS, VALUES, max_size=5), max_size=3)


@given(st.dictionaries(TOPS, VALUES), st.none() | ITEMS)
def test_no_body_surprises(fields: dict[str, Any], items: list[Any] | None) -> None:
    body: dict[str, Any] = {"model": "nano", **fields}
    if items is not None:
        body["input"] = items
    with suppress(BadRequest):
        responses.read_request(msgspec.json.encode(body))


@pytest.mark.parametrize("kind", list(Kind))
def test_a_fault_is_read_as_written(kind: Kind) -> None:
    fault = Fault(kind=kind, message="m", field="input[0]")
    answer = responses.write_error(fault, "r")
    assert responses.read_error(answer.status, answer.body) == fault
