"""Chat Completions, field by field: what is read, what is refused by name, what is written."""

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
    Part,
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
from magister.wire import openai_chat
from magister.wire.dialect import Asked, Card, Stamp
from magister.wire.fault import BadRequest, Fault, Kind

STAMP = Stamp(id="a" * 32, created=7, model="nano")
ASKED = Asked(chat=ChatRequest(messages=(user("hi"),)), stream=True, usage_at_end=False)
HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
JPEG = b"\xff\xd8\xff1"
DATA_URL = f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}"
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
F = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
G = {"type": "function", "function": {"name": "g", "description": "d", "strict": True}}
NO_PARAMETERS = {"type": "object", "properties": {}}


def read(*messages: dict[str, Any], **fields: Any) -> Asked:
    body = {"model": "nano", "messages": list(messages) or HI, **fields}
    return openai_chat.read_request(json.dumps(body).encode())


def refused(field: str, *messages: dict[str, Any], **fields: Any) -> Fault:
    with pytest.raises(BadRequest) as caught:
        read(*messages, **fields)
    assert caught.value.fault.field == field, caught.value
    return caught.value.fault


def said(*content: Any, **fields: Any) -> Message:
    """What an assistant's message is read as, between two of the user's."""
    body = {"role": "assistant", "content": list(content) if content else None, **fields}
    return read(*HI, body, *HI).chat.messages[1]


def test_a_plain_request() -> None:
    asked = read()
    assert asked == Asked(chat=ChatRequest(messages=(user("hi"),), model="nano"))
    assert read(stream=True) == Asked(chat=asked.chat, stream=True, usage_at_end=False)
    assert read(stream=True, stream_options={"include_usage": True}).usage_at_end


def test_the_path_may_name_model_and_stream() -> None:
    asked = openai_chat.read_request(b'{"model":"","messages":[{"role":"user","content":"hi"}]}', "nano", True)
    assert (asked.chat.model, asked.stream) == ("nano", True)


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"temperature": 0}, "temperature", 0.0),
        ({"top_p": 0.5}, "top_p", 0.5),
        ({"top_k": -1}, "top_k", 0),
        ({"min_p": 0.1}, "min_p", 0.1),
        ({"n": 2}, "n", 2),
        ({"seed": -1}, "seed", (1 << 63) - 1),
        ({"max_tokens": 5}, "max_tokens", 5),
        ({"max_completion_tokens": 5}, "max_tokens", 5),
        ({"max_completion_tokens": 5, "max_tokens": 5}, "max_tokens", 5),
        ({"stop": "x"}, "stop", ("x",)),
        ({"stop": ["x", "y"]}, "stop", ("x", "y")),
        ({"logit_bias": {"7": -100}}, "logit_bias", {7: -100.0}),
        ({"presence_penalty": 1}, "presence_penalty", 1.0),
        ({"frequency_penalty": -1}, "frequency_penalty", -1.0),
        ({"logprobs": True}, "logprobs", True),
        ({"ignore_eos": True}, "ignore_end", True),
        ({"reasoning": {"max_tokens": 9}}, "thinking_tokens", 9),
    ],
)
def test_sampling(given: dict[str, Any], field: str, value: Any) -> None:
    asked = read(**given)
    assert asked.given == {field}
    assert asked.chat.sampling == Sampling(**{field: value})


