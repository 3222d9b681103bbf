"""Anthropic's dialect, field by field: what is read, what is refused by name, what is written."""

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
from magister.wire import anthropic
from magister.wire.dialect import Asked, Card, Stamp
from magister.wire.fault import BadRequest, Fault, Kind
from magister.wire.signature import seal, sign, unseal, verify
from magister.wire.sse import FrameReader

KEY = b"key"
STAMP = Stamp(id="a" * 32, created=1, model="nano", signing_key=KEY)
PNG = b"\x89PNG\r\n\x1a\n0"
PNG64 = base64.b64encode(PNG).decode()
CALL = {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
RESULT = {"type": "tool_result", "tool_use_id": "c1", "content": "42"}
TOOLS = [{"name": "f", "input_schema": {"type": "object"}}]


FORMAT = {"type": "json_schema", "schema": {"type": "object"}}
CLEAR = {"type": "clear_thinking_20251015"}


def asked(**fields: Any) -> Asked:
    body = {"model": "nano", "max_tokens": 2000, "messages": [{"role": "user", "content": "hi"}], **fields}
    return anthropic.read_request(json.dumps(body).encode(), signing_key=KEY)


def said(*messages: tuple[str, Any]) -> tuple[Message, ...]:
    return asked(messages=[{"role": role, "content": content} for role, content in messages]).chat.messages


def answered(*blocks: dict[str, Any]) -> Message:
    """An assistant's message of blocks, amid a conversation."""
    return said(("user", "hi"), ("assistant", list(blocks)), ("user", "and?"))[1]


def frames(data: bytes) -> list[dict[str, Any]]:
    read = FrameReader().feed(data)
    bodies = [json.loads(frame.data) for frame in read]
    assert [frame.event for frame in read] == [body["type"] for body in bodies]
    return bodies


def test_a_plain_request() -> None:
    assert asked() == Asked(
        chat=ChatRequest(messages=(user("hi"),), model="nano", sampling=Sampling(max_tokens=2000)),
        given=frozenset({"max_tokens"}),
    )


def test_sampling_is_read_and_named() -> None:
    read = asked(temperature=0.5, top_p=0.9, top_k=4, stop_sequences=["x"], stream=True, metadata={"user_id": "u"})
    assert read.chat.sampling == Sampling(max_tokens=2000, temperature=0.5, top_p=0.9, top_k=4, stop=("x",))
    assert read.given == {"max_tokens", "temperature", "top_p", "top_k", "stop"}
    assert read.stream
    assert read.labels == {"user_id": "u"}


@pytest.mark.parametrize(
    ("fields", "effort", "budget", "shown"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, None, 1024, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}}, None, 1024, False),
        ({"thinking": {"type": "adaptive"}}, None, None, True),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, None, None, True),
        ({"thinking": {"type": "disabled"}}, Effort.NONE, None, True),
        ({"thinking": {"type": "between_tools"}}, Effort.NONE, None, True),
        ({"output_config": {"effort": "max"}}, Effort.MAX, None, True),
        ({"output_config": {"effort": "low"}, "thinking": {"type": "disabled"}}, Effort.NONE, None, True),
    ],
)
def test_thinking_in_all_its_words(fields: Any, effort: Effort | None, budget: int | None, shown: bool) -> None:
    read = asked(**fields)
    assert (read.chat.effort, read.chat.sampling.thinking_tokens, read.show_thinking) == (effort, budget, shown)
    assert ("thinking_tokens" in read.given) is (budget is not None)


def test_systems_first_and_amid() -> None:
    blocks = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": ""}]
    read = asked(system=blocks, messages=[{"role": "user", "content": "b"}, {"role": "system", "content": "c"}])
    assert read.chat.messages == (system("a"), user("b"), system("c"))
    assert asked(system="").chat.messages == (user("hi"),)


def test_images_by_bytes_and_by_url() -> None:
    sources = [{"type": "base64", "media_type": "image/png", "data": PNG64}, {"type": "url", "url": "https://a.b/c"}]
    read = said(("user", [{"type": "image", "source": source} for source in sources]))
    assert read == (user(Image(data=PNG), Image(url="https://a.b/c")),)


def test_calls_and_results() -> None:
    parts = [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]
    failed = {"type": "tool_result", "tool_use_id": "c1", "content": parts, "is_error": True}
    read = said(("user", "hi"), ("assistant", [CALL]), ("user", [failed, {"type": "text", "text": "so?"}]))
    assert read[1:] == (
        assistant(ToolCall("c1", "f", '{"a": 1}')),
        Message(Role.TOOL, (ToolResult("c1", "4\n2", is_error=True),)),
        user("so?"),
    )


