"""Anthropic's published Python client reads what is written, and what it writes is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic as sdk
import pytest
from tests.wire.loopback import Sent, serving

from magister.types import (
    Event,
    Finish,
    FinishReason,
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
    user,
)
from magister.wire import anthropic
from magister.wire.dialect import Asked, Card, Stamp
from magister.wire.fault import BadRequest, Fault, Kind

KEY = b"key"
STAMP = Stamp(id="b" * 32, created=1, model="nano", signing_key=KEY)
EVENTS: list[Event] = [
    ThinkingDelta(text="h"),
    ThinkingDelta(text="m", closed=True),
    TextDelta(text="so "),
    TextDelta(text="é"),
    ToolCallDelta(index=0, id="c1", name="f"),
    ToolCallDelta(index=0, arguments='{"a": '),
    ToolCallDelta(index=0, arguments="1}"),
    Usage(prompt_tokens=9, cached_tokens=4, thinking_tokens=3, completion_tokens=7),
    Finish(reason=FinishReason.TOOL_CALLS),
]
TOOL: Any = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
SAID: Any = [{"role": "user", "content": "hi"}]


class Server:
    """Answers every request with the same events, and keeps what was asked."""

    def __init__(self) -> None:
        self.events = EVENTS
        self.asked: list[Asked] = []

    def __call__(self, path: str, body: bytes) -> Sent:
        if path.startswith("/v1/models/"):
            return Sent(anthropic.write_model(Card(name="nano", created=1, context=99)))
        if path.startswith("/v1/models"):
            return Sent(anthropic.write_models([Card(name="nano", created=1, context=99)]))
        try:
            if path == "/v1/messages/count_tokens":
                self.asked.append(anthropic.read_count_request(body, signing_key=KEY))
                return Sent(anthropic.write_count(7))
            asked = anthropic.read_request(body, signing_key=KEY)
        except BadRequest as error:
            return self.refuse(error.fault)
        self.asked.append(asked)
        if asked.chat.model == "busy":
            return self.refuse(Fault(kind=Kind.BUSY, message="full", retry_after=0))
        if not asked.stream:
            return Sent(anthropic.write_reply(asked, fold(self.events), STAMP))
        writer = anthropic.write_events(asked, STAMP)
        stream = b"".join(writer.write([event]) + anthropic.KEEPALIVE for event in self.events) + writer.end()
        return Sent(stream, content_type=anthropic.STREAM_TYPE)

    def refuse(self, fault: Fault) -> Sent:
        answer = anthropic.write_error(fault, "req_1")
        return Sent(answer.body, answer.status, headers=answer.headers)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Server, sdk.Anthropic]]:
    server = Server()
    with serving(server) as url, sdk.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
        yield server, client


@pytest.fixture
def pair(shared: tuple[Server, sdk.Anthropic]) -> tuple[Server, sdk.Anthropic]:
    shared[0].events, shared[0].asked = EVENTS, []
    return shared


def test_whole(pair: tuple[Server, sdk.Anthropic]) -> None:
    message = pair[1].messages.create(model="nano", max_tokens=99, messages=SAID, tools=[TOOL])
    thinking, text, call = message.content
    assert (thinking.type, text.type, call.type) == ("thinking", "text", "tool_use")
    assert (message.stop_reason, call.input, text.text) == ("tool_use", {"a": 1}, "so é")  # type: ignore[union-attr]
    assert message.usage.output_tokens_details is not None
    assert message.usage.output_tokens_details.thinking_tokens == 3


@pytest.mark.parametrize("display", ["summarized", "omitted"])
def test_streamed_with_thought_call_and_result_replayed(pair: tuple[Server, sdk.Anthropic], display: Any) -> None:
    server, client = pair
    thinking: Any = {"type": "enabled", "budget_tokens": 1024, "display": display}
    ask: Any = {"model": "nano", "max_tokens": 2000, "tools": [TOOL], "thinking": thinking}
    with client.messages.stream(messages=SAID, **ask) as stream:
        assert "".join(stream.text_stream) == "so é"
        message = stream.get_final_message()
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (5, 4)
    assert message.content[-1].input == {"a": 1}  # type: ignore[union-attr]
    result: Any = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "42"}]}
    client.messages.create(messages=[*SAID, {"role": "assistant", "content": message.content}, result], **ask)
    proof = message.content[0].signature  # type: ignore[union-attr]
    thought = Thinking("hm", signature=proof)
    replayed = server.asked[-1].chat.messages
    assert replayed[1] == assistant(thought, "so é", ToolCall("c1", "f", '{"a": 1}'))
    assert (replayed[2].role, replayed[2].parts) == (Role.TOOL, (ToolResult("c1", "42"),))


def test_the_raw_stream_is_the_whole_message(pair: tuple[Server, sdk.Anthropic]) -> None:
    kinds = [event.type for event in pair[1].messages.create(model="n", max_tokens=9, messages=SAID, stream=True)]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])


def test_structured_output(pair: tuple[Server, sdk.Anthropic]) -> None:
    schema: Any = {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "high"}
    pair[1].messages.create(model="nano", max_tokens=9, messages=SAID, output_config=schema)
    assert pair[0].asked[-1].chat.json_format is not None


def test_counting(pair: tuple[Server, sdk.Anthropic]) -> None:
    count = pair[1].messages.count_tokens(model="nano", messages=SAID, system="s", tools=[TOOL])
    assert count.input_tokens == 7
    assert pair[0].asked[-1].chat.messages[1] == user("hi")


def test_errors(pair: tuple[Server, sdk.Anthropic]) -> None:
    bad: Any = [{"role": "user", "content": [{"type": "document", "source": {}}]}]
    with pytest.raises(sdk.BadRequestError, match=r"messages\[0\].content\[0\].type") as caught:
        pair[1].messages.create(model="nano", max_tokens=9, messages=bad)
    assert caught.value.request_id == "req_1"
    with pytest.raises(sdk.InternalServerError) as busy:
        pair[1].messages.create(model="busy", max_tokens=9, messages=SAID)
    assert busy.value.status_code == 529


def test_an_error_in_mid_stream(pair: tuple[Server, sdk.Anthropic]) -> None:
    pair[0].events = [TextDelta(text="x"), Finish(reason=FinishReason.ERROR, error="it broke")]
    stream = pair[1].messages.create(model="nano", max_tokens=9, messages=SAID, stream=True)
    with pytest.raises(sdk.APIStatusError, match="it broke"):
        list(stream)


def test_models(pair: tuple[Server, sdk.Anthropic]) -> None:
    assert [model.id for model in pair[1].models.list()] == ["nano"]
    assert pair[1].models.retrieve("nano").max_input_tokens == 99