@pytest.mark.parametrize(
    "given",
    [
        {"stop": None},
        {"stop": []},
        {"logit_bias": {}},
        {"store": False},
        {"service_tier": "auto"},
        {"modalities": ["text"]},
        {"verbosity": "medium"},
        {"tools": [], "tool_choice": "auto"},
        {"functions": []},
        {"response_format": {"type": "text"}},
        {"chat_template_kwargs": {}},
        {"add_generation_prompt": True, "continue_final_message": False},
        {"reasoning": {"enabled": True}},
        {"prompt_cache_retention": "in_memory"},
    ],
)
def test_what_asks_for_nothing_changes_nothing(given: dict[str, Any]) -> None:
    assert read(**given) == read()


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("temperature", {"temperature": 2.1}),
        ("top_p", {"top_p": -0.1}),
        ("n", {"n": 0}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_tokens", {"max_tokens": 5, "max_completion_tokens": 6}),
        ("max_completion_tokens", {"max_completion_tokens": -1}),
        ("stop", {"stop": ""}),
        ("stop[1]", {"stop": ["x", ""]}),
        ("stop", {"stop": ["x"] * 17}),
        ("logit_bias.x", {"logit_bias": {"x": 1}}),
        ("logit_bias.1", {"logit_bias": {"1": 101}}),
        ("top_logprobs", {"top_logprobs": 2}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
        ("stream_options", {"stream_options": {"include_usage": True}}),
        ("stream_options.include_obfuscation", {"stream": True, "stream_options": {"include_obfuscation": True}}),
        ("store", {"store": True}),
        ("service_tier", {"service_tier": "priority"}),
        ("verbosity", {"verbosity": "low"}),
        ("modalities", {"modalities": ["audio"]}),
        ("audio", {"audio": {"voice": "x"}}),
        ("prediction", {"prediction": {"type": "content", "content": "x"}}),
        ("web_search_options", {"web_search_options": {"x": 1}}),
        ("functions", {"functions": [{"name": "f"}]}),
        ("function_call", {"function_call": "auto"}),
        ("moderation", {"moderation": {"model": "x"}}),
        ("chat_template_kwargs", {"chat_template_kwargs": {"enable_thinking": True}}),
        ("prompt_cache_retention", {"prompt_cache_retention": "24h"}),
        ("prompt_cache_options", {"prompt_cache_options": {"ttl": "30m"}}),
        ("continue_final_message", {"continue_final_message": True}),
        ("add_generation_prompt", {"add_generation_prompt": False}),
        ("reasoning_effort", {"reasoning_effort": "huge"}),
        ("reasoning.effort", {"reasoning_effort": "low", "reasoning": {"effort": "high"}}),
        ("reasoning.max_tokens", {"reasoning_effort": "low", "reasoning": {"max_tokens": 5}}),
        ("reasoning.max_tokens", {"reasoning": {"max_tokens": -1}}),
        ("reasoning.enabled", {"reasoning": {"enabled": False, "effort": "high"}}),
        ("reasoning.enabled", {"reasoning": {"enabled": True, "effort": "none"}}),
        ("reasoning.exclude", {"reasoning": {"exclude": True}, "logprobs": True}),
        ("include_reasoning", {"include_reasoning": False, "logprobs": True}),
        ("response_format.json_schema.schema", {"response_format": {"type": "json_schema"}}),
        ("response_format.type", {"response_format": {"type": "xml"}}),
        ("tools[0].type", {"tools": [{"type": "custom", "custom": {"name": "x"}}]}),
        ("tools[0].function", {"tools": [{"type": "function"}]}),
        ("tools[0].function.name", {"tools": [{"type": "function", "function": {"name": "a b"}}]}),
        ("tools[1].function.name", {"tools": [F, F]}),
        ("tools", {"tools": [F] * 129}),
        ("tool_choice", {"tool_choice": "required"}),
        ("tool_choice", {"tool_choice": "any", "tools": [F]}),
        ("tool_choice.function", {"tool_choice": {"type": "function"}, "tools": [F]}),
        ("tool_choice.function.name", {"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": [F]}),
        ("tool_choice.type", {"tool_choice": {"type": "custom", "custom": {"name": "x"}}, "tools": [F]}),
        ("metadata[...]", {"metadata": {"k": 1}}),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(field: str, given: dict[str, Any]) -> None:
    assert refused(field, **given).kind is Kind.INVALID


def test_unknown_fields_are_named() -> None:
    assert refused("thinking_budget", thinking_budget=5).kind is Kind.UNKNOWN_FIELD
    assert refused("messages[0].x", {"role": "user", "content": "hi", "x": 1}).kind is Kind.UNKNOWN_FIELD
    part = {"type": "text", "text": "hi", "x": 1}
    assert refused("messages[0].content[0].x", {"role": "user", "content": [part]}).kind is Kind.UNKNOWN_FIELD


@pytest.mark.parametrize(
    ("given", "effort", "shown"),
    [
        ({"reasoning_effort": "minimal"}, Effort.MINIMAL, True),
        ({"reasoning_effort": "none"}, Effort.NONE, True),
        ({"reasoning": {"effort": "high"}}, Effort.HIGH, True),
        ({"reasoning": {"enabled": False}}, Effort.NONE, True),
        ({"reasoning": {"exclude": True}, "reasoning_effort": "max"}, Effort.MAX, False),
        ({"include_reasoning": False}, None, False),
    ],
)
def test_effort(given: dict[str, Any], effort: Effort | None, shown: bool) -> None:
    asked = read(**given)
    assert (asked.chat.effort, asked.show_thinking) == (effort, shown)


def test_labels() -> None:
    labels = read(user="u", safety_identifier="s", prompt_cache_key="p", metadata={"k": "v", "user": "x"}).labels
    assert labels == {"user": "u", "safety_identifier": "s", "prompt_cache_key": "p", "k": "v"}


def test_contents() -> None:
    parts = [
        {"type": "text", "text": "what", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": DATA_URL, "detail": "high"}},
        {"type": "image_url", "image_url": "https://example.org/a.png"},
    ]
    messages = read(
        {"role": "developer", "content": "be"},
        {"role": "system", "content": [{"type": "text", "text": "brief"}]},
        {"role": "user", "content": parts},
    ).chat.messages
    pictured = user("what", Image(data=JPEG), Image(url="https://example.org/a.png"))
    assert messages == (system("be"), system("brief"), pictured)


def test_a_system_prompt_with_a_thought_as_the_model_card_has_it() -> None:
    chunks = [
        {"type": "text", "text": "First think. "},
        {"type": "thinking", "thinking": "Your thoughts", "closed": True},
        {"type": "thinking", "thinking": [{"type": "text", "text": "go here"}]},
        {"type": "text", "text": "Then answer."},
    ]
    (message, _) = read({"role": "system", "content": chunks}, *HI).chat.messages
    assert message == system("First think. ", Thinking("Your thoughts"), Thinking("go here"), "Then answer.")


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning": "hm"},
        {"reasoning_content": "hm"},
        {"reasoning": "hm", "reasoning_content": "hm"},
        {"reasoning": None, "reasoning_content": "hm"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "hm", "id": "x", "format": "f", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "h"}, {"type": "reasoning.text", "text": "m"}]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}, {"type": "reasoning.encrypted", "data": "x"}]},
    ],
)
def test_a_replayed_thought_is_a_thought(fields: dict[str, Any]) -> None:
    replayed = said({"type": "text", "text": "so"}, tool_calls=[CALL], **fields)
    assert replayed == assistant(Thinking("hm"), "so", ToolCall("c1", "f", '{"a": 1}'))


