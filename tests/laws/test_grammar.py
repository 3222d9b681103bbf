"""Structured output end to end: whatever a random network says under a request, it is what was asked for.

A real tokenizer, a real renderer, an engine over random weights: the network knows nothing, all form is the grammar's.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest
import torch
from tests.engine.world import LIMITS, decoder

from magister.chat import LocalChat
from magister.engine.engine import Engine
from magister.engine.grammar import Grammars
from magister.engine.vocabulary import Vocabulary
from magister.model.config import ModelConfig
from magister.model.network import build, init_weights, native_parameters
from magister.text import Renderer, TekkenPlan, Tokenizer, detect_format, make_tokenizer
from magister.text.grammar import answer_grammar
from magister.types import (
    ChatRequest,
    Choice,
    FinishReason,
    JsonFormat,
    Message,
    OpenAt,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    assistant,
    collect,
    user,
)

CONTEXT = 2048
ROOMY = replace(LIMITS, context=CONTEXT, blocks=640, block_size=16, running=32)
CLOSED = {"additionalProperties": False}
WORD = {"type": "string", "maxLength": 6}
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": -99, "maximum": 99}, "y": {"type": "boolean"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "flat": POINT,
    "nested": {
        "type": "object",
        "properties": {
            "from": POINT,
            "to": {"type": "object", "properties": {"at": POINT}, "required": ["at"]} | CLOSED,
        },
        "required": ["from", "to"],
        "additionalProperties": False,
    },
    "array": {"type": "array", "items": POINT, "minItems": 1, "maxItems": 3},
    "tuple": {"type": "array", "prefixItems": [{"const": "a"}, {"type": "null"}], "items": False, "minItems": 2},
    "enum": {"enum": ["red", "grün", 7, None, [1]]},
    "unicode": {"type": "string", "pattern": "^[äöü€]{2,5}[a-z]$"},
    "number": {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25},
    "digits": {"type": "string", "pattern": "^[0-9]{4}-[01][0-9]$"},
    "date": {"type": "string", "format": "date"},
    "any of": {"anyOf": [POINT, {"type": "array", "items": WORD, "maxItems": 2}, WORD]},
    "optional": {"type": "object", "properties": {"a": WORD, "é": WORD}, "additionalProperties": False},
    "reference": {
        "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/leaf"}, "maxItems": 2}, "leaf": POINT},
        "$ref": "#/$defs/tree",
    },
}
MOVE = Tool("move", POINT, "Goes there.")
SAY = Tool(
    "say-it", {"type": "object", "properties": {"word": WORD, "loud": {"type": "boolean"}}, "required": ["word"]}
)
TOOLS = (MOVE, SAY)


@functools.cache
def tokenizer() -> Tokenizer:
    return make_tokenizer(TekkenPlan(ranks=1024, specials=64, vision=False))


def vocabulary(made: Tokenizer) -> Vocabulary:
    return Vocabulary(
        pieces=made.vocabulary, end=made.id("</s>"), think=made.id("[THINK]"), end_think=made.id("[/THINK]")
    )


@pytest.fixture(scope="module")
def chat() -> Iterator[LocalChat]:
    made = tokenizer()
    model = build(ModelConfig(decoder(vocab_size=made.size, max_position_embeddings=CONTEXT)))
    init_weights(model, 0)
    for _, parameter in native_parameters(model):
        parameter.requires_grad_(False)
        if parameter.dim() > 1:
            parameter.mul_(2.0)
    renderer = Renderer(made, detect_format(made))
    with torch.inference_mode(), Engine(model, vocabulary(made), ROOMY) as engine:
        yield LocalChat(engine, renderer, CONTEXT)


def choices(chat: LocalChat, *messages: Message, n: int = 6, **fields: Any) -> list[Choice]:
    """What is said, by choices that are unlike one another; without thoughts unless the sampling says otherwise."""
    sampling: dict[str, Any] = {
        "temperature": 1.5,
        "top_p": 0.95,
        "seed": 1,
        "thinking_tokens": 0,
        "n": n,
        "max_tokens": 600,
    }
    sampling |= fields.pop("sampling", {})
    request = ChatRequest(messages=messages or (user("?"),), sampling=Sampling(**sampling), **fields)
    return list(asyncio.run(collect(chat.chat(request))).choices)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_kept(chat: LocalChat, name: str) -> None:
    schema = SCHEMAS[name]
    texts = []
    for choice in choices(chat, json_format=JsonFormat(schema)):
        assert choice.finish is FinishReason.END
        (part,) = choice.message.parts
        assert isinstance(part, Text)
        jsonschema_rs.validate(schema, json.loads(part.text), validate_formats=True)
        texts.append(part.text)
    assert len(set(texts)) > 1 or name == "tuple", "drawn, not dictated"


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_call_has_the_arguments_that_are_named_and_no_others(chat: LocalChat, temperature: float) -> None:
    """Where the schema leaves it open, a network that knows nothing would invent arguments until its room ends."""
    named = ToolChoice(ToolMode.NAMED, SAY.name)
    for choice in choices(chat, tools=TOOLS, tool_choice=named, sampling={"temperature": temperature}):
        (call,) = choice.message.tool_calls
        assert (call.name, choice.finish) == (SAY.name, FinishReason.TOOL_CALLS)
        arguments = json.loads(call.arguments)
        jsonschema_rs.validate(SAY.parameters, arguments)
        assert arguments.keys() <= {"word", "loud"}


@pytest.mark.parametrize("opened", [False, True])
def test_a_thought_comes_first_and_is_free(chat: LocalChat, opened: bool) -> None:
    thinking = {"logit_bias": {tokenizer().id("[THINK]"): 40.0}, "thinking_tokens": 9}
    asked = (user("?"), assistant(Thinking("so", closed=False))) if opened else (user("?"),)
    for choice in choices(chat, *asked, json_format=JsonFormat(POINT), sampling=thinking):
        thought, answer = choice.message.parts
        assert isinstance(thought, Thinking)
        assert isinstance(answer, Text)
        assert thought.closed
        jsonschema_rs.validate(POINT, json.loads(answer.text))
        assert choice.usage.thinking_tokens <= 11


@functools.cache
def magistral() -> tuple[Renderer, Grammars]:
    """Over the whole vocabulary of the real models."""
    made = make_tokenizer(TekkenPlan(vision=False))
    return Renderer(made, detect_format(made)), Grammars(vocabulary(made))


CALLS = (ToolCall("1", "move", '{"x": -4, "y": true}'), ToolCall("2", "say-it", '{"word": "grün€"}'))
SAID: list[tuple[Message, dict[str, Any]]] = [
    (assistant(Thinking("so\n…"), *CALLS), {"tools": TOOLS}),
    (assistant(Thinking("so"), "well: [TOOL_CALLS] 🤔\n", *CALLS), {"tools": TOOLS}),
    (assistant(Thinking("so"), "well"), {"tools": TOOLS}),
    (assistant(*CALLS), {"tools": TOOLS, "tool_choice": ToolChoice(ToolMode.REQUIRED)}),
    (assistant(CALLS[1]), {"tools": TOOLS, "tool_choice": ToolChoice(ToolMode.NAMED, "say-it")}),
    (assistant(Thinking("so"), *CALLS), {"tools": TOOLS, "json_format": JsonFormat()}),
    (assistant(Thinking("so"), '{"x": 1,\n  "y": false\n}'), {"json_format": JsonFormat(POINT)}),
    (assistant('{"any": [1.5e3, null, {"ünï": "\\n €"}]}'), {"json_format": JsonFormat()}),
]


@pytest.mark.parametrize(("message", "fields"), SAID)
def test_what_the_renderer_writes_the_grammar_allows(message: Message, fields: dict[str, Any]) -> None:
    renderer, grammars = magistral()
    request = ChatRequest(messages=(user("?"),), **fields)
    grammar = answer_grammar(request, renderer.tokenizer, renderer.format.tags, OpenAt.START)
    assert grammar is not None
    ids = renderer.reply(message)
    guide = grammars.compile(grammar.text).follow(OpenAt.START)
    for id_ in ids:
        assert int(guide.allowed()[id_ // 8]) >> id_ % 8 & 1, renderer.tokenizer.token_name(id_)
        guide.push(id_)
    assert ids[-1] == renderer.tokenizer.id("</s>")
