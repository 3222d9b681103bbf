"""OpenAI's published Python client reads the Chat Completions and Completions that are written, and is read itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai as sdk
import pydantic
import pytest
from tests.wire.loopback import Sent, serving

from magister.types import (
    Effort,
    Event,
    EventToken,
    Finish,
    FinishReason,
    JsonFormat,
    Role,
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
from magister.wire import openai_chat, openai_completions
from magister.wire.dialect import Asked, Card, Stamp
from magister.wire.fault import BadRequest, Fault, Kind
from magister.wire.openai_completions import CompletionAsked, Piece

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
    ToolCallDelta(index=0, id="c1", name="f"),
    ToolCallDelta(index=0, arguments='{"a": '),
    ToolCallDelta(index=0, arguments="1}"),
    ToolCallDelta(index=1, id="c2", name="f", arguments='{"a": 2}'),
    Usage(prompt_tokens=9, thinking_tokens=3, completion_tokens=9),
    Finish(reason=FinishReason.TOOL_CALLS),
]
PIECES = [
    Piece(
        choice=0, text="a", ids=(7,), tokens=("a",), logprobs=(-0.5,), top=({"a": -0.5, "b": -1.0},), prompt_ids=(1, 2)
    ),
    Piece(choice=1, text="c", ids=(9,), tokens=("c",), logprobs=(-0.5,), top=(None,), prompt_ids=(3,)),
    Piece(choice=0, text="b", ids=(8,), tokens=("b",), logprobs=(None,), top=(None,), finish=FinishReason.END),
    Piece(choice=1, finish=FinishReason.LENGTH),
]
COSTS = [Usage(prompt_tokens=2, completion_tokens=2), Usage(prompt_tokens=1, completion_tokens=1, choice=1)]
HI: list[Any] = [{"role": "user", "content": "hi"}]
TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

Pair = tuple["Server", sdk.OpenAI]


class Server:
    """Answers every request with the same events, and keeps what was asked."""

    def __init__(self) -> None:
        self.events = ANSWER
        self.asked: list[Asked] = []
        self.completions: list[CompletionAsked] = []

    def __call__(self, path: str, body: bytes) -> Sent:
        if path.startswith("/v1/models"):
            card = Card(name="nano", created=1, context=99)
            return Sent(openai_chat.write_model(card) if path.endswith("nano") else openai_chat.write_models([card]))
        try:
            return self.complete(body) if path == "/v1/completions" else self.chat(body)
        except BadRequest as error:
            return self.refuse(error.fault)

    def chat(self, body: bytes) -> Sent:
        asked = openai_chat.read_request(body)
        self.asked.append(asked)
        if asked.chat.model == "busy":
            return self.refuse(Fault(kind=Kind.BUSY, message="full", retry_after=0))
        if not asked.stream:
            return Sent(openai_chat.write_reply(asked, fold(self.events), STAMP))
        writer = openai_chat.write_events(asked, STAMP)
        stream = b"".join(writer.write([event]) + openai_chat.KEEPALIVE for event in self.events) + writer.end()
        return Sent(stream, content_type=openai_chat.STREAM_TYPE)

    def complete(self, body: bytes) -> Sent:
        asked = openai_completions.read_request(body)
        self.completions.append(asked)
        writer = openai_completions.Writer(asked, STAMP)
        if not asked.stream:
            return Sent(writer.reply(PIECES, COSTS))
        return Sent(writer.write(PIECES) + writer.end(COSTS), content_type=openai_completions.STREAM_TYPE)

    def refuse(self, fault: Fault) -> Sent:
        answer = openai_chat.write_error(fault, "req_1")
        return Sent(answer.body, answer.status, headers=answer.headers)


@pytest.fixture(scope="module")
def shared() -> Iterator[Pair]:
    server = Server()
    with serving(server) as url, sdk.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        yield server, client


@pytest.fixture
def pair(shared: Pair) -> Pair:
    shared[0].events, shared[0].asked, shared[0].completions = ANSWER, [], []
    return shared


def test_whole(pair: Pair) -> None:
    reply = pair[1].chat.completions.create(
        model="nano", messages=HI, reasoning_effort="low", logprobs=True, top_logprobs=1, extra_body={"top_k": 5}
    )
    message, extra = reply.choices[0].message, reply.choices[0].message.model_extra
    assert (message.content, message.tool_calls, reply.choices[0].finish_reason) == ("so é", None, "stop")
    assert extra == {"reasoning": "hm", "reasoning_content": "hm"}
    assert reply.choices[0].logprobs is not None
    assert [one.token for one in reply.choices[0].logprobs.content or ()][-2:] == ["so ", "é"]
    assert reply.usage is not None
    assert reply.usage.completion_tokens_details is not None
    assert reply.usage.completion_tokens_details.reasoning_tokens == 4
    asked = pair[0].asked[-1]
    assert (asked.chat.effort, asked.chat.sampling.top_k) == (Effort.LOW, 5)


def test_two_turns_with_the_thought_replayed(pair: Pair) -> None:
    server, client = pair
    reply = client.chat.completions.create(model="nano", messages=HI)
    said: Any = reply.choices[0].message
    client.chat.completions.create(model="nano", messages=[*HI, said, *HI])
    client.chat.completions.create(model="nano", messages=[*HI, said.model_dump(), *HI])
    assert [asked.chat.messages[1] for asked in server.asked[1:]] == [assistant(Thinking("hm"), "so é")] * 2


def test_streamed(pair: Pair) -> None:
    options: Any = {"include_usage": True}
    chunks = list(pair[1].chat.completions.create(model="nano", messages=HI, stream=True, stream_options=options))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "so é"
    assert "".join((delta.model_extra or {}).get("reasoning", "") for delta in deltas) == "hm"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 15


def test_a_call_streamed_accumulated_and_answered(pair: Pair) -> None:
    server, client = pair
    server.events = CALLS
    with client.chat.completions.stream(model="nano", messages=HI, tools=[TOOL], tool_choice="required") as stream:
        kinds = {event.type for event in stream}
        reply = stream.get_final_completion()
    said: Any = reply.choices[0].message
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    assert [(call.id, call.function.arguments) for call in said.tool_calls] == [("c1", '{"a": 1}'), ("c2", '{"a": 2}')]
    assert said.model_extra == {"reasoning": "hm", "reasoning_content": "hm"}
    results: Any = [{"role": "tool", "tool_call_id": call.id, "content": "42"} for call in said.tool_calls]
    client.chat.completions.create(model="nano", messages=[*HI, said, *results], tools=[TOOL])
    asked = server.asked[-1].chat.messages
    calls = (ToolCall("c1", "f", '{"a": 1}'), ToolCall("c2", "f", '{"a": 2}'))
    assert asked[1] == assistant(Thinking("hm"), *calls)
    assert [(one.role, one.parts) for one in asked[2:]] == [(Role.TOOL, (ToolResult(c.id, "42"),)) for c in calls]
    assert server.asked[0].chat.tool_choice == ToolChoice(ToolMode.REQUIRED)


class Shape(pydantic.BaseModel):
    a: int


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the SDK's own, of a parsed message sent again
def test_structured_output(pair: Pair) -> None:
    pair[0].events = [TextDelta(text='{"a": 1}'), Finish(reason=FinishReason.END)]
    reply = pair[1].chat.completions.parse(model="nano", messages=HI, response_format=Shape)
    assert reply.choices[0].message.parsed == Shape(a=1)
    form = pair[0].asked[-1].chat.json_format
    assert isinstance(form, JsonFormat)
    assert form.schema is not None
    assert form.schema["required"] == ["a"]
    said: Any = reply.choices[0].message
    pair[1].chat.completions.create(model="nano", messages=[*HI, said, *HI])
    assert pair[0].asked[-1].chat.messages[1] == assistant('{"a": 1}')


def test_errors(pair: Pair) -> None:
    with pytest.raises(sdk.BadRequestError, match="temperature: must be from 0 to 2, got 3") as caught:
        pair[1].chat.completions.create(model="nano", messages=HI, temperature=3)
    assert caught.value.param == "temperature"
    with pytest.raises(sdk.BadRequestError) as unknown:
        pair[1].chat.completions.create(model="nano", messages=HI, extra_body={"thinking_budget": 5})
    assert (unknown.value.code, unknown.value.param) == ("unknown_parameter", "thinking_budget")
    with pytest.raises(sdk.InternalServerError) as busy:
        pair[1].chat.completions.create(model="busy", messages=HI)
    assert busy.value.status_code == 503


def test_an_error_in_mid_stream(pair: Pair) -> None:
    pair[0].events = [TextDelta(text="x"), Finish(reason=FinishReason.ERROR, error="it broke")]
    heard: list[Any] = []
    with pytest.raises(sdk.APIError, match="it broke"):
        heard.extend(pair[1].chat.completions.create(model="nano", messages=HI, stream=True))
    assert [chunk.choices[0].delta.content for chunk in heard] == ["", "x"]


def test_models(pair: Pair) -> None:
    assert [model.id for model in pair[1].models.list()] == ["nano"]
    assert pair[1].models.retrieve("nano").owned_by == "magister"


def test_completions_whole(pair: Pair) -> None:
    extra = {"return_token_ids": True}
    reply = pair[1].completions.create(model="nano", prompt=[[1, 2], [3]], logprobs=2, echo=True, extra_body=extra)
    assert [choice.text for choice in reply.choices] == ["ab", "c"]
    assert [choice.finish_reason for choice in reply.choices] == ["stop", "length"]
    assert reply.choices[0].model_extra == {"token_ids": [7, 8], "prompt_token_ids": [1, 2]}
    told = reply.choices[0].logprobs
    assert told is not None
    assert (told.tokens, told.text_offset, told.token_logprobs) == (["a", "b"], [0, 1], [-0.5, None])
    assert reply.usage is not None
    assert reply.usage.total_tokens == 6
    asked = pair[0].completions[-1]
    assert (asked.prompts, asked.echo, asked.sampling.top_logprobs) == (((1, 2), (3,)), True, 2)


def test_completions_streamed(pair: Pair) -> None:
    chunks = list(
        pair[1].completions.create(model="nano", prompt="hi", stream=True, stream_options={"include_usage": True})
    )
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "acb"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 6
    with pytest.raises(sdk.BadRequestError) as caught:
        pair[1].completions.create(model="nano", prompt="hi", suffix="x")
    assert caught.value.param == "suffix"
