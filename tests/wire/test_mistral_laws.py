"""Mistral's chat as equations: both directions cancel, and a stream is its whole reply, however it is cut."""

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
    Message,
    Reply,
    Sampling,
    SystemPrompt,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCallDelta,
    ToolChoice,
    Upstream,
    assistant,
    fold,
    user,
)
from magister.wire import mistral
from magister.wire.dialect import Asked, Stamp
from magister.wire.fault import BadRequest, Fault, Kind

STAMP = Stamp(id="0123456789abcdef" * 2, created=1, model="nano")


def asked(*messages: Message, **sampling: Any) -> Asked:
    return Asked(chat=ChatRequest(messages=(user("hi"), *messages), sampling=Sampling(**sampling)), stream=True)


def told(reply: Reply) -> Reply:
    """As `carried`; how many tokens of a reply were thought is not told in this dialect."""
    return Reply(
        choices=tuple(
            msgspec.structs.replace(choice, usage=msgspec.structs.replace(choice.usage, thinking_tokens=0))
            for choice in carried(reply).choices
        )
    )


@given(st.data(), streams())
def test_a_stream_is_its_whole_reply(data: Any, events: list[Event]) -> None:
    groups = data.draw(st.lists(st.integers(0, 5), max_size=8))
    request = asked(n=len({event.choice for event in events}))
    stream = written(mistral.write_events(request, STAMP), events, groups)
    assert read(mistral.read_events(), data.draw(cut(stream))) == told(fold(events))
    assert mistral.read_reply(mistral.write_reply(request, fold(events), STAMP)) == told(fold(events))


@given(st.data(), streams())
def test_the_cost_rides_on_the_last_end(data: Any, events: list[Event]) -> None:
    request = asked(n=len({event.choice for event in events}))
    groups = data.draw(st.lists(st.integers(0, 5), max_size=8))
    said = frames(written(mistral.write_events(request, STAMP), events, groups))
    assert ["usage" in frame for frame in said] == [False] * (len(said) - 1) + [True]
    assert said[-1]["choices"][0]["finish_reason"]


PREFIXES = st.sampled_from(
    [
        assistant("so"),
        assistant(Thinking("hm"), "so"),
        assistant(Thinking("hm")),
        assistant(Thinking("hm", closed=False)),
        assistant(Thinking("", closed=False)),
    ]
)


@given(st.data(), PREFIXES, st.lists(st.sampled_from(["a", "b"]), max_size=3))
def test_a_reply_begins_with_its_prefix(data: Any, prefix: Message, texts: list[str]) -> None:
    thinks = not prefix.text and not all(part.closed for part in prefix.parts if isinstance(part, Thinking))
    events: list[Event] = [ThinkingDelta(text="x"), ThinkingDelta(text="y", closed=True)] if thinks else []
    events += [TextDelta(text=text) for text in texts]
    events.append(Finish(reason=FinishReason.LENGTH))
    groups = data.draw(st.lists(st.integers(0, 2), max_size=4))
    expected = assistant(
        *([Thinking(prefix.thinking + ("xy" if thinks else ""))] if prefix.thinking or thinks else []),
        *([text] if (text := prefix.text + "".join(texts)) else []),
    )
    stream = written(mistral.write_events(asked(prefix), STAMP), events, groups)
    assert read(mistral.read_events(), [stream]).message == expected
    assert mistral.read_reply(mistral.write_reply(asked(prefix), fold(events), STAMP)).message == expected


@given(st.data(), st.booleans(), st.sampled_from([FinishReason.LENGTH, FinishReason.REPETITION]))
def test_a_thought_cut_short_stays_open(data: Any, closed: bool, reason: FinishReason) -> None:
    events: list[Event] = [ThinkingDelta(text="h"), ThinkingDelta(text="m", closed=closed), Finish(reason=reason)]
    expected = assistant(Thinking("hm", closed=closed))
    stream = written(mistral.write_events(asked(), STAMP), events, data.draw(st.lists(st.integers(0, 2), max_size=4)))
    assert read(mistral.read_events(), [stream]).message == expected
    assert mistral.read_reply(mistral.write_reply(asked(), fold(events), STAMP)).message == expected


