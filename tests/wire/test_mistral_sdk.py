"""Mistral's published Python client reads the chat that is written, and what it writes is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mistralai.client import Mistral
from mistralai.client import errors as sdk_errors
from mistralai.client import models as sdk
from tests.wire.loopback import Sent, serving

from magister.types import (
    Effort,
    Event,
    EventToken,
    Finish,
    FinishReason,
    JsonFormat,
    Message,
    Role,
    SystemPrompt,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolMode,
    ToolResult,
    Usage,
    assistant,
    fold,
)
from magister.wire import mistral
from magister.wire.dialect import Asked, Card, Stamp
from magister.wire.fault import BadRequest, Fault, Kind

STAMP = Stamp(id="b" * 32, created=1, model="nano")


def tokens(*said: str) -> tuple[EventToken, ...]:
    return tuple(EventToken(id=1, bytes=text.encode(), logprob=-0.5, sampled_logprob=-0.5) for text in said)


ANSWER: list[Event] = [
    ThinkingDelta(text="h", tokens=tokens("[THINK]", "h")),
    ThinkingDelta(text="m", closed=True, tokens=tokens("m", "[/THINK]")),
    TextDelta(text="so ", tokens=tokens("so ")),
    TextDelta(text="é", tokens=tokens("é")),
    Usage(prompt_tokens=9, cached_tokens=4, thinking_tokens=4, completion_tokens=6),
    Finish(reason=FinishReason.END),
]
CALLS: list[Event] = [
    ThinkingDelta(text="hm", closed=True),
    ToolCallDelta(index=0, id="D681PevKs", name="f"),
    ToolCallDelta(index=0, arguments='{"a": '),
    ToolCallDelta(index=0, arguments="1}"),
    Usage(prompt_tokens=9, thinking_tokens=3, completion_tokens=9),
    Finish(reason=FinishReason.TOOL_CALLS),
]
HI: list[Any] = [{"role": "user", "content": "hi"}]
TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

Pair = tuple["Server", Mistral]


class Server:
    """Answers every request with the same events, and keeps what was asked."""

    def __init__(self) -> None:
        self.events = ANSWER
        self.asked: list[Asked] = []

    def __call__(self, path: str, body: bytes) -> Sent:
        if path.startswith("/v1/models"):
            card = Card(name="nano", created=1, context=99, vision=True, aliases=("n",))
            return Sent(mistral.write_model(card) if path.endswith("nano") else mistral.write_models([card]))
        try:
            asked = mistral.read_request(body)
        except BadRequest as error:
            return self.refuse(error.fault)
        self.asked.append(asked)
        if asked.chat.model == "newer":
            return self.refuse(Fault(kind=Kind.UNKNOWN_FIELD, message="x: there is no such field", field="x"))
        if asked.chat.model == "busy":
            return self.refuse(Fault(kind=Kind.BUSY, message="full", retry_after=0))
        if not asked.stream:
            return Sent(mistral.write_reply(asked, fold(self.events), STAMP))
        writer = mistral.write_events(asked, STAMP)
        stream = b"".join(writer.write([event]) + mistral.KEEPALIVE for event in self.events) + writer.end()
        return Sent(stream, content_type=mistral.STREAM_TYPE)

    def refuse(self, fault: Fault) -> Sent:
        answer = mistral.write_error(fault, "req_1")
        return Sent(answer.body, answer.status, headers=answer.headers)


@pytest.fixture(scope="module")
def shared() -> Iterator[Pair]:
    server = Server()
    with serving(server) as url, Mistral(server_url=url, api_key="k") as client:
        yield server, client


@pytest.fixture
def pair(shared: Pair) -> Pair:
    shared[0].events, shared[0].asked = ANSWER, []
    return shared


def thought_of(chunk: object) -> str:
    assert isinstance(chunk, sdk.ThinkChunk)
    return "".join(one.text for one in chunk.thinking if isinstance(one, sdk.TextChunk))


def test_whole(pair: Pair) -> None:
    reply = pair[1].chat.complete(
        model="nano", messages=HI, prompt_mode="reasoning", reasoning_effort="high", random_seed=3, logprobs=True
    )
    (choice,) = reply.choices
    assert choice.message is not None
    content = choice.message.content
    assert isinstance(content, list)
    thinking, text = content
    assert isinstance(text, sdk.TextChunk)
    assert (thought_of(thinking), text.text, choice.finish_reason) == ("hm", "so é", "stop")
    assert isinstance(thinking, sdk.ThinkChunk)
    assert thinking.closed is True
    assert isinstance(choice.logprobs, sdk.ChatCompletionResponseChoiceLogprobs)
    assert [(one.token, one.token_id) for one in choice.logprobs.content][-1] == ("é", 1)
    assert reply.usage.total_tokens == 15
    asked = pair[0].asked[-1]
    assert (asked.chat.effort, asked.chat.sampling.seed, asked.given) == (
        Effort.HIGH,
        3,
        frozenset({"seed", "logprobs"}),
    )


def test_streamed(pair: Pair) -> None:
    thinking, text, costs = "", "", []
    with pair[1].chat.stream(model="nano", messages=HI) as stream:
        for event in stream:
            costs.append(event.data.usage)
            content = event.data.choices[0].delta.content
            for chunk in content if isinstance(content, list) else [sdk.TextChunk(text=content or "")]:
                if isinstance(chunk, sdk.TextChunk):
                    text += chunk.text
                else:
                    thinking += thought_of(chunk)
    assert (thinking, text) == ("hm", "so é")
    assert costs[:-1] == [None] * (len(costs) - 1)
    assert costs[-1] is not None
    assert costs[-1].total_tokens == 15


def test_a_call_answered_with_the_thought_replayed(pair: Pair) -> None:
    server, client = pair
    server.events = CALLS
    reply = client.chat.complete(model="nano", messages=HI, tools=[TOOL], tool_choice="any")
    said = reply.choices[0].message
    assert said is not None
    assert isinstance(said.tool_calls, list)
    (call,) = said.tool_calls
    assert (call.id, call.function.name, call.function.arguments) == ("D681PevKs", "f", '{"a": 1}')
    result: Any = {"role": "tool", "name": "f", "tool_call_id": call.id, "content": "42"}
    client.chat.complete(model="nano", messages=[*HI, said, result], tools=[TOOL])
    assert server.asked[0].chat.tool_choice == ToolChoice(ToolMode.REQUIRED)
    assert server.asked[1].chat.messages[1:] == (
        assistant(Thinking("hm"), ToolCall("D681PevKs", "f", '{"a": 1}')),
        Message(Role.TOOL, (ToolResult("D681PevKs", "42"),)),
    )


def test_a_call_streamed_comes_whole(pair: Pair) -> None:
    pair[0].events = CALLS
    with pair[1].chat.stream(model="nano", messages=HI, tools=[TOOL]) as stream:
        choices = [event.data.choices[0] for event in stream]
    (calls,) = [choice.delta.tool_calls for choice in choices if choice.delta.tool_calls]
    assert isinstance(calls, list)
    assert [(call.id, call.function.arguments) for call in calls] == [("D681PevKs", '{"a": 1}')]
    assert choices[-1].finish_reason == "tool_calls"


def test_a_prefix(pair: Pair) -> None:
    messages: list[Any] = [*HI, {"role": "assistant", "content": "Well, ", "prefix": True}]
    pair[0].events = [TextDelta(text="so"), Finish(reason=FinishReason.END)]
    reply = pair[1].chat.complete(model="nano", messages=messages)
    assert reply.choices[0].message is not None
    assert reply.choices[0].message.content == "Well, so"
    assert pair[0].asked[-1].chat.messages[1] == assistant("Well, ")


def test_structured_output(pair: Pair) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}
    pair[1].chat.complete(model="nano", messages=HI, response_format=form, prompt_mode=None)
    assert pair[0].asked[-1].chat.json_format == JsonFormat({"type": "object"}, "n")
    assert pair[0].asked[-1].chat.system_prompt is SystemPrompt.REPLACE


def test_errors(pair: Pair) -> None:
    with pytest.raises(sdk_errors.SDKError, match="temperature: must be from 0 to 1") as caught:
        pair[1].chat.complete(model="nano", messages=HI, temperature=3)
    assert caught.value.status_code == 400
    with pytest.raises(sdk_errors.SDKError) as busy:
        pair[1].chat.complete(model="busy", messages=HI)
    assert busy.value.status_code == 503
    with pytest.raises(sdk_errors.HTTPValidationError) as unknown:
        pair[1].chat.complete(model="newer", messages=HI)
    assert [(one.type, one.loc) for one in unknown.value.data.detail or ()] == [("extra_forbidden", ["body", "x"])]


def test_an_error_in_mid_stream_does_not_pass_for_an_end(pair: Pair) -> None:
    """The client knows no error in a stream: what it makes of one says the frame, and names what was said in it."""
    pair[0].events = [TextDelta(text="x"), Finish(reason=FinishReason.ERROR, error="it broke")]
    heard: list[Any] = []
    with pair[1].chat.stream(model="nano", messages=HI) as stream, pytest.raises(sdk_errors.MistralError) as caught:
        heard.extend(stream)
    assert [event.data.choices[0].delta.content for event in heard] == ["", "x"]
    assert "it broke" in caught.value.body


def test_models(pair: Pair) -> None:
    cards = pair[1].models.list().data
    assert cards is not None
    (card,) = cards
    assert isinstance(card, sdk.BaseModelCard)
    assert (card.id, card.max_context_length, card.aliases) == ("nano", 99, ["n"])
    assert (card.capabilities.reasoning, card.capabilities.vision) == (True, True)
    one = pair[1].models.retrieve(model_id="nano")
    assert isinstance(one, sdk.BaseModelCard)
    assert one == card
