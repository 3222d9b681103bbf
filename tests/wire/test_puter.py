"""Puter's dialect, field by field: what is read, what is refused by name, what is written."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from magister.types import (
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
from magister.wire import puter
from magister.wire.dialect import Asked, Card, Stamp
from magister.wire.fault import BadRequest, Fault, Kind

STAMP = Stamp(id="a" * 32, created=1, model="nano")
PNG = "data:image/png;base64,iVBORw0KGgo="
IMAGE = Image(data=b"\x89PNG\r\n\x1a\n")


def body(around: dict[str, Any] | None = None, **args: Any) -> bytes:
    call = {"interface": "puter-chat-completion", "driver": "ai-chat", "test_mode": False, "method": "complete"}
    args = {"messages": [{"content": "hi"}], **args}
    return json.dumps({**call, "args": args, "auth_token": "tok", **(around or {})}).encode()


def asked(**args: Any) -> Asked:
    return puter.read_request(body(**args))


def said(*messages: Any) -> tuple[Message, ...]:
    return asked(messages=list(messages)).chat.messages


def refused(around: dict[str, Any] | None = None, **args: Any) -> Fault:
    with pytest.raises(BadRequest) as caught:
        puter.read_request(body(around, **args))
    return caught.value.fault


def test_a_bare_prompt_is_a_users() -> None:
    assert asked() == Asked(chat=asked().chat)
    assert asked().chat.messages == (user("hi"),)
    found = asked(model="mistralai/magistral-small-2509", temperature=0, max_tokens=5, stream=True)
    assert (found.chat.model, found.stream) == ("mistralai/magistral-small-2509", True)
    assert (found.chat.sampling.temperature, found.chat.sampling.max_tokens) == (0, 5)
    assert found.given == {"temperature", "max_tokens"}


def test_the_token_is_in_the_body() -> None:
    assert puter.auth_token_of(body()) == "tok"
    for raw in (b"", b"{", b"[]", b"\xff", b'{"auth_token": 3}', b'{"auth_token": null}', body({"auth_token": None})):
        assert puter.auth_token_of(raw) == ""


def test_the_drivers_list_of_models() -> None:
    assert puter.wants_models(body({"method": "models"}))
    for raw in (body(), b'"models"', b'{"models"', body({"method": "models", "interface": "x"})):
        assert not puter.wants_models(raw)


def test_strings_and_blocks_mixed() -> None:
    mixed = ["What is", {"image_url": {"url": PNG}}, {"type": "text", "text": "this?"}]
    assert said({"content": mixed}) == (user("What is", IMAGE, "this?"),)
    assert said("hi", {"role": "assistant", "content": "yes"}, {"content": {"image_url": "https://x/y.png"}}) == (
        user("hi"), assistant("yes"), user(Image(url="https://x/y.png")),
    )  # fmt: skip
    assert said({"role": "developer", "content": "be brief"}, "hi") == (system("be brief"), user("hi"))
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    assert said({"content": [{"type": "image", "source": source}]}) == (user(IMAGE),)


def test_calls_in_openais_shape_and_in_claudes() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    openai = said(
        "q",
        {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    )
    claude = said(
        "q",
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
        ]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [
            {"type": "text", "text": "42"}]}]},
    )  # fmt: skip
    assert openai == claude == (
        user("q"),
        assistant(Thinking("hm"), ToolCall("c1", "f", '{"a": 1}')),
        Message(Role.TOOL, (ToolResult("c1", "42"),)),
    )  # fmt: skip
    both = {"content": [{"type": "tool_result", "tool_use_id": "c1", "content": {"b": [1]}, "is_error": True}, "and?"]}
    assert said(both) == (Message(Role.TOOL, (ToolResult("c1", '{"b": [1]}', is_error=True),)), user("and?"))
    streamed = {"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {}, "text": ""}]}
    assert said("q", streamed)[1] == assistant(ToolCall("call_0", "f", "{}"))


@pytest.mark.parametrize(
    "kept",
    [
        {"content": "hi", "reasoning": "hm"},
        {"content": "hi", "reasoning_content": "hm"},
        {"content": "hi", "reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"content": "hi", "reasoning_details": [{"type": "reasoning.text", "text": text} for text in "hm"]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, "hi"]},
        {"content": [{"type": "reasoning", "reasoning": "h"}, {"type": "reasoning", "reasoning": "m"}, "h", "i"]},
    ],
)  # fmt: skip
def test_thoughts_come_back_in_every_shape(kept: dict[str, Any]) -> None:
    assert said("q", {"role": "assistant", **kept}, "r")[1] == assistant(Thinking("hm"), "hi")


def test_an_answer_that_was_stopped_before_its_first_word_says_nothing() -> None:
    assert said("q", {"role": "assistant", "content": ""}, "r") == (user("q"), user("r"))


def test_images_are_as_large_as_they_are() -> None:
    for detail in (None, "auto", "high", "original"):
        assert said({"content": [{"image_url": {"url": PNG, "detail": detail}}]}) == (user(IMAGE),)


def test_tags_in_text_stay_text() -> None:
    assert said("q", {"role": "assistant", "content": "<think>hm</think>hi"})[1] == assistant("<think>hm</think>hi")


def test_our_own_message_is_taken_back_as_it_is() -> None:
    spoken = assistant(Thinking("hm"), "hi", ToolCall("c1", "f", '{"a": 1}'))
    reply = fold(
        [
            ThinkingDelta(text="hm", closed=True), TextDelta(text="hi"),
            ToolCallDelta(index=0, id="c1", name="f", arguments='{"a": 1}'), Finish(reason=FinishReason.TOOL_CALLS),
        ]
    )  # fmt: skip
    message = json.loads(puter.write_reply(asked(), reply, STAMP))["result"]["message"]
    assert said("q", message)[1] == spoken


@pytest.mark.parametrize(
    ("args", "effort"),
    [
        ({}, None),
        ({"reasoning_effort": "high"}, Effort.HIGH),
        ({"reasoning": {"effort": "none"}}, Effort.NONE),
        ({"reasoning": {"effort": "low"}, "reasoning_effort": "low"}, Effort.LOW),
        ({"reasoning": {}}, None),
    ],
)
def test_effort(args: dict[str, Any], effort: Effort | None) -> None:
    assert asked(**args).chat.effort is effort


def test_tools_and_formats() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    openai = {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": True}}
    claude = {"name": "g", "input_schema": schema}
    bare = {"function": {"name": "h"}}
    assert asked(tools=[openai, claude, bare]).chat.tools == (
        Tool("f", schema, "d"), Tool("g", schema), Tool("h", {"type": "object", "properties": {}}),
    )  # fmt: skip
    nested = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    flat = {"type": "json_schema", "name": "x", "schema": schema}
    assert asked(response=nested).chat.json_format == JsonFormat(schema, "x")
    assert asked(text={"format": flat, "verbosity": "medium"}).chat.json_format == JsonFormat(schema, "x")
    assert asked(response={"type": "json_object"}).chat.json_format == JsonFormat()
    assert asked(response={"type": "text"}).chat.json_format is None


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"name": "ann", "content": "x"}]}, "messages[0].name"),
        ({"messages": [{"content": "x", "tool_calls": [{"function": {"name": "f"}}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"content": "x", "tool_call_id": "y"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"content": [{"image_url": {"url": "puter://x"}}]}]}, "messages[0].content[0].image_url.url"),
        ({"messages": [{"content": [{"image_url": {"url": PNG, "detail": "low"}}]}]},
         "messages[0].content[0].image_url.detail"),
        ({"messages": [{"content": ["x", {"video_url": {"url": "x.mp4"}}]}]}, "messages[0].content[1].video_url"),
        ({"messages": [{"content": [{"type": "file", "puter_path": "~/x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"content": [{"type": "compaction"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"content": [{"type": "text", "text": 3}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"content": [[]]}]}, "messages[0].content[0]"),
        ({"messages": [{"content": [{}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"content": [{"type": "thinking", "thinking": "x"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "system", "content": [{"image_url": PNG}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "assistant", "content": [{"image_url": PNG}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "assistant", "content": "x", "images": [{"a": 1}]}]}, "messages[0].images"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"reasoning_effort": "hard"}, "reasoning_effort"),
        ({"reasoning": {"effort": "low"}, "reasoning_effort": "high"}, "reasoning.effort"),
        ({"verbosity": "low"}, "verbosity"),
        ({"text": {"verbosity": "high"}}, "text.verbosity"),
        ({"provider": "openai"}, "provider"),
        ({"normalize": False}, "normalize"),
        ({"image_config": {"aspect_ratio": "1:1"}}, "image_config"),
        ({"compaction": True}, "compaction"),
        ({"context_management": {"edits": []}}, "context_management"),
        ({"response": {"type": "grammar"}}, "response.type"),
        ({"response": {"type": "json_schema"}}, "response.json_schema.schema"),
        ({"response": {"type": "text"}, "text": {"format": {"type": "text"}}}, "text.format"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(args: dict[str, Any], field: str) -> None:
    told = refused(**args)
    assert (told.field, told.kind) == (field, Kind.INVALID)
    assert told.message.startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("around", "field"),
    [
        ({"interface": "puter-image-generation"}, "interface"),
        ({"driver": "openai"}, "driver"),
        ({"service": "openai"}, "service"),
        ({"method": "embed"}, "method"),
    ],
)
def test_other_drivers_are_not_here(around: dict[str, Any], field: str) -> None:
    assert refused(around).field == field


def test_unknown_fields_are_told_as_such() -> None:
    found = [
        refused(typo=1),
        refused({"typo": 1}),
        refused(messages=[{"content": [{"type": "text", "text": "", "a": 1}]}]),
    ]
    assert {told.kind for told in found} == {Kind.UNKNOWN_FIELD}
    assert [told.field for told in found] == ["typo", "typo", "messages[0].content[0].a"]


def test_what_asks_for_nothing_is_accepted() -> None:
    nothing = asked(
        tools=[], image_config=None, compaction=False, context_management=None, provider="mistral", verbosity="medium",
        vision=True, test_mode=False, stream=False, reasoning=None, response=None,
    )  # fmt: skip
    assert nothing == asked()


def test_test_mode_is_marked() -> None:
    assert puter.wants_test(asked(test_mode=True))
    assert puter.wants_test(puter.read_request(body({"test_mode": True})))
    assert not puter.wants_test(asked())
    reply = json.loads(puter.write_reply(asked(test_mode=True), fold(puter.TEST_EVENTS), STAMP))
    assert reply["result"]["test_mode"] is True
    assert "test response" in reply["result"]["message"]["content"]


def test_a_reply() -> None:
    events: list[Event] = [
        ThinkingDelta(text="hm"),
        TextDelta(text="schön"),
        Usage(prompt_tokens=3, completion_tokens=5, cached_tokens=1, thinking_tokens=2),
        Finish(reason=FinishReason.END),
    ]
    whole = puter.write_reply(asked(normalize=True), fold(events), STAMP)
    assert whole.isascii()
    assert json.loads(whole) == {
        "success": True,
        "service": {"name": "ai-chat"},
        "metadata": {"service_used": "magister", "providerUsed": "nano"},
        "result": {
            "index": 0,
            "message": {"role": "assistant", "content": "schön", "reasoning": "hm", "tool_calls": []},
            "finish_reason": "stop",
            "usage": {
                "prompt_tokens": 3, "completion_tokens": 5, "cached_tokens": 1, "reasoning_tokens": 2, "usd_cents": 0
            },
            "model": "nano",
            "via_ai_chat_service": True,
            "normalized": True,
        },
    }  # fmt: skip


def test_a_stream_line_by_line() -> None:
    writer = puter.write_events(asked(), STAMP)
    stream = writer.write([ThinkingDelta(text="h"), ThinkingDelta(text="m", closed=True), TextDelta(text="é")])
    stream += writer.write([ToolCallDelta(index=0, name="f"), ToolCallDelta(index=0, arguments='{"a":1}')])
    stream += writer.write([Usage(prompt_tokens=3), Finish(reason=FinishReason.TOOL_CALLS)]) + writer.end()
    assert stream.isascii()
    *lines, rest = stream.split(b"\n")
    assert rest == b""
    assert [json.loads(line) for line in lines[:3]] == [
        {"type": "reasoning", "reasoning": "hm"},
        {"type": "text", "text": "é"},
        {"type": "tool_use", "id": "call_aaaaaaaaaaaaaaaa_0", "name": "f", "input": {"a": 1}, "text": ""},
    ]
    last = json.loads(lines[3])
    assert (last["type"], last["usage"]["prompt_tokens"], last["finish_reason"]) == ("usage", 3, "tool_calls")


def test_arguments_that_are_no_object_are_not_lost() -> None:
    events: list[Event] = [
        ToolCallDelta(index=0, id="c", name="f", arguments='{"a'),
        Finish(reason=FinishReason.LENGTH),
    ]
    stream = puter.write_events(asked(), STAMP).write(events)
    assert json.loads(stream.split(b"\n")[0])["input"] == '{"a'
    reader = puter.read_events()
    assert fold([*reader.feed(stream), *reader.end()]) == fold(events)


def test_a_stream_that_fails_says_so_and_is_read_so() -> None:
    writer = puter.write_events(asked(), STAMP)
    stream = writer.write([TextDelta(text="h"), Finish(reason=FinishReason.ERROR, error="gone")])
    assert json.loads(stream.split(b"\n")[1]) == {"type": "error", "message": "gone", "code": "upstream_error"}
    with pytest.raises(Upstream, match="gone"):
        puter.read_events().feed(stream)
    cut = puter.read_events()
    cut.feed(b'{"type":"text","text":"h"}\n')
    with pytest.raises(Upstream, match="broke off"):
        cut.end()
    for wrong in (b"<html>\n", b'{"text":"no type"}\n'):
        with pytest.raises(Upstream):
            puter.read_events().feed(wrong)


def test_lines_of_other_servers() -> None:
    reader = puter.read_events()
    raw = b'\n{"type":"extra_content","extra_content":{}}\n{"type":"text","text":"hi"}\n'
    raw += b'{"type":"usage","usage":{"usd_cents":0.1}}'
    events = [*reader.feed(raw), *reader.end()]
    assert fold(events).message == assistant("hi")
    with pytest.raises(Upstream, match="too much"):
        puter.read_reply(b'{"success":false,"error":{"code":"x","message":"too much"}}')
    with pytest.raises(Upstream):
        puter.read_reply(b"[]")


@pytest.mark.parametrize("kind", list(Kind))
def test_errors_say_and_are_read_back(kind: Kind) -> None:
    fault = Fault(kind=kind, message="no", field="messages[0]", retry_after=2.5)
    told = puter.write_error(fault, "r1")
    error = json.loads(told.body)
    assert (error["success"], error["message"], error["code"]) == (False, "no", error["error"]["code"])
    assert told.headers == (("retry-after", "3"),)
    assert puter.read_error(told.status, told.body) == fault


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (Kind.OUT_OF_BUDGET, 402, "insufficient_funds"),
        (Kind.UNAUTHENTICATED, 401, "token_auth_failed"),
        (Kind.RATE, 429, "too_many_requests"),
        (Kind.BUSY, 503, "server_busy"),
    ],
)
def test_the_clients_own_rules(kind: Kind, status: int, code: str) -> None:
    told = puter.write_error(Fault(kind=kind, message=""), "")
    assert (told.status, json.loads(told.body)["code"]) == (status, code)


@pytest.mark.parametrize(
    ("status", "raw", "kind", "message"),
    [
        (402, b'{"error":{"code":"insufficient_funds","message":"x"}}', Kind.OUT_OF_BUDGET, "x"),
        (400, b'{"error":"bad","message":"y","code":"other"}', Kind.INVALID, "y"),
        (504, b"<html>", Kind.UPSTREAM, "the answer was 504, without a reason"),
    ],
)
def test_errors_of_other_servers(status: int, raw: bytes, kind: Kind, message: str) -> None:
    found = puter.read_error(status, raw)
    assert (found.kind, found.message) == (kind, message)


def test_models() -> None:
    card = Card(name="nano", created=1, context=4096, vision=True, aliases=("n",))
    (model,) = json.loads(puter.write_models([card]))["models"]
    assert (model["id"], model["context"], model["modalities"]["input"]) == ("nano", 4096, ["text", "image"])
    assert json.loads(puter.write_driver_models([card]))["result"] == [model]
    assert json.loads(puter.write_model(card)) == model


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("system_prompt", {"system_prompt": SystemPrompt.REPLACE}),
    ("keep_thinking", {"keep_thinking": False}),
    ("tool_choice", {"tool_choice": ToolChoice(ToolMode.REQUIRED)}),
    ("sampling.seed", {"sampling": Sampling(seed=1)}),
    ("messages", {"messages": ()}),
    ("messages[0].parts", {"messages": (Message(Role.USER, ()),)}),
    ("messages[0].parts[0]", {"messages": (user(Thinking("x")),)}),
    ("messages[0].parts", {"messages": (assistant("a", Thinking("x")),)}),
    ("messages[0].parts[0].text", {"messages": (assistant(""),)}),
    ("messages[0].parts[0].text", {"messages": (assistant(Thinking("")),)}),
    ("messages[0].parts[0].closed", {"messages": (assistant(Thinking("x", closed=False)),)}),
    ("json_format.name", {"json_format": JsonFormat(name="x")}),
]


@pytest.mark.parametrize(("field", "changes"), REFUSED)
def test_what_puter_cannot_say_is_refused(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        puter.write_request(Asked(chat=msgspec.structs.replace(asked().chat, **changes)))
    assert caught.value.field == field


def test_labels_are_refused_too() -> None:
    with pytest.raises(Refused, match="labels"):
        puter.write_request(Asked(chat=asked().chat, labels={"user": "x"}))
    with pytest.raises(Refused, match="usage_at_end"):
        puter.write_request(Asked(chat=asked().chat, usage_at_end=False))
