"""What is found wrong only behind the wire, by templates, grammars or the engine, is named as the client wrote it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.server.direct import send
from tests.server.fuzzed import PNG
from tests.server.running import site
from tests.server.tiny import tiny, words

from magister.server.app import DIALECTS, Site
from magister.wire.fault import Kind
from magister.wire.words import spelled

BAD: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}, "required": ["a"]}
LONG = "x " * 500
CHAT, MISTRAL, RESPONSES = "/v1/chat/completions", "/mistral/v1/chat/completions", "/v1/responses"
ANTHROPIC, GOOGLE, PUTER = "/v1/messages", "/v1beta/models/mock:generateContent", "/drivers/call"
DIALECT = {
    CHAT: "openai_chat",
    MISTRAL: "mistral",
    RESPONSES: "openai_responses",
    ANTHROPIC: "anthropic",
    GOOGLE: "google",
    PUTER: "puter",
}


@pytest.fixture(scope="module")
def app() -> Iterator[Site]:
    with tiny(words()) as model:
        yield site(**model)


def said(text: Any = "a", **fields: Any) -> dict[str, Any]:
    """A body with one message, in the shape of most dialects."""
    return {"model": "mock", "messages": [{"role": "user", "content": text}], **fields}


def asked(text: str = "a", **config: Any) -> dict[str, Any]:
    """The same in Google's."""
    return {"contents": [{"parts": [{"text": text}]}], "generationConfig": config}


def called(text: str = "a", **args: Any) -> dict[str, Any]:
    """The same in Puter's."""
    args = {"model": "mock", "messages": [{"content": text}], **args}
    return {"interface": "puter-chat-completion", "method": "complete", "args": args}


SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": BAD}}
TEXT_FORMAT = {"type": "json_schema", "name": "s", "schema": BAD}
IMAGE = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (CHAT, said(response_format=SCHEMA), "response_format"),
        (MISTRAL, said(response_format=SCHEMA), "response_format"),
        (RESPONSES, {"model": "mock", "input": "a", "text": {"format": TEXT_FORMAT}}, "text.format"),
        (
            ANTHROPIC,
            said(max_tokens=9, output_config={"format": {"type": "json_schema", "schema": BAD}}),
            "output_config.format",
        ),
        (
            GOOGLE,
            asked(responseMimeType="application/json", responseJsonSchema=BAD),
            "generationConfig.responseJsonSchema",
        ),
        (CHAT, said(IMAGE), "messages[0].content"),
        (MISTRAL, said(IMAGE), "messages[0].content"),
        (CHAT, said(n=100), "n"),
        (CHAT, said(top_p=0), "top_p"),
        (GOOGLE, asked(topP=0), "generationConfig.topP"),
    ],
)
def test_refusals_name_the_clients_field(app: Site, path: str, body: Any, field: str) -> None:
    answer = asyncio.run(send(app, "POST", path, json.dumps(body).encode()))
    told = DIALECTS[DIALECT[path]].read_error(answer.status, answer.body)
    assert (answer.status, told.kind) == (400, Kind.INVALID)
    assert told.message.startswith(f"{field}: ")
    assert told.field == field


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (CHAT, said(LONG), "messages"),
        (MISTRAL, said(LONG), "messages"),
        (RESPONSES, {"model": "mock", "input": LONG}, "input"),
        (ANTHROPIC, said(LONG, max_tokens=9), "messages"),
        (GOOGLE, asked(LONG), "contents"),
        (PUTER, called(LONG), "messages"),
    ],
)
def test_what_does_not_fit_is_told_in_numbers(app: Site, path: str, body: Any, field: str) -> None:
    answer = asyncio.run(send(app, "POST", path, json.dumps(body).encode()))
    told = DIALECTS[DIALECT[path]].read_error(answer.status, answer.body)
    assert (answer.status, told.field) == (400, field)
    assert "1003 tokens" in told.message
    assert "159" in told.message


@pytest.mark.parametrize(
    ("field", "dialect", "word"),
    [
        ("sampling.thinking_tokens", "anthropic", "thinking.budget_tokens"),
        ("messages[1].parts[2]", "openai_chat", "messages[1].content"),
        ("messages[1].parts[2]", "anthropic", "messages"),
        ("messages[1].role", "mistral", "messages[1].role"),
        ("tools[1].parameters", "openai_chat", "tools[1].function.parameters"),
        ("tools[1].parameters", "anthropic", "tools[1].input_schema"),
        ("tools[1].parameters", "openai_responses", "tools[1].parameters"),
        ("tools[1].parameters", "google", "tools"),
        ("seed", "mistral", "random_seed"),
        ("seed", "", "seed"),
        ("", "google", ""),
    ],
)
def test_words(field: str, dialect: str, word: str) -> None:
    assert spelled(field, dialect) == word


NESTED = [5, 60, 250, 700, 960, 990, 1500, 100_000]


@pytest.mark.parametrize("depth", NESTED)
@pytest.mark.parametrize(("path", "dialect"), DIALECT.items())
def test_nesting_has_no_depth_that_breaks(app: Site, path: str, dialect: str, depth: int) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["@"]}}}
    bodies: dict[str, Any] = {
        CHAT: said(
            response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}, max_tokens=2
        ),
        MISTRAL: said(tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}], max_tokens=2),
        RESPONSES: {
            "model": "mock",
            "input": "a",
            "tools": [{"type": "function", "name": "f", "parameters": schema}],
            "max_output_tokens": 20,
        },
        ANTHROPIC: said(tools=[{"name": "f", "input_schema": schema}], max_tokens=2),
        GOOGLE: asked(responseMimeType="application/json", responseJsonSchema=schema, maxOutputTokens=2),
        PUTER: called(tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}], max_tokens=2),
    }
    body = json.dumps(bodies[path]).encode().replace(b'"@"', b"[" * depth + b"]" * depth)
    answer = asyncio.run(send(app, "POST", path, body))
    assert answer.status in (200, 400), answer.body
    if depth > 1000:
        told = DIALECTS[dialect].read_error(answer.status, answer.body)
        assert (answer.status, told.message) == (400, "the body is nested too deeply")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (CHAT, said(n=10**400), "n"),
        (CHAT, said(seed=-(10**400)), "seed"),
        (MISTRAL, said(random_seed=10**400), "random_seed"),
        (ANTHROPIC, said(max_tokens=10**400), "max_tokens"),
        (
            PUTER,
            called() | {"args": {"model": "mock", "messages": [{"content": [{"type": {}}]}]}},
            "messages[0].content[0].type",
        ),
        (
            GOOGLE,
            asked(responseMimeType="application/json", responseSchema={"type": []}),
            "generationConfig.responseSchema.type",
        ),
        (
            GOOGLE,
            asked(responseMimeType="application/json", responseSchema={"type": "STRING", "maxLength": "\u00b2"}),
            "generationConfig.responseSchema.maxLength",
        ),
    ],
)
def test_what_fuzzing_found(app: Site, path: str, body: Any, field: str) -> None:
    answer = asyncio.run(send(app, "POST", path, json.dumps(body).encode()))
    told = DIALECTS[DIALECT[path]].read_error(answer.status, answer.body)
    assert (answer.status, told.field) == (400, field)