def test_chunks_of_an_assistant_come_into_their_order() -> None:
    def thought(*texts: str, **fields: Any) -> dict[str, Any]:
        return {"type": "thinking", "thinking": [{"type": "text", "text": text} for text in texts], **fields}

    text = {"type": "text", "text": "so"}
    assert said(thought("h", "m"), text) == assistant(Thinking("hm"), "so")
    assert said(text, thought("h"), thought("m"), text) == assistant(Thinking("hm"), "soso")
    assert said(thought("hm", signature="s"), text) == assistant(Thinking("hm", signature="s"), "so")
    assert said(thought(), text, {"type": "refusal", "refusal": "!"}) == assistant("so!")
    assert said(thought("hm"), text, reasoning="hm") == assistant(Thinking("hm"), "so")


def test_literal_tags_stay_text() -> None:
    message = {"role": "assistant", "content": "<think>a</think>b [THINK]c[/THINK]"}
    assert read(*HI, message, *HI).chat.messages[1].parts == (Text("<think>a</think>b [THINK]c[/THINK]"),)


def test_what_an_sdk_gave_is_taken_back() -> None:
    called = {**CALL["function"], "parsed_arguments": {"a": 1}}  # type: ignore[dict-item]
    nothing: dict[str, Any] = {
        "refusal": None,
        "audio": None,
        "function_call": None,
        "annotations": [],
        "parsed": {"a": 1},
    }
    assert said(content="so", **nothing, tool_calls=None) == assistant("so")
    assert said(tool_calls=[{**CALL, "index": 0, "function": called}]).tool_calls[0].name == "f"
    assert said(refusal="no") == assistant("no")


