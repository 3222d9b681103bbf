"""Requests and streams for hypothesis, in the parts that Chat Completions and Mistral's chat both carry."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import strategies as st
from tests.wire.canned_streams import ARGUMENTS, NAMES, WORDS, dumps, one_choice

from magister.types import (
    Event,
    EventToken,
    Finish,
    FinishReason,
    Image,
    JsonFormat,
    Message,
    Reply,
    Role,
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
    system,
    user,
)

IMAGES = st.sampled_from([Image(data=b"\xff\xd8\xff1"), Image(data=b"GIF89a"), Image(url="https://example.org/a.png")])
FORMATS = st.sampled_from([None, JsonFormat(), JsonFormat({"type": "object"}, "n")])
TOOLS = (Tool("f", {"type": "object", "properties": {"a": {"type": "string"}}}, "does f"), Tool("g", {}))
CHOICES = st.sampled_from(
    [
        ToolChoice(),
        ToolChoice(parallel=False),
        ToolChoice(ToolMode.NONE),
        ToolChoice(ToolMode.REQUIRED),
        ToolChoice(ToolMode.NAMED, "g", parallel=False),
    ]
)


@st.composite
def conversations(draw: Any) -> tuple[Message, ...]:
    """Turns in their normal form, some with images, calls and results; the last may be one to go on with."""
    thoughts = st.builds(Thinking, WORDS, signature=st.sampled_from([None, "c2ln"]))
    messages = []
    if draw(st.booleans()):
        messages.append(system(draw(WORDS), *draw(st.lists(st.one_of(thoughts, WORDS), max_size=2))))
    for turn in range(draw(st.integers(1, 3))):
        messages.append(user(*draw(st.lists(st.one_of(WORDS, IMAGES), min_size=1, max_size=3))))
        if not draw(st.booleans()):
            continue
        calls = [ToolCall(f"c{turn}{at}", draw(NAMES), dumps(draw(ARGUMENTS))) for at in range(draw(st.integers(0, 2)))]
        thought = [draw(thoughts)] if draw(st.booleans()) else []
        messages.append(assistant(*thought, draw(WORDS), *calls))
        messages += [Message(Role.TOOL, (ToolResult(call.id, draw(st.text(max_size=4))),)) for call in calls]
        messages.append(user("so"))
    last = draw(st.sampled_from([None, assistant("so"), assistant(Thinking("hm", closed=False))]))
    return tuple(messages if last is None else [*messages, last])


@st.composite
def streams(draw: Any) -> list[Event]:
    """One or two choices, their events mixed; ids of calls as Mistral's formats have them."""
    choices: list[list[Event]] = [draw(one_choice(number)) for number in range(draw(st.integers(1, 2)))]
    events: list[Event] = []
    while any(choices):
        events.append(draw(st.sampled_from([one for one in choices if one])).pop(0))
    return [
        msgspec.structs.replace(one, id=one.id.ljust(9, "0")) if isinstance(one, ToolCallDelta) and one.id else one
        for one in events
    ]


def total(reply: Reply) -> Usage:
    """What all choices cost, without what took how long."""
    costs = [choice.usage for choice in reply.choices]
    return Usage(
        prompt_tokens=sum(one.prompt_tokens for one in costs),
        cached_tokens=sum(one.cached_tokens for one in costs),
        thinking_tokens=sum(one.thinking_tokens for one in costs),
        completion_tokens=sum(one.completion_tokens for one in costs),
    )


def carried(reply: Reply) -> Reply:
    """What these dialects carry: a cut loop is an end too early, and the cost is that of all choices."""
    costs = [total(reply), *(Usage(choice=number) for number in range(1, len(reply.choices)))]
    return Reply(
        choices=tuple(
            msgspec.structs.replace(
                choice,
                finish=FinishReason.LENGTH if choice.finish is FinishReason.REPETITION else choice.finish,
                usage=cost,
            )
            for choice, cost in zip(reply.choices, costs, strict=True)
        )
    )


def token(id_: int, data: bytes, logprob: float, *top: TokenLogprob) -> EventToken:
    """A token of which everything that is told is known."""
    return EventToken(id=id_, bytes=data, logprob=logprob, sampled_logprob=logprob, top=top)


def with_tokens(id_: int) -> list[Event]:
    """A stream of every kind of delta, with tokens cut within a character."""
    other = TokenLogprob(id_, -0.25, b"\xff")
    return [
        ThinkingDelta(text="h", tokens=(token(id_, b"[THINK]", -1.0), token(id_, b"h", -0.5, other))),
        ThinkingDelta(text="", closed=True, tokens=(token(id_, b"[/THINK]", -1.0),)),
        TextDelta(text="", tokens=(token(id_, b"\xc3", -0.5),)),
        TextDelta(text="é", tokens=(token(id_, b"\xa9", -0.5, other, other),)),
        ToolCallDelta(index=0, id="abcdefghi", name="f", tokens=(token(id_, b"[TOOL_CALLS]", -1.0),)),
        ToolCallDelta(index=0, arguments="{}", tokens=(token(id_, b"{}", -1.0),)),
        Usage(completion_tokens=7),
        Finish(reason=FinishReason.TOOL_CALLS),
    ]


def frames(stream: bytes) -> list[Any]:
    """The frames of a stream that has come to its end."""
    *said, done, rest = stream.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(frame.removeprefix("data: ")) for frame in said]


KEYS = st.sampled_from(
    [
        "type",
        "text",
        "role",
        "content",
        "thinking",
        "tool_calls",
        "function",
        "image_url",
        "url",
        "index",
        "delta",
        "name",
    ]
)
KINDS = st.sampled_from(["text", "image_url", "thinking", "user", "assistant", "tool", "function", "{}", "stop"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3) | KINDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
