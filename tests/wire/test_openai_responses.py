"""The Responses dialect, field by field: what is read, what is refused by name, what is written."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

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
from magister.wire import openai_responses as responses
from magister.wire.dialect import Asked, Card, Stamp
from magister.wire.fault import BadRequest, Fault, Kind
from magister.wire.signature import seal, unseal
from magister.wire.sse import FrameReader

KEY = b"key"
STAMP = Stamp(id="a" * 32, created=1, model="nano", signing_key=KEY)
PNG = b"\x89PNG\r\n\x1a\n0"
PNG_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "c1",
    "name": "f",
    "arguments": '{"a":1}',
    "status": "completed",
}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "42"}
USER = {"role": "user", "content": "hi"}
SAID = {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "so"}]}
TOOLS = [{"type": "function", "name": name, "parameters": {"type": "object"}, "strict": True} for name in "fg"]
SEALED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"


def asked(**fields: Any) -> Asked:
    body = {"model": "nano", "input": "hi", **fields}
    return responses.read_request(json.dumps(body).encode(), signing_key=KEY)


def said(*items: dict[str, Any]) -> tuple[Message, ...]:
    return asked(input=list(items)).chat.messages


def thought(**fields: Any) -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs_1", "summary": [], **fields}


def frames(data: bytes) -> list[dict[str, Any]]:
    read = FrameReader().feed(data)
    bodies = [json.loads(frame.data) for frame in read]
    assert [frame.event for frame in read] == [body["type"] for body in bodies]
    assert [body["sequence_number"] for body in bodies] == list(range(len(bodies)))
    return bodies


def test_a_plain_request() -> None:
    assert asked() == Asked(chat=ChatRequest(messages=(user("hi"),), model="nano"))


def test_sampling_is_read_and_named() -> None:
    read = asked(temperature=0.5, top_p=0.9, max_output_tokens=9, include=[LOGPROBS], top_logprobs=3, stream=True)
    assert read.chat.sampling == Sampling(temperature=0.5, top_p=0.9, max_tokens=9, logprobs=True, top_logprobs=3)
    assert read.given == {"temperature", "top_p", "max_tokens", "logprobs", "top_logprobs"}
    assert read.stream


def test_labels_and_what_the_reply_repeats() -> None:
    read = asked(user="u", safety_identifier="s", metadata={"k": "v"}, prompt_cache_key="p", instructions="i")
    assert read.labels == {"user": "u", "safety_identifier": "s", "k": "v", "prompt_cache_key": "p"}
    reply = json.loads(responses.write_reply(read, fold(EVENTS), STAMP))
    assert (reply["metadata"], reply["instructions"], reply["user"]) == ({"k": "v"}, "i", "u")
    assert asked(client_metadata={"turn": "1"}, metadata={"k": "v"}).labels == {"turn": "1", "k": "v"}


@pytest.mark.parametrize("word", list(Effort))
def test_effort(word: Effort) -> None:
    assert asked(reasoning={"effort": word, "summary": "auto", "mode": "standard"}).chat.effort is word


def test_whether_earlier_thoughts_stay() -> None:
    assert asked(reasoning={"context": "all_turns"}).chat.keep_thinking
    assert not asked(reasoning={"context": "current_turn"}).chat.keep_thinking


def test_instructions_and_systems() -> None:
    developer = {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "b"}]}
    items = [developer, USER, {"role": "system", "content": "c"}]
    read = asked(instructions="a", input=items).chat.messages
    assert read == (system("a"), system("b"), user("hi"), system("c"))


def test_texts_and_images() -> None:
    parts = [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": PNG_URL, "detail": "auto"},
        {"type": "input_image", "image_url": "https://a.b/c"},
    ]
    assert said({"role": "user", "content": parts}) == (user("a", Image(data=PNG), Image(url="https://a.b/c")),)


def test_one_turn_of_an_assistant_is_one_message() -> None:
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    hm = thought(content=[{"type": "reasoning_text", "text": "hm"}])
    again = {**CALL, "call_id": "c2"}
    parts = [{"type": "input_text", "text": "4"}, {"type": "input_text", "text": "2"}]
    results: list[dict[str, Any]] = [RESULT, {**RESULT, "call_id": "c2", "output": parts}]
    read = said(USER, hm, SAID, CALL, again, *results, hm, refusal, USER)
    calls = [ToolCall("c1", "f", '{"a":1}'), ToolCall("c2", "f", '{"a":1}')]
    assert read[1:] == (
        assistant(Thinking("hm"), "so", *calls),
        Message(Role.TOOL, (ToolResult("c1", "42"), ToolResult("c2", "4\n2"))),
        assistant(Thinking("hm"), "no"),
        user("hi"),
    )
    assert said(USER, hm, SAID, hm, SAID)[1] == assistant(Thinking("hm\n\nhm"), "so\n\nso")


def test_images_among_results_are_shown_behind_them() -> None:
    image = {"type": "input_image", "image_url": PNG_URL}
    output = [{"type": "input_text", "text": "a page"}, image]
    read = said(USER, {**CALL, "async": None}, {**RESULT, "output": output}, SAID, USER)
    expected = (Message(Role.TOOL, (ToolResult("c1", "a page"),)), user(Image(data=PNG)), assistant("so"), user("hi"))
    assert read[2:] == expected
    calls = [CALL, {**CALL, "call_id": "c2"}]
    both = said(USER, *calls, {**RESULT, "output": [image]}, {**RESULT, "call_id": "c2"})
    assert both[2:] == (Message(Role.TOOL, (ToolResult("c1", ""), ToolResult("c2", "42"))), user(Image(data=PNG)))


def test_thoughts_in_every_shape() -> None:
    content, summary = [{"type": "reasoning_text", "text": "hm"}], [{"type": "summary_text", "text": "mh"}]
    sealed, foreign = seal(KEY, "hm"), seal(b"other", "hm")
    assert said(USER, thought(content=content, encrypted_content=foreign), SAID)[1].parts[0] == Thinking(
        "hm", signature=foreign
    )
    assert said(USER, thought(summary=summary, encrypted_content=sealed), SAID)[1].parts[0] == Thinking(
        "hm", signature=sealed
    )
    assert said(USER, thought(summary=summary), SAID)[1] == assistant(Thinking("mh"), "so")
    assert said(USER, thought(encrypted_content=foreign), SAID)[1] == assistant("so")
    assert said(USER, thought(encrypted_content=None), USER) == (user("hi"), user("hi"))


def test_a_thought_cut_off_goes_on() -> None:
    cut = thought(content=[{"type": "reasoning_text", "text": "hm"}], status="incomplete")
    assert said(USER, cut)[-1] == assistant(Thinking("hm", closed=False))
    assert said(USER, cut, SAID)[-1] == assistant(Thinking("hm"), "so")


def test_tools_and_choices() -> None:
    read = asked(tools=[{**TOOLS[0], "description": "d"}, {**TOOLS[1], "parameters": None}], parallel_tool_calls=False)
    empty = {"type": "object", "properties": {}}
    assert read.chat.tools == (Tool("f", {"type": "object"}, "d"), Tool("g", empty))
    assert read.chat.tool_choice == ToolChoice(parallel=False)
    for word in ("auto", "none", "required"):
        assert asked(tools=TOOLS, tool_choice=word).chat.tool_choice == ToolChoice(ToolMode(word))
    named = asked(tools=TOOLS, tool_choice={"type": "function", "name": "g"}).chat
    assert (named.tool_choice, len(named.tools)) == (ToolChoice(ToolMode.NAMED, "g"), 2)
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}
    allowed = asked(tools=TOOLS, tool_choice=choice).chat
    assert (allowed.tool_choice, [tool.name for tool in allowed.tools]) == (ToolChoice(ToolMode.REQUIRED), ["g"])


def test_structured_output() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    assert asked(text={"format": schema}).chat.json_format == JsonFormat({"type": "object"}, "n")
    assert asked(text={"format": {"type": "json_object"}}).chat.json_format == JsonFormat()
    assert asked(text={"format": {"type": "text"}, "verbosity": "medium"}).chat.json_format is None


def test_what_asks_for_nothing_is_taken() -> None:
    nothing = {"store": False, "background": False, "previous_response_id": None, "conversation": None}
    usual = {"truncation": "disabled", "service_tier": "auto", "stream_options": {"include_obfuscation": False}}
    caching = {"prompt_cache_retention": "in_memory", "prompt_cache_options": {"mode": "implicit"}}
    read = asked(**nothing, **usual, **caching, include=[], tools=[], metadata={}, instructions="", text=None)
    assert (read.chat, read.given, read.labels) == (asked().chat, frozenset(), {})


@pytest.mark.parametrize(
    ("fields", "field", "word"),
    [
        ({"input": None}, "input", "required"),
        ({"input": []}, "input", "empty"),
        ({"input": 1}, "input", "str"),
        ({"model": None}, "model", "required"),
        ({"frobnicate": 1}, "frobnicate", "no such field"),
        ({"store": True}, "store", "keeps no responses"),
        ({"previous_response_id": "r"}, "previous_response_id", "send the items again"),
        ({"conversation": {"id": "c"}}, "conversation", "keeps no responses"),
        ({"background": True}, "background", "stream it"),
        ({"prompt": {"id": "p"}}, "prompt", "no stored prompts"),
        ({"moderation": {"model": "m"}}, "moderation", "filter"),
        ({"truncation": "auto"}, "truncation", "disabled"),
        ({"service_tier": "flex"}, "service_tier", "'flex'"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation", "padded"),
        ({"prompt_cache_retention": "24h"}, "prompt_cache_retention", "memory"),
        ({"prompt_cache_options": {"ttl": "12h"}}, "prompt_cache_options.ttl", "depends"),
        ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options.mode", "implicit"),
        ({"include": [SEALED, "file_search_call.results"]}, "include[1]", "file_search_call.results"),
        ({"temperature": 2.5}, "temperature", "from 0 to 2, got 2.5"),
        ({"top_p": 1.5}, "top_p", "from 0 to 1"),
        ({"max_output_tokens": 0}, "max_output_tokens", "from 1 to"),
        ({"top_logprobs": 21}, "top_logprobs", "from 0 to 20, got 21"),
        ({"top_logprobs": 2}, "top_logprobs", LOGPROBS),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "huge"),
        ({"reasoning": {"summary": "concise"}}, "reasoning.summary", "detailed"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode", "'pro'"),
        ({"reasoning": {"max_tokens": 1}}, "reasoning.max_tokens", "no such field"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "medium"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema", "required"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", "required"),
        ({"text": {"format": {"type": "text", "name": "n"}}}, "text.format.name", "json_schema"),
        ({"metadata": {str(at): "" for at in range(17)}}, "metadata", "at most 16 pairs, got 17"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'web_search'"),
        ({"tools": [{"name": "f"}]}, "tools[0].type", "required"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "required"),
        ({"tools": [{**TOOLS[0], "defer_loading": True}]}, "tools[0].defer_loading", "shown"),
        ({"tools": [{**TOOLS[0], "async": True}]}, "tools[0].async", "waits"),
        ({"tools": [{**TOOLS[0], "output_schema": {"a": 1}}]}, "tools[0].output_schema", "description"),
        ({"tools": [{**TOOLS[0], "allowed_callers": ["programmatic"]}]}, "tools[0].allowed_callers", "direct"),
        ({"tool_choice": "any"}, "tool_choice", "'any'"),
        ({"tool_choice": "required"}, "tool_choice", "at least one tool"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice.type", "file_search"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "h"}}, "tool_choice.name", "'h'"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice.tools", "empty"),
    ],
)
def test_what_cannot_be_honoured_is_named(fields: Any, field: str, word: str) -> None:
    with pytest.raises(BadRequest) as caught:
        asked(**fields)
    assert caught.value.fault.field == field
    assert word in caught.value.fault.message
    assert (caught.value.fault.kind is Kind.UNKNOWN_FIELD) is (word == "no such field")


def holding(part: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": [part]}


@pytest.mark.parametrize(
    ("item", "field", "word"),
    [
        ({"type": "item_reference", "id": "x"}, "type", "send the items again"),
        ({"id": "x"}, "", "send the items again"),
        ({}, "", "a type or a role"),
        ({"type": "web_search_call", "id": "x"}, "type", "runs no tools"),
        ({"type": "mcp_list_tools"}, "type", "runs no tools"),
        ({"type": "custom_tool_call"}, "type", "functions"),
        ({"type": "poem"}, "type", "must be one of"),
        ({"role": "user"}, "content", "required"),
        ({"role": "user", "content": []}, "content", "empty"),
        ({"role": "tool", "content": "x"}, "role", "tool"),
        (holding({"type": "input_file", "file_id": "x"}), "content[0].type", "send their text"),
        (holding({"type": "input_audio"}), "content[0].type", "no sound"),
        (holding({"type": "output_text", "text": "x"}), "content[0].type", "input_text"),
        (holding({"type": "input_text"}), "content[0].text", "required"),
        (holding({"type": "input_image", "file_id": "x"}), "content[0].file_id", "image_url"),
        (holding({"type": "input_image"}), "content[0].image_url", "required"),
        (holding({"type": "input_image", "image_url": PNG_URL, "detail": "low"}), "content[0].detail", "smaller"),
        (holding({"type": "input_image", "image_url": "x"}), "content[0].image_url", "data URL"),
        (holding({"type": "input_image", "image_url": "x"}, "system"), "content[0].type", "input_text"),
        ({**CALL, "call_id": "c2"}, "", "no function_call_output"),
        ({**CALL, "arguments": "[1]"}, "arguments", "JSON object"),
        ({**CALL, "namespace": "n"}, "namespace", "namespaces"),
        ({**CALL, "caller": {"type": "program"}}, "caller", "runs no tools"),
        ({**RESULT, "call_id": "x"}, "call_id", "'x'"),
        ({**RESULT, "output": [{"type": "input_image", "image_url": "x"}]}, "output[0].image_url", "data URL"),
        ({**RESULT, "output": [{"type": "input_file", "file_id": "x"}]}, "output[0].type", "send their text"),
        ({**CALL, "async": True}, "async", "waits"),
        (thought(content=[{"type": "reasoning_text"}]), "content[0].text", "required"),
    ],
)
def test_items_are_named_by_their_place(item: Any, field: str, word: str) -> None:
    first = [CALL] if item.get("type") == "function_call_output" else [USER]
    with pytest.raises(BadRequest) as caught:
        said(*first, item)
    assert caught.value.fault.field == f"input[1].{field}".rstrip(".")
    assert word in caught.value.fault.message


def test_calls_are_made_and_answered_once() -> None:
    with pytest.raises(BadRequest, match=r"^input\[3\].call_id: .*answered already"):
        said(USER, CALL, RESULT, RESULT)
    assert said(USER, {**CALL, "arguments": ""}, RESULT)[1] == assistant(ToolCall("c1", "f", "{}"))
    with pytest.raises(BadRequest, match=r"^input\[2\].call_id: .*twice"):
        said(USER, CALL, CALL)


EVENTS: list[Event] = [
    ThinkingDelta(text="h"),
    ThinkingDelta(text="m", closed=True),
    TextDelta(text="so"),
    ToolCallDelta(index=0, id="c1", name="f"),
    ToolCallDelta(index=0, arguments='{"a":1}'),
    Usage(prompt_tokens=9, cached_tokens=4, thinking_tokens=3, completion_tokens=7),
    Finish(reason=FinishReason.TOOL_CALLS),
]
MESSAGE_FRAMES = [
    *("output_item.added", "content_part.added", "output_text.delta", "output_text.done"),
    *("content_part.done", "output_item.done"),
]
CALL_FRAMES = [
    *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
]


def test_a_stream_item_by_item() -> None:
    writer = responses.write_events(asked(), STAMP)
    told = frames(writer.write(EVENTS) + writer.end())
    assert [frame["type"].removeprefix("response.") for frame in told] == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta"),
        *("reasoning_text.done", "content_part.done", "output_item.done"),
        *MESSAGE_FRAMES,
        *CALL_FRAMES,
        "completed",
    ]
    assert [frame["output_index"] for frame in told[2:-1]] == [0] * 7 + [1] * 6 + [2] * 4
    assert (told[0]["response"]["status"], told[0]["response"]["output"]) == ("in_progress", [])
    ids = [f"{kind}_{STAMP.id}{at:02}" for at, kind in enumerate(("rs", "msg", "fc"))]
    assert told[2]["item"] == {
        "id": ids[0],
        "type": "reasoning",
        "summary": [],
        "content": [],
        "status": "in_progress",
    }
    place = {"output_index": 0, "item_id": ids[0], "content_index": 0}
    part = {"type": "reasoning_text", "text": ""}
    assert told[3] == {"type": "response.content_part.added", "sequence_number": 3, **place, "part": part}
    assert {frame["item_id"] for frame in told if "item_id" in frame} == set(ids)
    assert [item["id"] for item in told[-1]["response"]["output"]] == ids


def test_a_whole_reply() -> None:
    reply = json.loads(responses.write_reply(asked(), fold(EVENTS), STAMP))
    assert (reply["id"], reply["object"], reply["status"]) == (f"resp_{STAMP.id}", "response", "completed")
    assert (reply["error"], reply["incomplete_details"], reply["store"]) == (None, None, False)
    assert reply["output"][1]["content"] == [{"type": "output_text", "text": "so", "annotations": []}]
    assert reply["output"][2] == {**CALL, "id": f"fc_{STAMP.id}02"}
    assert reply["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 16,
    }


def test_a_thought_as_a_summary_and_under_seal() -> None:
    wanted = asked(reasoning={"summary": "auto"}, include=[SEALED])
    writer = responses.write_events(wanted, STAMP)
    told = frames(writer.write(EVENTS) + writer.end())
    parts = [frame["type"].removeprefix("response.reasoning_summary_") for frame in told if "summary_index" in frame]
    assert parts == ["part.added", "text.delta", "text.delta", "text.done", "part.done"]
    item = told[-1]["response"]["output"][0]
    assert item["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert unseal(KEY, item["encrypted_content"]) == "hm"
    del item["content"]
    assert said(USER, item, SAID)[1].thinking == "hm"


def test_a_reply_cut_short_is_incomplete() -> None:
    events: list[Event] = [TextDelta(text="x"), Finish(reason=FinishReason.LENGTH)]
    writer = responses.write_events(asked(), STAMP)
    last = frames(writer.write(events) + writer.end())[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["output"][0]["status"] == "incomplete"


def test_unset_ids_are_made() -> None:
    reply = fold([ToolCallDelta(index=0, name="f", arguments="{}"), Finish(reason=FinishReason.TOOL_CALLS)])
    (item,) = json.loads(responses.write_reply(asked(), reply, STAMP))["output"]
    assert item["call_id"] == "call_aaaaaaaaaaaaaaaa_0"


def test_a_failure_ends_a_stream() -> None:
    writer = responses.write_events(asked(), STAMP)
    data = writer.write([TextDelta(text="x"), Finish(reason=FinishReason.ERROR, error="it broke")]) + writer.end()
    error, failed = frames(data)[-2:]
    assert (error["type"], error["message"], error["param"]) == ("error", "it broke", None)
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": "server_error", "message": "it broke"}
    with pytest.raises(Upstream, match="it broke"):
        responses.read_events().feed(data)
    early = responses.write_events(asked(), STAMP).fail(Fault(kind=Kind.BUSY, message="full"))
    assert [frame["type"] for frame in frames(early)] == ["error"]


def test_streams_that_break_off_or_are_none() -> None:
    reader = responses.read_events()
    reader.feed(responses.write_events(asked(), STAMP).write([TextDelta(text="x")]))
    with pytest.raises(Upstream, match="broke off"):
        reader.end()
    with pytest.raises(Upstream, match="no event"):
        responses.read_events().feed(b"data: [1]\n\n")
    with pytest.raises(Upstream, match="no response"):
        responses.read_reply(b"{}")
    with pytest.raises(Upstream, match="it broke"):
        responses.read_reply(b'{"status":"failed","error":{"message":"it broke"}}')
    filtered = b'{"status":"incomplete","incomplete_details":{"reason":"content_filter"}}'
    assert responses.read_reply(filtered).choices[0].error == "the response ended with content_filter"


def test_thoughts_of_others_come_as_summaries_or_not_at_all() -> None:
    frame = b'data: {"type":"response.reasoning_summary_text.delta","output_index":0,"delta":"hm"}\n\n'
    done = b'data: {"type":"response.output_item.done","output_index":0,"item":{"type":"reasoning","summary":[]}}\n\n'
    assert responses.read_events().feed(frame + done) == [
        ThinkingDelta(text="hm"),
        ThinkingDelta(text="", closed=True),
    ]
    assert responses.read_events().feed(done) == []


def test_the_parts_of_a_summary_are_paragraphs() -> None:
    texts = ["one", "two"]
    stream, summary = b"", []
    for at, text in enumerate(texts):
        about = {"output_index": 0, "summary_index": at}
        added = {"type": "response.reasoning_summary_part.added", **about}
        delta = {"type": "response.reasoning_summary_text.delta", **about, "delta": text}
        stream += b"".join(b"data: %b\n\n" % json.dumps(frame).encode() for frame in (added, delta))
        summary.append({"type": "summary_text", "text": text})
    item = {"type": "reasoning", "summary": summary}
    streamed = fold(responses.read_events().feed(stream)).message.thinking
    whole = responses.read_reply(json.dumps({"status": "completed", "output": [item]}).encode()).message.thinking
    assert streamed == whole == "one\n\ntwo"


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (Kind.INVALID, 400, None),
        (Kind.UNKNOWN_FIELD, 400, "unknown_parameter"),
        (Kind.UNAUTHENTICATED, 401, "invalid_api_key"),
        (Kind.OUT_OF_BUDGET, 429, "insufficient_quota"),
        (Kind.NO_MODEL, 404, "model_not_found"),
        (Kind.RATE, 429, "rate_limit_exceeded"),
        (Kind.BUSY, 503, "overloaded"),
        (Kind.UPSTREAM, 502, "model_failed"),
    ],
)
def test_faults_have_openais_words(kind: Kind, status: int, code: str | None) -> None:
    answer = responses.write_error(Fault(kind=kind, message="m", field="input"), "r")
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"], error["param"]) == (status, code, "input")


def test_models() -> None:
    card = Card(name="nano", created=1, context=9)
    assert json.loads(responses.write_models([card]))["data"][0] == json.loads(responses.write_model(card))


@pytest.mark.parametrize(
    ("chat", "field"),
    [
        ({"system_prompt": SystemPrompt.REPLACE}, "system_prompt"),
        ({"sampling": Sampling(seed=1)}, "sampling.seed"),
        ({"sampling": Sampling(thinking_tokens=8)}, "sampling.thinking_tokens"),
        ({"json_format": JsonFormat(None, "n")}, "json_format.name"),
        ({"messages": ()}, "messages"),
        ({"messages": (system("s"),)}, "messages"),
        ({"messages": (user("a"), assistant("b"), assistant("c"))}, "messages[2]"),
        ({"messages": (user("a"), assistant(ToolCall("c", "f", "[]")))}, "messages[1].parts[0].arguments"),
        ({"messages": (user("a"), assistant(ToolCall("c", "f", "{}")))}, "messages[1].parts[0]"),
        ({"messages": (user("a"), assistant("b", Thinking("c")))}, "messages[1].parts"),
        ({"messages": (user("a"), assistant(Text("")))}, "messages[1].parts[0].text"),
        ({"messages": (user(Thinking("c")),)}, "messages[0].parts[0]"),
        ({"messages": (user(Image(data=b"x")),)}, "messages[0].parts[0]"),
    ],
)
def test_what_has_no_word_is_refused(chat: Any, field: str) -> None:
    fields = {"messages": (user("hi"),), "model": "nano", **chat}
    with pytest.raises(Refused) as caught:
        responses.write_request(Asked(chat=ChatRequest(**fields)))
    assert caught.value.field == field


def test_a_failed_tool_has_no_word() -> None:
    call, failed = ToolCall("c", "f", "{}"), Message(Role.TOOL, (ToolResult("c", "x", is_error=True),))
    with pytest.raises(Refused, match="is_error"):
        responses.write_request(Asked(chat=ChatRequest(messages=(user("a"), assistant(call), failed), model="m")))