@pytest.mark.parametrize("content", [None, "", [], [{"type": "text", "text": ""}]])
def test_an_answer_that_was_stopped_before_its_first_word_says_nothing(content: Any) -> None:
    stopped = {"role": "assistant", "content": content}
    assert read(*HI, stopped, *HI).chat.messages == (user("hi"), user("hi"))
    last = read(*HI, stopped, continue_final_message=True, add_generation_prompt=False)
    assert last.chat.messages == (user("hi"),)


@pytest.mark.parametrize("last", [{"content": "so"}, {"content": "so", "prefix": True}])
def test_a_final_message_of_the_assistant_is_gone_on_with(last: dict[str, Any]) -> None:
    message = {"role": "assistant", **last}
    words = {"continue_final_message": True, "add_generation_prompt": False}
    assert (
        read(*HI, message).chat.messages == read(*HI, message, **words).chat.messages == (user("hi"), assistant("so"))
    )
    refused("continue_final_message", *HI, message, continue_final_message=False)
    refused("add_generation_prompt", *HI, message, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("content", {"role": "user"}),
        ("content", {"role": "user", "content": 5}),
        ("role", {"role": "robot", "content": "x"}),
        ("role", {"role": "function", "name": "f", "content": "x"}),
        ("reasoning", {"role": "user", "content": "x", "reasoning": "y"}),
        ("tool_call_id", {"role": "user", "content": "x", "tool_call_id": "y"}),
        ("tool_call_id", {"role": "tool", "content": "x"}),
        (
            "content[0].type",
            {"role": "tool", "tool_call_id": "y", "content": [{"type": "image_url", "image_url": "x"}]},
        ),
        ("content[0].type", {"role": "user", "content": [{"text": "x"}]}),
        ("content[0].type", {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}),
        ("content[0].type", {"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}),
        ("content[0].text", {"role": "user", "content": [{"type": "text"}]}),
        ("content[0].image_url", {"role": "user", "content": [{"type": "image_url"}]}),
        ("content[0].image_url", {"role": "user", "content": [{"type": "image_url", "image_url": "ftp://x"}]}),
        (
            "content[0].image_url.url",
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
        ),
        (
            "content[0].image_url.detail",
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": DATA_URL, "detail": "low"}}]},
        ),
        ("audio", {"role": "assistant", "audio": {"id": "x"}}),
        ("function_call", {"role": "assistant", "function_call": {"name": "f", "arguments": ""}}),
        ("annotations", {"role": "assistant", "content": "x", "annotations": [{"type": "url_citation"}]}),
        ("reasoning_content", {"role": "assistant", "content": "x", "reasoning": "a", "reasoning_content": "b"}),
        ("reasoning_details[0].text", {"role": "assistant", "content": "x", "reasoning_details": [{"text": 5}]}),
        ("tool_calls[0].type", {"role": "assistant", "tool_calls": [{"id": "x", "type": "custom", "custom": {}}]}),
        ("tool_calls[0].id", {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}),
        ("prefix", {"role": "assistant", "content": "x", "prefix": True}),
        (
            "content[0].thinking[0].type",
            {"role": "assistant", "content": [{"type": "thinking", "thinking": [{"type": "reference"}]}]},
        ),
    ],
)
def test_messages_that_cannot_be_read_are_refused_by_name(field: str, message: dict[str, Any]) -> None:
    refused(f"messages[1].{field}", *HI, message, *HI)


def test_no_messages() -> None:
    with pytest.raises(BadRequest, match="messages: must not be empty"):
        openai_chat.read_request(b'{"model":"m","messages":[]}')
    with pytest.raises(BadRequest, match="messages: is required"):
        openai_chat.read_request(b'{"model":"m"}')


def test_names_tell_speakers_of_a_role_apart_and_nothing_else() -> None:
    def texts(*messages: dict[str, Any]) -> list[str]:
        return [message.text for message in read(messages=list(messages)).chat.messages]

    def said(role: str, name: str | None = None, content: Any = "x") -> dict[str, Any]:
        return {"role": role, "content": content} | ({} if name is None else {"name": name})

    assert texts(said("user", "ann")) == ["x"]
    assert texts(said("user", "ann"), said("assistant", "bot"), said("user", "ann")) == ["x", "x", "x"]
    assert texts(said("user", "ann"), said("assistant", "bot"), said("user", "ben")) == ["ann: x", "x", "ben: x"]
    assert texts(said("user"), said("assistant", "a"), said("user"), said("assistant", "b"), said("user")) == [
        "x", "a: x", "x", "b: x", "x",
    ]  # fmt: skip
    assert texts(said("user", "ann"), said("assistant"), said("user")) == ["ann: x", "x", "x"]
    thought = {"role": "assistant", "name": "a", "reasoning": "hm", "content": "x"}
    (_, message, _, _) = read(messages=[said("user"), thought, said("assistant", "b"), said("user")]).chat.messages
    assert (message.thinking, message.text) == ("hm", "a: x")
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]
    (shown, _) = read(messages=[said("user", "ann", image), said("user")]).chat.messages
    assert (shown.text, len(shown.parts)) == ("ann: ", 2)


