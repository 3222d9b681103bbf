"""Google's dialect as equations: both directions cancel, and a stream is its whole reply, however it is cut."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.canned_streams import ARGUMENTS, NAMES, WORDS, cut, dumps, one_choice, read, signed, written

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
    Thinking,
    ThinkingDelta,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
    Usage,
    assistant,
    fold,
    system,
    user,
)
from magister.wire import google
from magister.wire.dialect import Asked, Stamp
from magister.wire.fault import BadRequest
from magister.wire.signature import sign

STAMP = Stamp(id="0123456789abcdef" * 2, created=1, model="nano")
IMAGES = st.sampled_from([Image(data=b"\xff\xd8\xff1"), Image(data=b"GIF89a"), Image(url="https://example.org/a.png")])


def asking(choices: int) -> Asked:
    sampling = Sampling(n=choices)
    return Asked(chat=ChatRequest(messages=(user("hi"),), sampling=sampling), stream=True)


def carried(reply: Reply) -> Reply:
    """What Google's words carry: the cost of all choices together. Whole thoughts are signed."""
    reply = signed(reply, lambda text: sign(STAMP.signing_key, text))
    usages = [choice.usage for choice in reply.choices]
    total = Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
        thinking_tokens=sum(usage.thinking_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
    )
    first, *rest = reply.choices
    return Reply(
        choices=(
            msgspec.structs.replace(first, usage=total),
            *(msgspec.structs.replace(choice, usage=Usage()) for choice in rest),
        )
    )


@given(st.data(), st.integers(1, 2))
def test_a_stream_is_its_whole_reply(data: Any, choices: int) -> None:
    events: list[Event] = []
    for number in range(choices):
        events += data.draw(one_choice(number))
    asked, reply = asking(choices), fold(events)
    groups = data.draw(st.lists(st.integers(0, 5), max_size=8))
    stream = written(google.write_events(asked, STAMP), events, groups)
    pieces = data.draw(cut(stream))
    assert read(google.read_events(), pieces) == carried(reply)
    assert google.read_reply(google.write_reply(asked, reply, STAMP)) == carried(reply)


@st.composite
def conversations(draw: Any) -> tuple[Message, ...]:
    messages = [system(draw(WORDS))] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 3))):
        messages.append(user(draw(WORDS), *draw(st.lists(IMAGES, max_size=2)), draw(WORDS)))
        if not draw(st.booleans()):
            continue
        calls = [ToolCall(f"c{turn}{at}", draw(NAMES), dumps(draw(ARGUMENTS))) for at in range(draw(st.integers(0, 2)))]
        thought = [Thinking(draw(WORDS), signature=draw(st.sampled_from([None, "c2ln"])))]
        messages.append(assistant(*(thought if draw(st.booleans()) else []), draw(WORDS), *calls))
        if calls:
            results = [ToolResult(call.id, draw(st.text(max_size=4)), draw(st.booleans())) for call in calls]
            messages.append(Message(Role.TOOL, tuple(results)))
    return tuple(messages)


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(0, 99),
        "max_tokens": st.integers(1, 99),
        "stop": st.lists(WORDS, min_size=1, max_size=5).map(tuple),
        "n": st.integers(1, 8),
        "seed": st.integers(0, 99),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "logprobs": st.booleans(),
        "thinking_tokens": st.integers(1, 99),
    },
)
TOOLS = (Tool("f", {"type": "object", "properties": {"a_b": {"type": "string"}}}, "does f"), Tool("g", {"x_y": 1}))
CHOICES = st.sampled_from(
    [ToolChoice(), ToolChoice(ToolMode.NONE), ToolChoice(ToolMode.REQUIRED), ToolChoice(ToolMode.NAMED, "g")]
)


@given(st.data())
def test_what_is_asked_is_what_is_read(data: Any) -> None:
    settings = data.draw(SETTINGS)
    effort = None
    if "thinking_tokens" not in settings:
        effort = data.draw(st.sampled_from([None, Effort.NONE, Effort.MINIMAL, Effort.LOW, Effort.MEDIUM, Effort.HIGH]))
    schema = data.draw(st.sampled_from([None, JsonFormat(), JsonFormat({"type": "object", "a_b": {}})]))
    tooled = data.draw(st.booleans())
    chat = ChatRequest(
        messages=data.draw(conversations()),
        model="nano",
        tools=TOOLS if tooled else (),
        tool_choice=data.draw(CHOICES) if tooled else ToolChoice(),
        json_format=schema,
        sampling=Sampling(**settings),
        effort=effort,
    )
    asked = Asked(
        chat=chat,
        given=frozenset(settings),
        stream=data.draw(st.booleans()),
        show_thinking=data.draw(st.booleans()),
        labels=data.draw(st.sampled_from([{}, {"a_b": "x"}])),
    )
    assert google.read_request(google.write_request(asked), "nano", asked.stream) == asked


KEYS = st.sampled_from(["parts", "text", "role", "topK", "top_k", "functionDeclarations", "name", "parameters"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
TOPS = st.sampled_from(["contents", "tools", "generation_config", "toolConfig", "model"])


@given(st.dictionaries(TOPS, VALUES))
def test_no_body_surprises(body: dict[str, Any]) -> None:
    with suppress(BadRequest):
        google.read_request(msgspec.json.encode(body), "nano")


def test_a_thought_cut_short_stays_open() -> None:
    events: list[Event] = [ThinkingDelta(text="h"), Finish(reason=FinishReason.LENGTH)]
    stream = written(google.write_events(asking(1), STAMP), events, [1])
    assert read(google.read_events(), [stream]).choices == (
        Choice(message=assistant(Thinking("h", closed=False)), finish=FinishReason.LENGTH),
    )