@given(st.data())
def test_tokens_are_told_with_their_ids_and_probabilities(data: Any) -> None:
    events, request = with_tokens(7), asked(logprobs=True, top_logprobs=2)
    expected = fold(events).choices[0].tokens
    groups = data.draw(st.lists(st.integers(0, 5), max_size=8))
    stream = written(mistral.write_events(request, STAMP), events, groups)
    assert read(mistral.read_events(), data.draw(cut(stream))).choices[0].tokens == expected
    assert mistral.read_reply(mistral.write_reply(request, fold(events), STAMP)).choices[0].tokens == expected
    assert (
        read(mistral.read_events(), [written(mistral.write_events(asked(), STAMP), events, [])]).choices[0].tokens == ()
    )


@given(st.lists(st.text(max_size=12), min_size=1, max_size=3))
def test_ids_of_calls_are_nine_letters_and_digits(ids: list[str]) -> None:
    events: list[Event] = [ToolCallDelta(index=at, id=id_, name="f", arguments="{}") for at, id_ in enumerate(ids)]
    events.append(Finish(reason=FinishReason.TOOL_CALLS))
    calls = read(mistral.read_events(), [written(mistral.write_events(asked(), STAMP), events, [])]).message.tool_calls
    assert calls == mistral.read_reply(mistral.write_reply(asked(), fold(events), STAMP)).message.tool_calls
    assert all(len(call.id) == 9 and call.id.isascii() and call.id.isalnum() for call in calls)


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 1.5),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(0, 99),
        "frequency_penalty": st.floats(-2, 2),
        "presence_penalty": st.floats(-2, 2),
        "seed": st.integers(0, 1 << 62),
        "n": st.integers(1, 128),
        "max_tokens": st.integers(1, 99),
        "stop": st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=16).map(tuple),
        "logprobs": st.just(True),
    },
)


@given(st.data(), st.booleans())
def test_what_is_asked_is_what_is_read(data: Any, tooled: bool) -> None:
    settings = data.draw(SETTINGS)
    if "logprobs" in settings and data.draw(st.booleans()):
        settings["top_logprobs"] = data.draw(st.integers(0, 20))
    chat = ChatRequest(
        messages=data.draw(conversations()),
        model="nano",
        tools=TOOLS if tooled else (),
        tool_choice=data.draw(CHOICES) if tooled else ToolChoice(),
        json_format=data.draw(FORMATS),
        sampling=Sampling(**settings),
        system_prompt=data.draw(st.sampled_from(SystemPrompt)),
        effort=data.draw(st.sampled_from([None, *Effort])),
    )
    once = Asked(
        chat=chat,
        given=frozenset(settings),
        stream=data.draw(st.booleans()),
        labels=data.draw(st.sampled_from([{}, {"k": "v"}, {"prompt_cache_key": "p"}])),
    )
    assert mistral.read_request(mistral.write_request(once)) == once


@pytest.mark.parametrize("kind", Kind)
def test_every_error_has_its_status_and_is_read_as_written(kind: Kind) -> None:
    fault = Fault(kind=kind, message="m", field="messages[0].x", retry_after=1.5)
    answer = mistral.write_error(fault, "r")
    heard = mistral.read_error(answer.status, answer.body)
    assert 400 <= answer.status < 600
    assert (heard.kind, heard.field) == (kind, "messages[0].x")
    assert heard.message == ("Extra inputs are not permitted" if kind is Kind.UNKNOWN_FIELD else "m")


@given(ANYTHING, ANYTHING)
def test_whatever_comes_is_taken_or_refused_in_words(messages: Any, more: Any) -> None:
    body = msgspec.json.encode({"model": "m", "messages": messages if isinstance(messages, list) else [messages]})
    last = {"messages": [{"role": "assistant", "content": more, "prefix": True}], "model": "m"}
    for one in (body, msgspec.json.encode(more), msgspec.json.encode(last)):
        with suppress(BadRequest):
            mistral.read_request(one)
    with suppress(Upstream):
        mistral.read_reply(msgspec.json.encode({"choices": [{"message": {"content": more}, "finish_reason": "stop"}]}))
    reader = mistral.read_events()
    with suppress(Upstream):
        reader.feed(b"data: " + msgspec.json.encode({"choices": [{"delta": {"content": more}}]}) + b"\n\n")
        reader.end()
    assert mistral.read_error(418, msgspec.json.encode(more)).message
    for key in ("detail", "error", "message", "code"):
        assert mistral.read_error(418, msgspec.json.encode({key: more})).kind in Kind
    assert mistral.read_error(422, msgspec.json.encode({"detail": [{"loc": more, "msg": more}]})).kind is Kind.INVALID