def test_a_result_names_the_tool_that_was_called() -> None:
    called = {"role": "assistant", "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "42"}], "name": "f"}
    assert read(*HI, called, result).chat.messages[2] == Message(Role.TOOL, (ToolResult("c1", "42"),))
    refused("messages[2].name", *HI, called, {**result, "name": "g"})


def test_tools() -> None:
    named = {"type": "function", "function": {"name": "g"}}
    asked = read(tools=[F, G], tool_choice=named, parallel_tool_calls=False)
    assert asked.chat.tools == (Tool("f", {"type": "object"}), Tool("g", NO_PARAMETERS, "d"))
    assert asked.chat.tool_choice == ToolChoice(ToolMode.NAMED, "g", parallel=False)
    assert read(tools=[F], tool_choice="required").chat.tool_choice == ToolChoice(ToolMode.REQUIRED)
    assert read(tools=[F], tool_choice="none").chat.tool_choice == ToolChoice(ToolMode.NONE)


@pytest.mark.parametrize("mode", [ToolMode.AUTO, ToolMode.REQUIRED])
def test_allowed_tools_are_the_ones_offered(mode: ToolMode) -> None:
    allowed: dict[str, Any] = {"mode": mode, "tools": [{"type": "function", "function": {"name": "g"}}]}
    asked = read(tools=[F, G], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool.name for tool in asked.chat.tools] == ["g"]
    assert asked.chat.tool_choice == ToolChoice(mode)
    allowed["tools"] = [{"type": "function", "name": "x"}]
    field = "tool_choice.allowed_tools.tools[0].function.name"
    refused(field, tools=[F, G], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})


