"""OpenAI's published Python client reads the Responses that are written, and what it writes is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai as sdk
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
    ToolResult,
    Usage,
    assistant,
    fold,
)
from magister.wire import openai_responses as responses
from magister.wire.dialect import Asked, Card, Stamp
from magister.wire.fault import BadRequest, Fault, Kind

KEY = b"key"
STAMP = Stamp(id="b" * 32, created=1, model="nano", signing_key=KEY)


def tokens(*said: str) -> tuple[EventToken, ...]:
    return tuple(EventToken(id=1, bytes=text.encode(), logprob=-0.5, sampled_logprob=-0.5) for text in said)


EVENTS: list[Event] = [
    ThinkingDelta(text="h", tokens=tokens("[THINK]", "h")),
    ThinkingDelta(text="m", closed=True, tokens=tokens("m", "[/THINK]")),
    TextDelta(text="so ", tokens=tokens("so ")),
    TextDelta(text="é", tokens=tokens("é")),
    ToolCallDelta(index=0, id="c1", name="f", tokens=tokens("[TOOL_CALLS]", "f", "[ARGS]")),
    ToolCallDelta(index=0, arguments='{"a": '),
    ToolCallDelta(index=0, arguments="1}"),
    Usage(prompt_tokens=9, cached_tokens=4, thinking_tokens=4, completion_tokens=9),
    Finish(reason=FinishReason.TOOL_CALLS),
]
TOOL: Any = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
SEALED: Any = "reasoning.encrypted_content"

Pair = tuple["Server", sdk.OpenAI]


class Server:
    """Answers every request with the same events, and keeps what was asked."""

    def __init__(self) -> None:
        self.events = EVENTS
        self.asked: list[Asked] = []

    def __call__(self, path: str, body: bytes) -> Sent:
        if path == "/v1/models":
            return Sent(responses.write_models([Card(name="nano", created=1, context=99)]))
        try:
            asked = responses.read_request(body, signing_key=KEY)
        except BadRequest as error:
            return self.refuse(error.fault)
        self.asked.append(asked)
        if asked.chat.model == "busy":
            return self.refuse(Fault(kind=Kind.BUSY, message="full", retry_after=0))
        if not asked.stream:
            return Sent(responses.write_reply(asked, fold(self.events), STAMP))
        writer = responses.write_events(asked, STAMP)
        stream = b"".join(writer.write([event]) + responses.KEEPALIVE for event in self.events) + writer.end()
        return Sent(stream, content_type=responses.STREAM_TYPE)

    def refuse(self, fault: Fault) -> Sent:
        answer = responses.write_error(fault, "req_1")
        return Sent(answer.body, answer.status, headers=answer.headers)


@pytest.fixture(scope="module")
def shared() -> Iterator[Pair]:
    server = Server()
    with serving(server) as url, sdk.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        yield server, client


@pytest.fixture
def pair(shared: Pair) -> Pair:
    shared[0].events, shared[0].asked = EVENTS, []
    return shared


def test_whole(pair: Pair) -> None:
    effort: Any = {"effort": "low", "summary": "auto"}
    include: Any = ["message.output_text.logprobs"]
    reply = pair[1].responses.create(model="nano", input="hi", tools=[TOOL], reasoning=effort, include=include)
    thinking, message, call = reply.output
    assert (thinking.type, message.type, call.type) == ("reasoning", "message", "function_call")
    assert (reply.output_text, reply.status) == ("so é", "completed")
    assert thinking.content is not None  # type: ignore[union-attr]
    assert thinking.content[0].text == thinking.summary[0].text == "hm"  # type: ignore[union-attr]
    assert [one.token for one in message.content[0].logprobs] == ["so ", "é"]  # type: ignore[index, union-attr]
    assert reply.usage is not None
    assert reply.usage.output_tokens_details.reasoning_tokens == 4
    assert pair[0].asked[-1].chat.effort is Effort.LOW


@pytest.mark.parametrize("without_text", [False, True])
def test_streamed_with_thought_call_and_result_replayed(pair: Pair, without_text: bool) -> None:
    server, client = pair
    with client.responses.stream(model="nano", input="hi", tools=[TOOL], include=[SEALED]) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        reply = stream.get_final_response()
    assert ("".join(deltas), reply.output_text) == ("so é", "so é")
    items: list[Any] = [{"role": "user", "content": "hi"}, *reply.output]
    if without_text:
        items[1] = items[1].model_dump(exclude={"content"}, exclude_unset=True)
    items.append({"type": "function_call_output", "call_id": "c1", "output": "42"})
    client.responses.create(model="nano", input=items, tools=[TOOL])
    replayed = server.asked[-1].chat.messages
    sealed = reply.output[0].encrypted_content  # type: ignore[union-attr]
    assert replayed[1] == assistant(Thinking("hm", signature=sealed), "so é", ToolCall("c1", "f", '{"a": 1}'))
    assert (replayed[2].role, replayed[2].parts) == (Role.TOOL, (ToolResult("c1", "42"),))


def test_the_raw_stream_in_order(pair: Pair) -> None:
    kinds = [event.type for event in pair[1].responses.create(model="nano", input="hi", stream=True)]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


def test_structured_output(pair: Pair) -> None:
    form: Any = {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}
    pair[1].responses.create(model="nano", input="hi", text=form)
    assert pair[0].asked[-1].chat.json_format == JsonFormat({"type": "object"}, "n")


def test_a_reply_cut_short(pair: Pair) -> None:
    pair[0].events = [TextDelta(text="x"), Finish(reason=FinishReason.LENGTH)]
    reply = pair[1].responses.create(model="nano", input="hi")
    assert reply.incomplete_details is not None
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_errors(pair: Pair) -> None:
    with pytest.raises(sdk.BadRequestError, match="send the items again") as caught:
        pair[1].responses.create(model="nano", input="hi", previous_response_id="r")
    assert caught.value.param == "previous_response_id"
    with pytest.raises(sdk.InternalServerError) as busy:
        pair[1].responses.create(model="busy", input="hi")
    assert busy.value.status_code == 503


def test_an_error_in_mid_stream(pair: Pair) -> None:
    pair[0].events = [TextDelta(text="x"), Finish(reason=FinishReason.ERROR, error="it broke")]
    events = list(pair[1].responses.create(model="nano", input="hi", stream=True))
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    assert events[-2].message == "it broke"  # type: ignore[union-attr]
    with pytest.raises(RuntimeError), pair[1].responses.stream(model="nano", input="hi") as stream:
        stream.get_final_response()


def test_models(pair: Pair) -> None:
    assert [model.id for model in pair[1].models.list()] == ["nano"]
