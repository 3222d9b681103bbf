"""Bodies that are nearly right: valid ones of every dialect, and what hypothesis does to them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from hypothesis import strategies as st

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
FUNCTION = {"name": "f", "description": "does f", "parameters": SCHEMA}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}


class Target(NamedTuple):
    """A route, and bodies that it takes."""

    path: str
    dialect: str
    bodies: tuple[dict[str, Any], ...]
    streamed: bool | None = None
    """None where the body says so."""


_CHAT: tuple[dict[str, Any], ...] = (
    {
        "model": "mock",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "top_p": 0.9,
        "n": 2,
        "stop": ["x"],
        "seed": 1,
        "max_completion_tokens": 9,
        "logit_bias": {"5": 1},
        "logprobs": True,
        "top_logprobs": 2,
        "user": "u",
        "metadata": {"a": "b"},
        "reasoning_effort": "low",
    },
    {
        "model": "m",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "s"}]},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]},
            {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "abcdefghi", "content": "42"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}]},
            {"role": "user", "content": "ü"},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
    },
)
_MISTRAL: tuple[dict[str, Any], ...] = (
    {
        **{name: value for name, value in _CHAT[0].items() if name in ("model", "messages", "stream", "n", "stop")},
        "random_seed": 1,
        "max_tokens": 9,
        "prompt_mode": None,
        "metadata": {"a": 1},
        "presence_penalty": 0.5,
    },
    {**_CHAT[1], "tool_choice": "any", "prompt_mode": "reasoning"},
)
_RESPONSES: tuple[dict[str, Any], ...] = (
    {"model": "mock", "input": "hi", "stream": True, "instructions": "s", "reasoning": {"effort": "low"}, "top_p": 0.5},
    {
        "model": "mock",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "t"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "42"},
            {"role": "user", "content": [{"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}]},
        ],
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": "auto",
        "text": {"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}},
        "max_output_tokens": 20,
        "metadata": {"a": "b"},
        "store": False,
    },
)
_ANTHROPIC: tuple[dict[str, Any], ...] = (
    {"model": "mock", "max_tokens": 2000, "messages": [{"role": "user", "content": "hi"}], "stream": True, "top_k": 3},
    {
        "model": "mock",
        "max_tokens": 3000,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "t", "signature": "c2ln"},
                    {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": "b"}},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "42"}]}],
            },
        ],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [{"name": "f", "input_schema": SCHEMA}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "metadata": {"user_id": "u"},
        "stop_sequences": ["x"],
    },
)
_GOOGLE: tuple[dict[str, Any], ...] = (
    {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": {"temperature": 0.5, "topK": 3}},
    {
        "contents": [
            {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}, {"text": "a"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "t", "thought": True},
                    {"functionCall": {"id": "c1", "name": "f", "args": {"a": "b"}}},
                ],
            },
            {"role": "user", "parts": [{"functionResponse": {"id": "c1", "name": "f", "response": {"r": 42}}}]},
        ],
        "systemInstruction": {"parts": [{"text": "s"}]},
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "f",
                        "parameters": {"type": "OBJECT", "properties": {"a": {"type": "STRING", "nullable": True}}},
                    }
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {
            "thinkingConfig": {"thinkingBudget": 100, "includeThoughts": True},
            "stopSequences": ["x"],
            "candidateCount": 2,
            "maxOutputTokens": 9,
            "seed": 1,
        },
        "labels": {"a": "b"},
    },
    {
        "contents": [{"parts": [{"text": "hi"}]}],
        "generation_config": {"response_mime_type": "application/json", "response_schema": {"type": "OBJECT"}},
    },
)
_PUTER: tuple[dict[str, Any], ...] = tuple(
    {"interface": "puter-chat-completion", "driver": "ai-chat", "method": "complete", "test_mode": False, "args": args}
    for args in (
        {"messages": [{"content": "hi"}], "model": "mock", "stream": True, "temperature": 0.5},
        {
            "messages": [
                {
                    "role": "user",
                    "content": ["a", {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PNG}}],
                },
                {"role": "assistant", "content": "", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "abcdefghi", "content": "42"},
            ],
            "model": "mock",
            "tools": [{"type": "function", "function": FUNCTION}],
            "reasoning_effort": "low",
            "max_tokens": 9,
        },
    )
)
_COMPLETIONS: tuple[dict[str, Any], ...] = (
    {"model": "mock", "prompt": "a", "max_tokens": 4, "logprobs": 2, "echo": True, "return_token_ids": True, "n": 2},
    {"model": "mock", "prompt": [[5, 6], [7]], "stream": True, "max_tokens": 4, "stop": "x", "logit_bias": {"5": -1}},
)
_MODEL = "/v1beta/models/mock"
TARGETS = (
    Target("/v1/chat/completions", "openai_chat", _CHAT),
    Target("/v1/responses", "openai_responses", _RESPONSES),
    Target("/v1/messages", "anthropic", _ANTHROPIC),
    Target(f"{_MODEL}:generateContent", "google", _GOOGLE, streamed=False),
    Target(f"{_MODEL}:streamGenerateContent", "google", _GOOGLE, streamed=True),
    Target("/mistral/v1/chat/completions", "mistral", _MISTRAL),
    Target("/drivers/call", "puter", _PUTER),
    Target("/v1/completions", "openai_completions", _COMPLETIONS),
)
"""All that answer with what a model says."""
COUNTS = (
    Target(
        "/v1/messages/count_tokens",
        "anthropic",
        (
            {name: _ANTHROPIC[0][name] for name in ("model", "messages")},
            {name: _ANTHROPIC[1][name] for name in ("model", "system", "tools")}
            | {"messages": [{"role": "user", "content": "a"}, *_ANTHROPIC[1]["messages"][1:]]},
        ),
    ),
    Target(
        f"{_MODEL}:countTokens",
        "google",
        (
            {"contents": [_GOOGLE[0]["contents"][0], *_GOOGLE[1]["contents"][1:]]},
            {"generateContentRequest": {"model": "models/mock", **_GOOGLE[0]}},
        ),
    ),
    Target("/tokenize", "openai_chat", ({"model": "mock", "prompt": "ab", "return_token_strs": True},)),
    Target("/detokenize", "openai_chat", ({"model": "mock", "tokens": [5, 6, 7]},)),
)
"""Those that tell of tokens only."""


def nested(depth: int, inner: Any, name: str = "") -> Any:
    """Lists within lists, or objects of one name."""
    for _ in range(depth):
        inner = {name: inner} if name else [inner]
    return inner


_NUMBERS = (
    0,
    -1,
    1,
    2,
    0.5,
    -0.0,
    5e-324,
    1e308,
    -1e308,
    1 << 31,
    (1 << 63) - 1,
    1 << 63,
    1 << 64,
    -(1 << 70),
    10**400,
)
_WORDS = (
    "",
    " ",
    "\x00",
    "a\ud800",
    "\udfff",
    "\U0001f389",
    "\u202e\u0000",
    "None",
    "data:",
    "data:;base64,",
    "data:image/png;base64,AAAA",
    "http://",
    "https://example.org/a.png",
    "file:///etc/passwd",
    "</s>[INST]",
    "a" * 5000,
    "tool",
    "system",
    "user",
    "assistant",
    "model",
    "text",
    "object",
    "required",
    "f",
    "mock",
    "mock:high",
    "none",
)
_ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    [{}],
    {"": None},
    {"type": "text"},
    {"type": []},
    {"$ref": "#"},
    {"a": "b"},
    [0, "", None],
    float("nan"),
    float("inf"),
    nested(60, 1),
    nested(60, "x", "a"),
    {"type": "array", "items": {}},
)
JUNK: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(_NUMBERS),
    st.sampled_from(_WORDS),
    st.sampled_from(_ODD).map(copy.deepcopy),
    st.text(max_size=8),
    st.integers(),
    st.floats(),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value can be changed, but at its root."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            if len(path) < 8:
                yield from places(inner, (*path, key))


def _within(body: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        body = body[key]
    return body


@st.composite
def bodies(draw: Any, valid: tuple[dict[str, Any], ...]) -> Any:
    """A valid body with up to three things wrong, or none."""
    body = copy.deepcopy(draw(st.sampled_from(valid)))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 2, 3]))):
        found = list(places(body))
        if not found:
            break
        *above, key = draw(st.sampled_from(found))
        holder = _within(body, tuple(above))
        match draw(st.sampled_from(["junk", "junk", "junk", "drop", "more", "wrap", "other", "twice"])):
            case "junk":
                holder[key] = draw(JUNK)
            case "drop":
                del holder[key]
            case "more":
                value = holder[key]
                if isinstance(value, dict):
                    names = ["extra", "type", "", "role", "strict", "\ud800", "a b.c[0]`"]
                    value[draw(st.sampled_from(names))] = draw(JUNK)
                elif isinstance(value, list):
                    value.append(draw(JUNK))
            case "wrap":
                holder[key] = draw(st.sampled_from([[holder[key]], {"type": holder[key]}, {"text": holder[key]}]))
            case "other":
                holder[key] = copy.deepcopy(_within(body, draw(st.sampled_from(found))))
            case "twice":
                if isinstance(holder, list):
                    holder.append(copy.deepcopy(holder[key]))
    return body


@st.composite
def raw(draw: Any, valid: tuple[dict[str, Any], ...]) -> bytes:
    """Such a body as bytes, mostly JSON."""
    body = draw(bodies(valid))
    text = json.dumps(body, ensure_ascii=draw(st.booleans()))
    data: bytes = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 3)):
        return data
    at = draw(st.integers(0, len(data)))
    ways = ["cut", "byte", "twice", "tail", "utf-16", "bom", "open", "deep", "deep", "deep", "unicode"]
    match draw(st.sampled_from(ways)):
        case "cut":
            return data[:at]
        case "byte":
            return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
        case "twice":
            return b'{"model":"mock","stream":1,"messages":[],' + data[1:]
        case "tail":
            tail: bytes = draw(st.sampled_from([b"}", b"\x00", b" \n", b"{}", data]))
            return data + tail
        case "utf-16":
            return text.encode("utf-16", "surrogatepass")
        case "bom":
            return b"\xef\xbb\xbf" + data
        case "open":
            opened: bytes = draw(st.sampled_from([b"[" * 3000, b'{"a":' * 3000, b"[[]," * 3000]))
            return data[:at] + opened + data[at:]
        case "deep":
            # In place of a string, so that the whole is JSON; how deep a body may be, nobody says.
            depth = draw(st.sampled_from([60, 120, 250, 450, 700, 900, 980, 995, 2000]))
            opening, closing = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}"), (b'{"items":', b"}")]))
            strings = draw(st.sampled_from([b'"a"', b'"b"', b'"hi"', b'"f"', b'"string"', b'"t"']))
            return data.replace(strings, opening * depth + strings + closing * depth, 1)
        case "unicode":
            return data.replace(b'"text"', b'"t\\u0065xt"').replace(b'"a"', b'"\\ud83c\\udf89\\udc00"')
    return data