def test_formats() -> None:
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    assert read(response_format={"type": "json_object"}).chat.json_format == JsonFormat()
    form = {"type": "json_schema", "json_schema": schema}
    assert read(response_format=form).chat.json_format == JsonFormat({"type": "object"}, "n")
    form = {"type": "json_schema", "json_schema": {**schema, "description": "d"}}
    described = JsonFormat({"type": "object", "description": "d"}, "n")
    assert read(response_format=form).chat.json_format == described


EVENTS: list[Event] = [
    ThinkingDelta(text="hm", closed=True),
    TextDelta(text="hi"),
    ToolCallDelta(index=0, id="c1", name="f"),
    ToolCallDelta(index=0, arguments='{"a":1}'),
    Usage(prompt_tokens=3, cached_tokens=1, thinking_tokens=2, completion_tokens=5),
    Finish(reason=FinishReason.TOOL_CALLS),
]


def test_the_stream_is_openais() -> None:
    writer = openai_chat.write_events(Asked(chat=ASKED.chat, stream=True), STAMP)
    told = frames(b"".join(writer.write([event]) for event in EVENTS) + writer.end())
    assert [one["choices"][0]["delta"] for one in told[:-1]] == [
        {"role": "assistant", "content": ""},
        {"reasoning": "hm", "reasoning_content": "hm"},
        {"content": "hi"},
        {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]},
        {},
    ]
    assert [one["choices"][0]["finish_reason"] for one in told[:-1]] == [None] * 5 + ["tool_calls"]
    head = {"id": f"chatcmpl-{STAMP.id}", "object": "chat.completion.chunk", "created": 7, "model": "nano"}
    assert all(head.items() <= one.items() for one in told)
    assert (told[-1]["choices"], told[-1]["usage"]["total_tokens"]) == ([], 8)
    assert told[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}


def test_deltas_that_come_together_go_out_together() -> None:
    writer = openai_chat.write_events(ASKED, STAMP)
    stream = writer.write([TextDelta(text="a"), TextDelta(text="b"), TextDelta(text="c", choice=1)])
    assert stream.count(b"data: ") == 4
    assert b'{"content":"ab"}' in stream


def test_the_whole_reply_is_openais() -> None:
    told = json.loads(openai_chat.write_reply(ASKED, fold(EVENTS), STAMP))
    message = told["choices"][0]["message"]
    assert message == {
        "role": "assistant",
        "content": "hi",
        "refusal": None,
        "reasoning": "hm",
        "reasoning_content": "hm",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
    }
    plain = json.loads(openai_chat.write_reply(ASKED, fold([Finish(reason=FinishReason.END)]), STAMP))
    assert plain["choices"][0]["message"] == {"role": "assistant", "content": "", "refusal": None}
    only = fold([event for event in EVENTS if not isinstance(event, TextDelta)])
    assert json.loads(openai_chat.write_reply(ASKED, only, STAMP))["choices"][0]["message"]["content"] is None


def test_a_hidden_thought_is_not_told() -> None:
    asked = Asked(chat=ASKED.chat, show_thinking=False)
    writer = openai_chat.write_events(asked, STAMP)
    assert b"hm" not in writer.write(EVENTS) + writer.end() + openai_chat.write_reply(asked, fold(EVENTS), STAMP)