def test_a_prefill_is_continued() -> None:
    assert said(("user", "hi"), ("assistant", "The"))[-1] == assistant("The")
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    assert said(("user", "hi"), ("assistant", [thought]))[-1] == assistant(Thinking("hm", closed=False))
    assert said(("user", "hi"), ("assistant", [])) == (user("hi"),)


@pytest.mark.parametrize("signature", ["", "forged", sign(KEY, "hm"), sign(b"other", "hm"), None])
def test_a_replayed_thought_is_a_thought_whoever_signed_it(signature: str | None) -> None:
    block = {"type": "thinking", "thinking": "hm", "signature": signature}
    text = {"type": "text", "text": "so"}
    assert answered(text, block) == assistant(Thinking("hm", signature=signature or None), "so")


def test_thoughts_replayed_without_their_text() -> None:
    sealed, text = seal(KEY, "hm"), {"type": "text", "text": "so"}
    omitted = {"type": "thinking", "thinking": "", "signature": sealed}
    assert answered(omitted, text) == assistant(Thinking("hm", signature=sealed), "so")
    redacted = {"type": "redacted_thinking", "data": sealed}
    assert answered(redacted, text) == assistant(Thinking("hm", signature=sealed), "so")
    foreign = {"type": "redacted_thinking", "data": seal(b"other", "hm")}
    assert answered(foreign, {**omitted, "signature": "x"}, text) == assistant("so")
    assert said(("user", "hi"), ("assistant", [foreign]), ("user", "and?")) == (user("hi"), user("and?"))


def test_thoughts_between_blocks_become_one() -> None:
    blocks = [{"type": "thinking", "thinking": name, "signature": "s"} for name in "ab"]
    text = {"type": "text", "text": "so"}
    assert answered(blocks[0], text, blocks[1], text) == assistant(Thinking("a\n\nb"), "soso")


def test_tools_and_choices() -> None:
    read = asked(tools=[{**TOOLS[0], "description": "d", "strict": True, "type": "custom"}]).chat
    assert (read.tools, read.tool_choice) == ((Tool("f", {"type": "object"}, "d"),), ToolChoice())
    named = asked(tools=TOOLS, tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True})
    assert named.chat.tool_choice == ToolChoice(ToolMode.NAMED, "f", parallel=False)
    assert asked(tools=TOOLS, tool_choice={"type": "any"}).chat.tool_choice == ToolChoice(ToolMode.REQUIRED)
    assert asked(tools=TOOLS, tool_choice={"type": "none"}).chat.tool_choice == ToolChoice(ToolMode.NONE)


def test_structured_output() -> None:
    config = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert asked(output_config=config).chat.json_format == JsonFormat({"type": "object"})


def test_what_asks_for_nothing_is_taken() -> None:
    nothing = {"container": None, "speed": "standard", "service_tier": "auto", "inference_geo": None}
    caching = {"cache_control": {"type": "ephemeral", "ttl": "1h"}, "diagnostics": {"previous_message_id": None}}
    empty: dict[str, Any] = {
        "stop_sequences": [],
        "tools": [],
        "mcp_servers": [],
        "thinking": None,
        "output_config": None,
    }
    edits = {"context_management": {"edits": [{**CLEAR, "keep": "all"}, {**CLEAR, "keep": {"type": "all"}}]}}
    assert asked(**nothing, **caching, **empty, **edits) == asked()


def test_the_older_name_of_a_format() -> None:
    assert asked(output_format=FORMAT) == asked(output_config={"format": FORMAT})
    assert asked(output_format=FORMAT).chat.json_format == JsonFormat({"type": "object"})


