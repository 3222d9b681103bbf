"""Chat Completions as equations: both directions cancel, and a stream is its whole reply, however it is cut."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.canned_streams import cut, read, written
from tests.wire.openai_worlds import (
    ANYTHING,
    CHOICES,
    FORMATS,
    TOOLS,
    carried,
    conversations,
    frames,
    streams,
    with_tokens,
)

from magister.types import (
    ChatRequest,
    Effort,
    Event,
    Finish,
    FinishReason,
    Reply,
    Sampling,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolChoice,
    Upstream,
    Usage,
    assistant,
    fold,
    user,
)
from magister.wire import openai_chat
from magister.wire.dialect import Asked, Stamp
from magister.wire.fault import BadRequest, Fault, Kind

STAMP = Stamp(id="0123456789abcdef" * 2, created=1, model="nano")
ASKED = Asked(chat=ChatRequest(messages=(user("hi"),)), stream=True)
LOGPROBS = Asked(chat=ChatRequest(messages=(user("hi"),), sampling=Sampling(logprobs=True, top_logprobs=2)))


def told(reply: Reply) -> Reply:
    """As `carried`; that a thought had ended before the limit came is not told in this dialect."""
    choices = []
    for choice in carried(reply).choices:
        parts = choice.message.parts
        if len(parts) == 1 and isinstance(parts[0], Thinking) and choice.finish is FinishReason.LENGTH:
            choice = msgspec.structs.replace(choice, message=assistant(Thinking(parts[0].text, closed=False)))
        choices.append(choice)
    return Reply(choices=tuple(choices))


@given(st.data(), streams())
def test_a_stream_is_its_whole_reply(data: Any, events: list[Event]) -> None:
    groups = data.draw(st.lists(st.integers(0, 5), max_size=8))
    stream = written(openai_chat.write_events(ASKED, STAMP), events, groups)
    expected = told(fold(events))
    assert read(openai_chat.read_events(), data.draw(cut(stream))) == expected
    assert openai_chat.read_reply(openai_chat.write_reply(ASKED, fold(events), STAMP)) == expected


@given(st.data())
def test_tokens_are_told_with_their_probabilities(data: Any) -> None:
    events = with_tokens(-1)
    groups = data.draw(st.lists(st.integers(0, 5), max_size=8))
    stream = written(openai_chat.write_events(LOGPROBS, STAMP), events, groups)
    expected = fold(events).choices[0].tokens
    assert read(openai_chat.read_events(), data.draw(cut(stream))).choices[0].tokens == expected
    whole = openai_chat.read_reply(openai_chat.write_reply(LOGPROBS, fold(events), STAMP))
    assert whole.choices[0].tokens == expected
    assert (
        read(openai_chat.read_events(), [written(openai_chat.write_events(ASKED, STAMP), events, [])]).choices[0].tokens
        == ()
    )


@given(st.lists(st.sampled_from(["thought", "text", "call"]), max_size=6), st.lists(st.integers(0, 3), max_size=5))
def test_no_thought_has_a_content_beside_it(kinds: list[str], groups: list[int]) -> None:
    events: list[Event] = [ThinkingDelta(text="h") if kind == "thought" else TextDelta(text="t") for kind in kinds]
    events.append(Finish(reason=FinishReason.END))
    for frame in frames(written(openai_chat.write_events(ASKED, STAMP), events, groups)):
        for choice in frame["choices"]:
            assert not ("reasoning" in choice["delta"] and "content" in choice["delta"])


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(0, 99),
        "min_p": st.floats(0, 1),
        "frequency_penalty": st.floats(-2, 2),
        "presence_penalty": st.floats(-2, 2),
        "logit_bias": st.dictionaries(st.integers(0, 99), st.floats(-100, 100), min_size=1, max_size=3),
        "seed": st.integers(0, 1 << 62),
        "n": st.integers(1, 128),
        "max_tokens": st.integers(1, 99),
        "stop": st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=16).map(tuple),
        "logprobs": st.just(True),
        "ignore_end": st.booleans(),
    },
)


@given(st.data())
def test_what_is_asked_is_what_is_read(data: Any) -> None:
    settings = data.draw(SETTINGS)
    if "logprobs" in settings and data.draw(st.booleans()):
        settings["top_logprobs"] = data.draw(st.integers(0, 20))
    effort = data.draw(st.sampled_from([None, *Effort]))
    if effort is None and data.draw(st.booleans()):
        settings["thinking_tokens"] = data.draw(st.integers(0, 99))
    tooled, streams = data.draw(st.booleans()), data.draw(st.booleans())
    chat = ChatRequest(
        messages=data.draw(conversations()),
        model="nano",
        tools=TOOLS if tooled else (),
        tool_choice=data.draw(CHOICES) if tooled else ToolChoice(),
        json_format=data.draw(FORMATS),
        sampling=Sampling(**settings),
        effort=effort,
    )
    asked = Asked(
        chat=chat,
        given=frozenset(settings),
        stream=streams,
        usage_at_end=data.draw(st.booleans()) if streams else True,
        show_thinking=True if "logprobs" in settings else data.draw(st.booleans()),
        labels=data.draw(
            st.sampled_from([{}, {"user": "u", "k": "v"}, {"safety_identifier": "s", "prompt_cache_key": "p"}])
        ),
    )
    assert openai_chat.read_request(openai_chat.write_request(asked)) == asked


@pytest.mark.parametrize("kind", Kind)
def test_every_error_has_its_status_and_is_read_as_written(kind: Kind) -> None:
    answer = openai_chat.write_error(Fault(kind=kind, message="m", field="f", retry_after=1.5), "r")
    assert 400 <= answer.status < 600
    assert openai_chat.read_error(answer.status, answer.body) == Fault(kind=kind, message="m", field="f")


@given(ANYTHING, ANYTHING)
def test_whatever_comes_is_taken_or_refused_in_words(messages: Any, more: Any) -> None:
    body = msgspec.json.encode({"model": "m", "messages": messages if isinstance(messages, list) else [messages]})
    for one in (
        body,
        msgspec.json.encode(more),
        msgspec.json.encode({"messages": [{"role": "user", "content": more}]}),
    ):
        with suppress(BadRequest):
            openai_chat.read_request(one)
    with suppress(Upstream):
        openai_chat.read_reply(msgspec.json.encode({"choices": [{"message": more, "finish_reason": "stop"}]}))
    reader = openai_chat.read_events()
    with suppress(Upstream):
        reader.feed(b"data: " + msgspec.json.encode({"choices": [{"delta": more}], "usage": messages}) + b"\n\n")
        reader.end()
    assert openai_chat.read_error(418, msgspec.json.encode(more)).message
    assert openai_chat.read_error(418, msgspec.json.encode({"error": more, "detail": more})).kind in Kind


@given(st.binary(max_size=40))
def test_bytes_that_are_nothing_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(BadRequest):
        openai_chat.read_request(data)
    with pytest.raises(Upstream):
        openai_chat.read_reply(data)
    openai_chat.read_error(500, data)


def test_the_cost_of_several_choices_is_told_once() -> None:
    events: list[Event] = []
    for choice in range(2):
        cost = Usage(prompt_tokens=3 * (1 - choice), cached_tokens=1 - choice, completion_tokens=5, choice=choice)
        events += [TextDelta(text="t", choice=choice), cost, Finish(reason=FinishReason.END, choice=choice)]
    last = frames(written(openai_chat.write_events(ASKED, STAMP), events, []))[-1]
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 10,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