def test_calls_without_an_id_get_one_of_their_place() -> None:
    events: list[Event] = [ToolCallDelta(index=at // 2, name="" if at % 2 else "f", arguments="{") for at in range(4)]
    events.append(Finish(reason=FinishReason.TOOL_CALLS))
    told = frames((writer := openai_chat.write_events(ASKED, STAMP)).write(events) + writer.end())
    calls = [one["choices"][0]["delta"]["tool_calls"][0] for one in told[1:-1]]
    whole = json.loads(openai_chat.write_reply(ASKED, fold(events), STAMP))["choices"][0]["message"]["tool_calls"]
    assert [call.get("id") for call in calls[::2]] == [call["id"] for call in whole]
    assert len({call["id"] for call in whole}) == 2
    assert "id" not in calls[1]


def test_the_stop_string_that_was_found_is_told() -> None:
    events: list[Event] = [TextDelta(text="a"), Finish(reason=FinishReason.STOP, stop="x")]
    told = frames((writer := openai_chat.write_events(ASKED, STAMP)).write(events) + writer.end())
    assert (told[-1]["choices"][0]["finish_reason"], told[-1]["choices"][0]["stop_reason"]) == ("stop", "x")
    read_back = openai_chat.read_reply(openai_chat.write_reply(ASKED, fold(events), STAMP))
    assert (read_back.choices[0].finish, read_back.choices[0].stop) == (FinishReason.STOP, "x")


def test_a_failure_in_mid_stream_ends_it() -> None:
    writer = openai_chat.write_events(ASKED, STAMP)
    failed: list[Event] = [TextDelta(text="a"), Finish(reason=FinishReason.ERROR, error="it broke")]
    stream = writer.write([*failed, TextDelta(text="b", choice=1)]) + writer.write(EVENTS) + writer.end()
    told = json.loads(stream.split(b"\n\n")[-2].removeprefix(b"data: "))
    assert told == {"error": {"message": "it broke", "type": "server_error", "param": None, "code": "model_failed"}}
    reader = openai_chat.read_events()
    assert reader.feed(stream) == [TextDelta(text="a")]
    with pytest.raises(Upstream, match="it broke"):
        reader.end()
    with pytest.raises(Upstream, match="it broke"):
        reader.feed(b"")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault(kind=Kind.INVALID, message="m", field="n"), 400, None),
        (Fault(kind=Kind.TOO_LONG, message="m"), 400, "context_length_exceeded"),
        (Fault(kind=Kind.UNAUTHENTICATED, message="m"), 401, "invalid_api_key"),
        (Fault(kind=Kind.NO_MODEL, message="m"), 404, "model_not_found"),
        (Fault(kind=Kind.OUT_OF_BUDGET, message="m"), 429, "insufficient_quota"),
        (Fault(kind=Kind.RATE, message="m", retry_after=1.5), 429, "rate_limit_exceeded"),
        (Fault(kind=Kind.BUSY, message="m", retry_after=0.2), 503, "overloaded"),
    ],
)
def test_errors(fault: Fault, status: int, code: str | None) -> None:
    answer = openai_chat.write_error(fault, "r")
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"], error["param"]) == (status, code, fault.field or None)
    headers = dict(answer.headers)
    assert headers.get("x-should-retry") == ("false" if fault.kind is Kind.OUT_OF_BUDGET else None)
    assert headers.get("retry-after-ms") == (None if fault.retry_after is None else f"{fault.retry_after * 1000:.0f}")


def test_models() -> None:
    card = Card(name="nano", created=7, context=99, vision=True, aliases=("n",), temperature=0.7)
    (told,) = json.loads(openai_chat.write_models([card]))["data"]
    assert json.loads(openai_chat.write_model(card)) == told
    assert (told["id"], told["object"], told["type"], told["max_context_length"]) == ("nano", "model", "base", 99)
    assert told["capabilities"]["vision"]
    assert told["capabilities"]["reasoning"]


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("system_prompt", {"system_prompt": SystemPrompt.REPLACE}),
        ("keep_thinking", {"keep_thinking": False}),
        ("messages[0].parts[0]", {"messages": (user(Thinking("x")),)}),
        ("messages[0].parts[0]", {"messages": (Message(Role.TOOL, (Text("x"),)),)}),
        (
            "messages[0].parts[1].is_error",
            {"messages": (Message(Role.TOOL, (ToolResult("a", "b"), ToolResult("c", "d", True))),)},
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(field: str, asked: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        openai_chat.write_request(Asked(chat=ChatRequest(**{"messages": (user("hi"),), **asked})))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "parts"),
    [
        ("parts[1]", [Text("a"), Thinking("b")]),
        ("parts[1]", [Text("a"), Text("b")]),
        ("parts[1]", [Thinking("a"), Thinking("b")]),
        ("parts[1]", [ToolCall("c", "f", "{}"), Text("a")]),
        ("parts[0]", [Image(data=JPEG)]),
    ],
)
def test_speech_out_of_order_is_refused(field: str, parts: list[Part]) -> None:
    with pytest.raises(Refused) as caught:
        openai_chat.write_request(Asked(chat=ChatRequest(messages=(user("hi"), assistant(*parts)))))
    assert caught.value.field == f"messages[1].{field}"