@pytest.mark.parametrize(
    ("fields", "field", "word"),
    [
        ({"messages": []}, "messages", "empty"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content", "empty"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "tool"),
        ({"model": None}, "model", "required"),
        ({"max_tokens": None}, "max_tokens", "required"),
        ({"max_tokens": 0}, "max_tokens", "from 1 to"),
        ({"temperature": 1.5}, "temperature", "from 0 to 1, got 1.5"),
        ({"top_p": -1}, "top_p", "from 0 to 1"),
        ({"top_k": -1}, "top_k", "from 0"),
        ({"stop_sequences": ["a", ""]}, "stop_sequences[1]", "empty"),
        ({"frobnicate": 1}, "frobnicate", "no such field"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens", "required"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10}}, "thinking.budget_tokens", "1024, got 10"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking.budget_tokens", "max_tokens 2000"),
        ({"thinking": {"type": "adaptive", "budget_tokens": 2000}}, "thinking.budget_tokens", "enabled"),
        ({"thinking": {"type": "disabled", "display": "omitted"}}, "thinking.display", "adaptive"),
        ({"thinking": {"type": "deep"}}, "thinking.type", "deep"),
        ({"output_config": {"effort": "minimal"}}, "output_config.effort", "minimal"),
        ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type", "json_object"),
        ({"output_format": {"type": "json_schema"}}, "output_format.schema", "required"),
        ({"output_format": FORMAT, "output_config": {"format": FORMAT}}, "output_format", "output_config.format"),
        ({"container": "c"}, "container", "containers"),
        ({"mcp_servers": [{}]}, "mcp_servers", "tools"),
        ({"context_management": {"edits": [CLEAR]}}, "context_management.edits[0]", "messages"),
        ({"context_management": {"edits": [{**CLEAR, "keep": "all"}, {"type": "compact_20260112"}]}},
         "context_management.edits[1]", "messages"),
        ({"thread": {"type": "create"}}, "thread", "kept"),
        ({"fallbacks": [{"model": "x"}]}, "fallbacks", "itself"),
        ({"diagnostics": {"previous_message_id": "m"}}, "diagnostics.previous_message_id", "kept"),
        ({"inference_geo": "eu"}, "inference_geo", "where it is"),
        ({"workspace_id": "w"}, "workspace_id", "workspaces"),
        ({"speed": "fast"}, "speed", "standard"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools[0].type", "web_search_20250305"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema", "required"),
        ({"tools": [{**TOOLS[0], "defer_loading": True}]}, "tools[0].defer_loading", "shown"),
        ({"tools": [{**TOOLS[0], "input_examples": [{}]}]}, "tools[0].input_examples", "description"),
        ({"tools": [{**TOOLS[0], "allowed_callers": ["x"]}]}, "tools[0].allowed_callers", "direct"),
        ({"tools": [{**TOOLS[0], "x": 1}]}, "tools[0].x", "no such field"),
        ({"tool_choice": {"type": "any"}}, "tool_choice.type", "at least one"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name", "required"),
        ({"tool_choice": {"type": "auto", "name": "f"}}, "tool_choice.name", "type tool"),
        ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice.name", "'g'"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_named(fields: Any, field: str, word: str) -> None:
    with pytest.raises(BadRequest) as caught:
        asked(**fields)
    assert caught.value.fault.field == field
    assert word in caught.value.fault.message
    assert (caught.value.fault.kind is Kind.UNKNOWN_FIELD) is (word == "no such field")


@pytest.mark.parametrize(
    ("role", "block", "field", "word"),
    [
        ("user", {"type": "document", "source": {}}, "type", "text"),
        ("user", {"type": "thinking", "thinking": "x"}, "type", "'thinking'"),
        ("user", {"text": "x"}, "type", "required"),
        ("user", {"type": "text", "text": 1}, "text", "str"),
        ("user", {"type": "text", "text": "x", "citations": [{}]}, "citations", "alone"),
        ("user", {"type": "image", "source": {"type": "file", "file_id": "f"}}, "source.type", "base64"),
        ("user", {"type": "image", "source": {"type": "url", "url": "ftp://x"}}, "source.url", "http"),
        ("user", {"type": "image", "source": {"type": "url"}}, "source.url", "required"),
        ("user", {"type": "image", "source": {"type": "base64", "media_type": "image/png"}}, "source.data", "required"),
        ("user", {"type": "tool_result", "tool_use_id": "x"}, "tool_use_id", "'x'"),
        ("assistant", {"type": "image", "source": {}}, "type", "'image'"),
        ("assistant", {"type": "server_tool_use", "id": "x"}, "type", "runs no tools"),
        ("assistant", {"type": "tool_use", "id": "x", "name": "f", "input": "x"}, "input", "object"),
        ("assistant", {**CALL, "caller": {"type": "code_execution_20250825"}}, "caller", "runs no tools"),
        ("assistant", CALL, "", "no tool_result"),
        ("system", {"type": "image", "source": {}}, "type", "text"),
    ],
)
def test_blocks_are_named_by_their_place(role: str, block: Any, field: str, word: str) -> None:
    with pytest.raises(BadRequest) as caught:
        said(("user", "hi"), (role, [{"type": "text", "text": "x"}, block]))
    assert caught.value.fault.field == f"messages[1].content[1].{field}".rstrip(".")
    assert word in caught.value.fault.message


def test_images_among_results_are_shown_behind_them() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PNG64}
    result = {**RESULT, "content": [{"type": "text", "text": "a page"}, {"type": "image", "source": source}]}
    asks = {"type": "text", "text": "so?"}
    results = Message(Role.TOOL, (ToolResult("c1", "a page"),))
    for content in ([result, asks], [asks, result]):
        read = said(("user", "hi"), ("assistant", [CALL]), ("user", content))
        assert read[2:] == (results, user(Image(data=PNG), "so?"))
    alone = said(("user", "hi"), ("assistant", [CALL]), ("user", [result]))
    assert alone[2:] == (results, user(Image(data=PNG)))


def test_results_hold_texts_and_images_and_answer_once() -> None:
    document = {**RESULT, "content": [{"type": "document", "source": {}}]}
    with pytest.raises(BadRequest, match=r"messages\[2\].content\[0\].content\[0\].type: 'document': .*text"):
        said(("user", "hi"), ("assistant", [CALL]), ("user", [document]))
    image = {**RESULT, "content": [{"type": "image", "source": {"type": "url"}}]}
    with pytest.raises(BadRequest, match=r"messages\[2\].content\[0\].content\[0\].source.url: "):
        said(("user", "hi"), ("assistant", [CALL]), ("user", [image]))
    with pytest.raises(BadRequest, match=r"content\[1\].tool_use_id: .*answered already"):
        said(("user", "hi"), ("assistant", [CALL]), ("user", [RESULT, RESULT]))


def test_counting_asks_for_no_answer() -> None:
    body: dict[str, Any] = {"model": "nano", "messages": [{"role": "user", "content": "hi"}], "system": "s"}
    assert anthropic.read_count_request(json.dumps(body).encode()).chat.messages == (system("s"), user("hi"))
    assert json.loads(anthropic.write_count(7)) == {"input_tokens": 7}
    asked = anthropic.read_count_request(json.dumps({**body, "user_profile_id": "p", "workspace_id": None}).encode())
    assert asked.labels == {"user_profile_id": "p"}
    with pytest.raises(BadRequest, match="max_tokens: there is no such field"):
        anthropic.read_count_request(json.dumps({**body, "max_tokens": 1}).encode())


EVENTS: list[Event] = [
    ThinkingDelta(text="h"),
    ThinkingDelta(text="m", closed=True),
    TextDelta(text="so"),
    ToolCallDelta(index=0, id="c1", name="f"),
    ToolCallDelta(index=0, arguments='{"a":1}'),
    Usage(prompt_tokens=9, cached_tokens=4, thinking_tokens=3, completion_tokens=7),
    Finish(reason=FinishReason.TOOL_CALLS),
]
COST = {
    "input_tokens": 5,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 4,
    "output_tokens": 7,
    "output_tokens_details": {"thinking_tokens": 3},
}


def test_a_stream_block_by_block() -> None:
    writer = anthropic.write_events(asked(), STAMP)
    told = frames(writer.write(EVENTS) + writer.end())
    assert [frame["type"].removeprefix("content_") for frame in told] == [
        *("message_start", "ping"),
        *("block_start", "block_delta", "block_delta", "block_delta", "block_stop"),
        *("block_start", "block_delta", "block_stop"),
        *("block_start", "block_delta", "block_stop"),
        *("message_delta", "message_stop"),
    ]
    assert [frame["index"] for frame in told[2:-2]] == [0] * 5 + [1] * 3 + [2] * 3
    assert told[0]["message"]["id"] == f"msg_{STAMP.id}"
    proof = told[5]["delta"]["signature"]
    assert verify(KEY, "hm", proof)
    assert told[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": COST,
    }


def test_a_whole_reply() -> None:
    reply = json.loads(anthropic.write_reply(asked(), fold(EVENTS), STAMP))
    assert reply == {
        "id": f"msg_{STAMP.id}",
        "type": "message",
        "role": "assistant",
        "model": "nano",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": sign(KEY, "hm")},
            {"type": "text", "text": "so"},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": COST,
    }


def test_an_omitted_thought_is_under_seal() -> None:
    hidden = asked(thinking={"type": "adaptive", "display": "omitted"})
    block = json.loads(anthropic.write_reply(hidden, fold(EVENTS), STAMP))["content"][0]
    writer = anthropic.write_events(hidden, STAMP)
    deltas = [frame["delta"] for frame in frames(writer.write(EVENTS)) if "delta" in frame]
    assert block["thinking"] == ""
    assert deltas[0] == {"type": "signature_delta", "signature": block["signature"]}
    assert unseal(KEY, block["signature"]) == "hm"
    assert answered(block).thinking == "hm"


@pytest.mark.parametrize(
    ("tokens", "reason"), [(2000, "max_tokens"), (7, "model_context_window_exceeded"), (0, "max_tokens")]
)
def test_the_end_of_the_context_is_told_apart(tokens: int, reason: str) -> None:
    reply = fold([TextDelta(text="x"), Usage(completion_tokens=tokens), Finish(reason=FinishReason.LENGTH)])
    assert json.loads(anthropic.write_reply(asked(), reply, STAMP))["stop_reason"] == reason


def test_broken_arguments_are_shown_and_unset_ids_made() -> None:
    reply = fold([ToolCallDelta(index=0, name="f", arguments='{"a'), Finish(reason=FinishReason.LENGTH)])
    assert json.loads(anthropic.write_reply(asked(), reply, STAMP))["content"] == [
        {"type": "tool_use", "id": "toolu_aaaaaaaaaaaaaaaa_0", "name": "f", "input": {"INVALID_JSON": '{"a'}}
    ]


def test_a_failure_ends_a_stream() -> None:
    writer = anthropic.write_events(asked(), STAMP)
    data = writer.write([TextDelta(text="x"), Finish(reason=FinishReason.ERROR, error="it broke")]) + writer.end()
    last = frames(data)[-1]
    assert (last["type"], last["error"]["type"], last["error"]["message"]) == ("error", "api_error", "it broke")
    with pytest.raises(Upstream, match="it broke"):
        anthropic.read_events().feed(data)


def test_streams_that_break_off_or_are_none() -> None:
    reader = anthropic.read_events()
    reader.feed(anthropic.write_events(asked(), STAMP).write([TextDelta(text="x")]))
    with pytest.raises(Upstream, match="broke off"):
        reader.end()
    with pytest.raises(Upstream, match="no event"):
        anthropic.read_events().feed(b"data: [1]\n\n")
    with pytest.raises(Upstream, match="no message"):
        anthropic.read_reply(b"{}")
    refusal = b'{"type":"message","content":[],"stop_reason":"refusal"}'
    assert anthropic.read_reply(refusal).choices[0].error == "the reply ended with refusal"


@pytest.mark.parametrize(
    ("kind", "status", "word"),
    [
        (Kind.INVALID, 400, "invalid_request_error"),
        (Kind.UNKNOWN_FIELD, 400, "invalid_request_error"),
        (Kind.TOO_LONG, 400, "invalid_request_error"),
        (Kind.UNAUTHENTICATED, 401, "authentication_error"),
        (Kind.OUT_OF_BUDGET, 402, "billing_error"),
        (Kind.FORBIDDEN, 403, "permission_error"),
        (Kind.NO_MODEL, 404, "not_found_error"),
        (Kind.NOT_FOUND, 404, "not_found_error"),
        (Kind.NOT_ALLOWED, 405, "invalid_request_error"),
        (Kind.TIMEOUT, 408, "timeout_error"),
        (Kind.TOO_LARGE, 413, "request_too_large"),
        (Kind.RATE, 429, "rate_limit_error"),
        (Kind.BUSY, 529, "overloaded_error"),
        (Kind.FAILED, 500, "api_error"),
        (Kind.UPSTREAM, 502, "api_error"),
    ],
)
def test_every_fault_has_its_word(kind: Kind, status: int, word: str) -> None:
    answer = anthropic.write_error(Fault(kind=kind, message="m", retry_after=1.6), "req_1")
    body = json.loads(answer.body)
    assert (answer.status, body["error"]["type"], body["request_id"]) == (status, word, "req_1")
    headers = dict(answer.headers)
    assert headers["request-id"] == "req_1"
    final = kind is Kind.OUT_OF_BUDGET
    assert (headers.get("retry-after"), headers.get("x-should-retry")) == ((None, "false") if final else ("2", None))


def test_a_prompt_that_does_not_fit_is_told_as_agents_know_it() -> None:
    fault = Fault(kind=Kind.TOO_LONG, message="the prompt has 9 tokens")
    assert json.loads(anthropic.write_error(fault, "").body)["error"]["message"].startswith("prompt is too long: ")


def test_errors_of_others_are_read() -> None:
    assert anthropic.read_error(529, b"x").kind is Kind.BUSY
    spent = (
        b'{"error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}}}'
    )
    long = b'{"error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 4 maximum"}}'
    assert anthropic.read_error(400, long) == Fault(kind=Kind.TOO_LONG, message="9 tokens > 4 maximum")
    assert anthropic.read_error(429, spent) == Fault(kind=Kind.OUT_OF_BUDGET, message="m")


def test_pages_of_models() -> None:
    cards = [Card(name=name, created=0, context=10) for name in "abc"]
    whole = json.loads(anthropic.write_models(cards))
    assert (whole["first_id"], whole["last_id"], whole["has_more"]) == ("a", "c", False)
    assert whole["data"][0] == json.loads(anthropic.write_model(cards[0]))
    assert whole["data"][0]["created_at"] == "1970-01-01T00:00:00Z"
    after = json.loads(anthropic.write_models(cards, {"after_id": "a", "limit": "1"}))
    assert ([card["id"] for card in after["data"]], after["has_more"]) == (["b"], True)
    before = json.loads(anthropic.write_models(cards, {"before_id": "c", "limit": "2"}))
    assert ([card["id"] for card in before["data"]], before["has_more"]) == (["a", "b"], False)
    assert json.loads(anthropic.write_models([]))["first_id"] is None
    for query, field in (({"limit": "0"}, "limit"), ({"after_id": "x"}, "after_id")):
        with pytest.raises(BadRequest, match=f"^{field}: "):
            anthropic.write_models(cards, query)


@pytest.mark.parametrize(
    ("chat", "field"),
    [
        ({"system_prompt": SystemPrompt.REPLACE}, "system_prompt"),
        ({"keep_thinking": False}, "keep_thinking"),
        ({"sampling": Sampling()}, "sampling.max_tokens"),
        ({"sampling": Sampling(max_tokens=9, seed=1)}, "sampling.seed"),
        ({"sampling": Sampling(max_tokens=9, temperature=1.5)}, "sampling.temperature"),
        ({"sampling": Sampling(max_tokens=9, thinking_tokens=8)}, "sampling.thinking_tokens"),
        ({"effort": Effort.MINIMAL}, "effort"),
        ({"json_format": JsonFormat()}, "json_format.schema"),
        ({"json_format": JsonFormat({}, "n")}, "json_format.name"),
        ({"messages": (system("s"),)}, "messages"),
        ({"messages": (user(Text("")),)}, "messages[0].parts[0].text"),
        ({"messages": (user(Image(data=b"BM")),)}, "messages[0].parts[0]"),
        ({"messages": (user("a"), assistant(ToolCall("c", "f", "[]")))}, "messages[1].parts[0].arguments"),
        ({"messages": (user("a"), assistant(ToolCall("c", "f", "{}")))}, "messages[1].parts[0]"),
        ({"messages": (user("a"), assistant("b", Thinking("c")))}, "messages[1].parts"),
        ({"messages": (user("a"), assistant(Thinking("c")))}, "messages[1].parts[0].closed"),
        ({"messages": (user(Thinking("c")),)}, "messages[0].parts[0]"),
    ],
)
def test_what_has_no_word_is_refused(chat: Any, field: str) -> None:
    fields = {"messages": (user("hi"),), "model": "nano", "sampling": Sampling(max_tokens=9), **chat}
    with pytest.raises(Refused) as caught:
        anthropic.write_request(Asked(chat=ChatRequest(**fields)))
    assert caught.value.field == field


def test_a_remote_thought_that_was_not_shown_goes_back_as_it_came() -> None:
    omitted = {"type": "thinking", "thinking": "", "signature": "theirs"}
    reply = {"type": "message", "content": [omitted, {"type": "text", "text": "so"}], "stop_reason": "end_turn"}
    heard = anthropic.read_reply(json.dumps(reply).encode()).message
    assert heard == assistant(Thinking("", signature="theirs"), "so")
    chat = ChatRequest(messages=(user("q"), heard), model="m", sampling=Sampling(max_tokens=9))
    assert json.loads(anthropic.write_request(Asked(chat=chat)))["messages"][1]["content"][0] == omitted


def test_thoughts_that_were_joined_have_no_signature() -> None:
    thoughts = [{"type": "thinking", "thinking": text, "signature": text} for text in "hm"]
    reply = {"type": "message", "content": thoughts, "stop_reason": "end_turn"}
    assert anthropic.read_reply(json.dumps(reply).encode()).message == assistant(Thinking("hm"))
