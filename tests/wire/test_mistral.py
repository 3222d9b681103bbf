"""Mistral's chat, field by field: what is read, what is refused by name, what is written, as La Plateforme had it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.wire.openai_worlds import frames

from magister.types import (
    ChatRequest,
    Effort,
    Event,
    Finish,
    FinishReason,
    Image,
    JsonFormat,
    Message,
    Refused,
    Role,
    Sampling,
    SystemPrompt,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolMode,
    ToolResult,
    Upstream,
    Usage,
    assistant,
    fold,
    system,
    user,
)
from magister.wire import mistral
from magister.wire.dialect import Asked, Stamp
from magister.wire.fault import BadRequest, Fault, Kind

STAMP = Stamp(id="a" * 32, created=7, model="nano")
ASKED = Asked(chat=ChatRequest(messages=(user("hi"),)), stream=True)
HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
JPEG = b"\xff\xd8\xff1"
DATA_URL = f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}"
F = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}


def read(*messages: dict[str, Any], **fields: Any) -> Asked:
    body = {"model": "nano", "messages": list(messages) or HI, **fields}
    return mistral.read_request(json.dumps(body).encode())


def refused(field: str, *messages: dict[str, Any], **fields: Any) -> Fault:
    with pytest.raises(BadRequest) as caught:
        read(*messages, **fields)
    assert caught.value.fault.field == field, caught.value
    return caught.value.fault


def thought(*texts: str, **fields: Any) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text} for text in texts], **fields}


def test_a_plain_request() -> None:
    asked = Asked(chat=ChatRequest(messages=(user("hi"),), model="nano"))
    assert read() == read(stream=False) == asked
    assert read(stream=True) == Asked(chat=asked.chat, stream=True)


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"temperature": 1.5}, "temperature", 1.5),
        ({"top_p": 0.5}, "top_p", 0.5),
        ({"top_k": 3}, "top_k", 3),
        ({"n": 2}, "n", 2),
        ({"random_seed": 7}, "seed", 7),
        ({"max_tokens": 5}, "max_tokens", 5),
        ({"stop": "x"}, "stop", ("x",)),
        ({"stop": ["x", "y"]}, "stop", ("x", "y")),
        ({"presence_penalty": 1}, "presence_penalty", 1.0),
        ({"frequency_penalty": -1}, "frequency_penalty", -1.0),
        ({"logprobs": True}, "logprobs", True),
    ],
)
def test_sampling(given: dict[str, Any], field: str, value: Any) -> None:
    asked = read(**given)
    assert asked.given == {field}
    assert asked.chat.sampling == Sampling(**{field: value})


@pytest.mark.parametrize(
    "given",
    [
        {"prompt_mode": "reasoning"},
        {"safe_prompt": False},
        {"guardrails": []},
        {"guardrails": None},
        {"min_tokens": 0},
        {"repetition_penalty": 1},
        {"prompt_logprobs": False},
        {"service_tier": "standard_only"},
        {"temperature": None, "stop": None, "random_seed": None, "tools": None, "metadata": None},
        {"response_format": {"type": "text"}},
    ],
)
def test_what_asks_for_nothing_changes_nothing(given: dict[str, Any]) -> None:
    assert read(**given) == read()


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("temperature", {"temperature": 1.6}),
        ("random_seed", {"random_seed": -1}),
        ("max_tokens", {"max_tokens": 0}),
        ("stop[0]", {"stop": [""]}),
        ("n", {"n": 0}),
        ("top_logprobs", {"top_logprobs": 2}),
        ("safe_prompt", {"safe_prompt": True}),
        ("guardrails", {"guardrails": [{"moderation": {}}]}),
        ("prediction", {"prediction": {"type": "content", "content": "x"}}),
        ("min_tokens", {"min_tokens": 5}),
        ("repetition_penalty", {"repetition_penalty": 1.1}),
        ("prompt_logprobs", {"prompt_logprobs": True}),
        ("service_tier", {"service_tier": "priority"}),
        ("prompt_mode", {"prompt_mode": "creative"}),
        ("reasoning_effort", {"reasoning_effort": "huge"}),
        ("tools[0].type", {"tools": [{"type": "web_search"}]}),
        ("tools[0].function", {"tools": [{"type": "function"}]}),
        ("tools[1].function.name", {"tools": [F, F]}),
        ("tool_choice", {"tool_choice": "any"}),
        ("tool_choice", {"tool_choice": "some", "tools": [F]}),
        ("tool_choice.type", {"tool_choice": {"type": "x", "function": {"name": "f"}}, "tools": [F]}),
        ("tool_choice.function.name", {"tool_choice": {"function": {"name": "g"}}, "tools": [F]}),
        ("response_format.json_schema.schema", {"response_format": {"type": "json_schema"}}),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(field: str, given: dict[str, Any]) -> None:
    assert refused(field, **given).kind is Kind.INVALID


@pytest.mark.parametrize(
    ("field", "loc", "messages", "fields"),
    [
        ("seed", ["body", "seed"], HI, {"seed": 5}),
        ("messages[0].x", ["body", "messages", 0, "x"], [{"role": "user", "content": "hi", "x": 1}], {}),
        (
            "messages[0].content[0].x",
            ["body", "messages", 0, "content", 0, "x"],
            [{"role": "user", "content": [{"type": "text", "text": "hi", "x": 1}]}],
            {},
        ),
    ],
)
def test_unknown_fields_are_a_422_in_fastapis_words(field: str, loc: list[Any], messages: Any, fields: Any) -> None:
    answer = mistral.write_error(refused(field, *messages, **fields), "r")
    detail = {"type": "extra_forbidden", "loc": loc, "msg": "Extra inputs are not permitted", "input": None}
    assert (answer.status, json.loads(answer.body)) == (422, {"detail": [detail]})


def test_the_reasoning_instruction() -> None:
    assert read(prompt_mode=None).chat.system_prompt is SystemPrompt.REPLACE
    assert read(prompt_mode="reasoning").chat.system_prompt is read().chat.system_prompt is SystemPrompt.ADD
    assert read(reasoning_effort="high").chat.effort is Effort.HIGH
    assert read(reasoning_effort="none").chat.effort is Effort.NONE


def test_labels() -> None:
    assert read(metadata={"k": "v", "n": {"a": 1}}, prompt_cache_key="p").labels == {
        "k": "v",
        "n": '{"a":1}',
        "prompt_cache_key": "p",
    }


def test_tools() -> None:
    asked = read(tools=[F], tool_choice="any", parallel_tool_calls=False)
    assert asked.chat.tools == (Tool("f", {"type": "object"}, "d"),)
    assert asked.chat.tool_choice == ToolChoice(ToolMode.REQUIRED, parallel=False)
    assert read(tools=[F], tool_choice="required").chat.tool_choice.mode is ToolMode.REQUIRED
    named = read(tools=[F], tool_choice={"type": "function", "function": {"name": "f"}})
    assert named.chat.tool_choice == ToolChoice(ToolMode.NAMED, "f")


def test_formats() -> None:
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    assert read(response_format={"type": "json_object"}).chat.json_format == JsonFormat()
    form = {"type": "json_schema", "json_schema": schema}
    assert read(response_format=form).chat.json_format == JsonFormat({"type": "object"}, "n")


def test_messages() -> None:
    call = {"id": "D681PevKs", "function": {"name": "f", "arguments": {"a": 1}}, "index": 0}
    messages = read(
        {"role": "system", "content": [{"type": "text", "text": "be"}, thought("so", closed=True)]},
        {"role": "user", "content": [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": DATA_URL}]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "f", "tool_call_id": "D681PevKs", "content": [{"type": "text", "text": "42"}]},
        {"role": "assistant", "content": [thought("h", "m", closed=True), {"type": "text", "text": "so"}]},
        *HI,
    ).chat.messages
    assert messages == (
        system("be", Thinking("so")),
        user("what", Image(data=JPEG)),
        assistant(ToolCall("D681PevKs", "f", '{"a":1}')),
        Message(Role.TOOL, (ToolResult("D681PevKs", "42"),)),
        assistant(Thinking("hm"), "so"),
        user("hi"),
    )


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_a_thought_replayed_in_anothers_shape_is_a_thought(name: str) -> None:
    message = {"role": "assistant", "content": "so", name: "hm"}
    assert read(*HI, message, *HI).chat.messages[1] == assistant(Thinking("hm"), "so")


def test_a_tool_that_gave_nothing_back() -> None:
    called = {"id": "abcdefghi", "function": {"name": "f", "arguments": {}}}
    call = {"role": "assistant", "content": "", "tool_calls": [called]}
    result = {"role": "tool", "tool_call_id": "abcdefghi", "name": "f", "content": None}
    assert read(*HI, call, result).chat.messages[-1] == Message(Role.TOOL, (ToolResult("abcdefghi", ""),))


@pytest.mark.parametrize(
    ("content", "prefix"),
    [
        ("so", assistant("so")),
        ([thought("hm", closed=False)], assistant(Thinking("hm", closed=False))),
        ([thought(closed=False)], assistant(Thinking("", closed=False))),
        (
            [thought("hm", signature="s"), {"type": "text", "text": "so"}],
            assistant(Thinking("hm", signature="s"), "so"),
        ),
    ],
)
def test_a_prefix_is_gone_on_with(content: Any, prefix: Message) -> None:
    message = {"role": "assistant", "content": content}
    assert read(*HI, {**message, "prefix": True}).chat.messages[1] == prefix
    refused("messages[1].role", *HI, message)
    refused("messages[1].prefix", *HI, {**message, "prefix": True}, *HI)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("role", {"role": "developer", "content": "x"}),
        ("content", {"role": "user", "content": None}),
        ("name", {"role": "user", "content": "x", "name": "bob"}),
        ("prefix", {"role": "user", "content": "x", "prefix": True}),
        ("tool_call_id", {"role": "tool", "content": "x"}),
        ("tool_calls", {"role": "user", "content": "x", "tool_calls": [{"id": "x", "function": {"name": "f"}}]}),
        ("tool_calls[0].id", {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}),
        (
            "tool_calls[0].type",
            {"role": "assistant", "tool_calls": [{"type": "x", "id": "x", "function": {"name": "f"}}]},
        ),
        ("content[0].type", {"role": "user", "content": [{"type": "document_url", "document_url": "x"}]}),
        ("content[0].type", {"role": "user", "content": [{"type": "input_audio", "input_audio": "x"}]}),
        ("content[0].thinking", {"role": "assistant", "content": [{"type": "thinking"}]}),
        (
            "content[0].image_url.detail",
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": DATA_URL, "detail": "low"}}]},
        ),
    ],
)
def test_messages_that_cannot_be_read_are_refused_by_name(field: str, message: dict[str, Any]) -> None:
    refused(f"messages[1].{field}", *HI, message, *HI)


def test_no_messages() -> None:
    with pytest.raises(BadRequest, match="messages: must not be empty"):
        mistral.read_request(b'{"model":"m","messages":[]}')


def test_a_result_names_the_tool_that_was_called() -> None:
    called = {"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "f"}}]}
    refused("messages[2].name", *HI, called, {"role": "tool", "tool_call_id": "x", "name": "g", "content": "1"})


EVENTS: list[Event] = [
    ThinkingDelta(text="h"),
    ThinkingDelta(text="m", closed=True),
    TextDelta(text="h"),
    TextDelta(text="i"),
    ToolCallDelta(index=0, id="D681PevKs", name="f"),
    ToolCallDelta(index=0, arguments='{"a":1}'),
    Usage(prompt_tokens=3, cached_tokens=1, thinking_tokens=2, completion_tokens=5),
    Finish(reason=FinishReason.TOOL_CALLS),
]
COST = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8, "prompt_tokens_details": {"cached_tokens": 1}}
TOLD_CALL = {"id": "D681PevKs", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}, "index": 0}


@pytest.mark.parametrize("together", [True, False])
def test_the_stream_is_la_plateformes(together: bool) -> None:
    writer = mistral.write_events(ASKED, STAMP)
    groups = [EVENTS] if together else [[event] for event in EVENTS]
    told = frames(b"".join(writer.write(group) for group in groups) + writer.end())
    closing = [thought("m" if together else "", closed=True), {"type": "text", "text": "h"}]
    assert [one["choices"][0]["delta"] for one in told] == [
        {"role": "assistant", "content": ""},
        {"content": [thought("h")]},
        *([] if together else [{"content": [thought("m")]}]),
        {"content": closing},
        {"content": "i"},
        {"content": "", "tool_calls": [TOLD_CALL]},
    ]
    assert [one["choices"][0]["finish_reason"] for one in told] == [None] * (len(told) - 1) + ["tool_calls"]
    assert [one.get("usage") for one in told] == [None] * (len(told) - 1) + [COST]
    head = {"id": STAMP.id, "object": "chat.completion.chunk", "created": 7, "model": "nano"}
    assert all(head.items() <= one.items() for one in told)


def test_the_whole_reply_is_la_plateformes() -> None:
    told = json.loads(mistral.write_reply(ASKED, fold(EVENTS), STAMP))
    assert told["usage"] == COST
    (choice,) = told["choices"]
    content = [thought("hm", closed=True), {"type": "text", "text": "hi"}]
    message = {"role": "assistant", "content": content, "tool_calls": [TOLD_CALL], "prefix": False}
    assert choice == {"index": 0, "message": message, "finish_reason": "tool_calls"}


def test_an_answer_without_a_thought_is_a_string() -> None:
    events: list[Event] = [TextDelta(text="hi"), Finish(reason=FinishReason.STOP)]
    told = json.loads(mistral.write_reply(ASKED, fold(events), STAMP))["choices"][0]
    assert (told["message"]["content"], told["message"]["tool_calls"], told["finish_reason"]) == ("hi", None, "stop")
    writer = mistral.write_events(ASKED, STAMP)
    deltas = [one["choices"][0]["delta"] for one in frames(writer.write(events) + writer.end())]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "hi"}, {"content": ""}]


def test_a_failure_in_mid_stream_ends_it() -> None:
    writer = mistral.write_events(ASKED, STAMP)
    failed: list[Event] = [TextDelta(text="a"), Finish(reason=FinishReason.ERROR, error="it broke")]
    stream = writer.write([*failed, TextDelta(text="b", choice=1)]) + writer.write(EVENTS) + writer.end()
    told = json.loads(stream.split(b"\n\n")[-2].removeprefix(b"data: "))
    expected = {"object": "error", "message": "it broke", "type": "server_error", "param": None, "code": "upstream"}
    assert told == expected
    reader = mistral.read_events()
    assert reader.feed(stream) == [TextDelta(text="a")]
    with pytest.raises(Upstream, match="it broke"):
        reader.end()


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (Fault(kind=Kind.INVALID, message="m", field="n"), 400, "invalid_request_error"),
        (Fault(kind=Kind.UNAUTHENTICATED, message="m"), 401, "authentication_error"),
        (Fault(kind=Kind.NO_MODEL, message="m"), 404, "invalid_request_error"),
        (Fault(kind=Kind.RATE, message="m", retry_after=1.5), 429, "rate_limit_error"),
        (Fault(kind=Kind.OUT_OF_BUDGET, message="m"), 429, "rate_limit_error"),
        (Fault(kind=Kind.BUSY, message="m", retry_after=0.2), 503, "server_error"),
    ],
)
def test_errors(fault: Fault, status: int, kind: str) -> None:
    answer = mistral.write_error(fault, "r")
    error = json.loads(answer.body)
    assert (answer.status, error["object"], error["type"], error["param"]) == (
        status,
        "error",
        kind,
        fault.field or None,
    )
    headers = dict(answer.headers)
    assert headers["mistral-correlation-id"] == "r"
    assert headers.get("retry-after") == (None if fault.retry_after is None else "2" if fault.retry_after > 1 else "1")


def test_la_plateformes_own_errors_are_read() -> None:
    detail = [{"type": "extra_forbidden", "loc": ["body", "messages", 0, "user", "x"], "msg": "Extra", "input": 1}]
    for told in ({"detail": detail}, {"object": "error", "message": {"detail": detail}}):
        fault = mistral.read_error(422, json.dumps(told).encode())
        assert (fault.kind, fault.field) == (Kind.UNKNOWN_FIELD, "messages[0].user.x")
    body = {"object": "error", "message": "m", "type": "invalid_request_message_order", "param": None, "code": "3230"}
    assert mistral.read_error(400, json.dumps(body).encode()) == Fault(kind=Kind.INVALID, message="m")
    assert mistral.read_error(502, b"<html>").kind is Kind.UPSTREAM


def test_successors_call_every_piece_of_a_thought_closed() -> None:
    pieces = [thought("h", closed=True), thought("m", closed=True)]
    stream = b"".join(
        b"data: %b\n\n" % json.dumps({"choices": [{"delta": {"content": [piece]}}]}).encode() for piece in pieces
    )
    end = b'data: {"choices":[{"delta":{"content":""},"finish_reason":"model_length"}]}\n\ndata: [DONE]\n\n'
    reader = mistral.read_events()
    reply = fold([*reader.feed(stream + end), *reader.end()])
    assert reply.message == assistant(Thinking("hm", closed=False))
    assert reply.choices[0].finish is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("show_thinking", Asked(chat=ASKED.chat, show_thinking=False)),
        ("keep_thinking", Asked(chat=ChatRequest(messages=(user("hi"),), keep_thinking=False))),
        ("sampling.min_p", Asked(chat=ASKED.chat, given=frozenset({"min_p"}))),
        ("sampling.thinking_tokens", Asked(chat=ASKED.chat, given=frozenset({"thinking_tokens"}))),
        ("messages[0].parts[0]", Asked(chat=ChatRequest(messages=(user(Thinking("x")),)))),
        ("messages[0].parts[1]", Asked(chat=ChatRequest(messages=(assistant(Text("x"), Thinking("x")),)))),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(field: str, asked: Asked) -> None:
    with pytest.raises(Refused) as caught:
        mistral.write_request(asked)
    assert caught.value.field == field