@pytest.mark.parametrize(("given", "effort"), [("grammar", None), ("thinking_tokens", Effort.LOW)])
def test_sampling_without_a_word_is_refused(given: str, effort: Effort | None) -> None:
    chat = ChatRequest(messages=(user("hi"),), effort=effort)
    with pytest.raises(Refused):
        openai_chat.write_request(Asked(chat=chat, given=frozenset({given})))


def test_results_go_one_a_message() -> None:
    results = Message(Role.TOOL, (ToolResult("a", "1"), ToolResult("b", "2")))
    told = json.loads(openai_chat.write_request(Asked(chat=ChatRequest(messages=(user("hi"), results)))))
    assert [(one["role"], one.get("tool_call_id")) for one in told["messages"][1:]] == [("tool", "a"), ("tool", "b")]


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"data: [DONE]\n\n",
        b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n',
        b"data: nothing\n\n",
        b'data: {"error":"it broke"}\n\n',
        b'data: {"choices":[{"delta":{"content":5}}]}\n\n',
    ],
)
def test_a_stream_that_breaks_off_is_an_error(stream: bytes) -> None:
    reader = openai_chat.read_events()
    with pytest.raises(Upstream):  # noqa: PT012 - which of them raises depends on what came before
        reader.feed(stream)
        reader.end()


def test_other_servers_habits_are_understood() -> None:
    """Deltas that are null, costs with the last choice, no mark of the end, an answer that was filtered."""
    said = b'data: {"choices":[{"delta":{"role":"assistant","content":null,"tool_calls":null}}]}\n\n'
    said += b'data: {"choices":[{"delta":{"reasoning_content":"h"}}]}\n\n'
    said += b'data: {"choices":[{"delta":{"content":"a"}}]}\r\n\r\n'
    said += b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
    reader = openai_chat.read_events()
    reply = fold([*reader.feed(said), *reader.end()])
    assert reply.message == assistant(Thinking("h"), "a")
    assert reply.choices[0].usage == Usage(prompt_tokens=1, completion_tokens=2)
    filtered = openai_chat.read_reply(b'{"choices":[{"message":{"content":"a"},"finish_reason":"content_filter"}]}')
    assert filtered.choices[0].error == "the model ended with content_filter"


@pytest.mark.parametrize("chunks", [True, False])
def test_signatures_of_remote_thoughts_are_kept(chunks: bool) -> None:
    def delta(text: str, **fields: Any) -> dict[str, Any]:
        if chunks:
            return {"content": [{"type": "thinking", "thinking": text, **fields}]}
        return {"reasoning": text, "reasoning_details": [{"type": "reasoning.text", "text": text, **fields}]}

    choices: list[Any] = [
        {"delta": one} for one in (delta("h"), delta("m"), delta("", signature="sig"), {"content": "so"})
    ]
    choices.append({"delta": {}, "finish_reason": "stop"})
    stream = b"".join(b"data: %b\n\n" % json.dumps({"choices": [one]}).encode() for one in choices)
    reader = openai_chat.read_events()
    assert fold([*reader.feed(stream), *reader.end()]).message == assistant(Thinking("hm", signature="sig"), "so")
    message = {**delta("hm", signature="sig"), "tool_calls": [CALL]}
    whole = openai_chat.read_reply(json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode())
    assert whole.message == assistant(Thinking("hm", signature="sig"), ToolCall("c1", "f", '{"a": 1}'))
