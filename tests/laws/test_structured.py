"""Structured output through the whole adapter: random networks, and always the form that was asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.engine.grammars import network
from tests.engine.test_grammar import documents, objects

from magister.chat import LocalChat
from magister.cli.compose import engine_vocabulary
from magister.engine.engine import Engine
from magister.engine.limits import Limits
from magister.text import Renderer, TekkenPlan, detect_format, make_tokenizer
from magister.types import (
    ChatRequest,
    Choice,
    FinishReason,
    JsonFormat,
    Refused,
    Sampling,
    Thinking,
    Tool,
    ToolChoice,
    ToolMode,
    assistant,
    collect,
    user,
)

LIMITS = Limits(context=1024, blocks=1024, block_size=8, step_tokens=256, running=16)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 6},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "units": {"enum": ["°C", "°F"]},
    },
    "required": ["city", "units"],
    "additionalProperties": False,
}
TOOLS = (Tool("weather", SCHEMA), Tool("weather_now", {"type": "object", "additionalProperties": False}))
HOT: dict[str, Any] = {"temperature": 1.5, "top_p": 0.95}


@contextmanager
def chatting(version: str = "v13", **limits: Any) -> Iterator[LocalChat]:
    """A chat model over a random network that says anything at all."""
    tokenizer = make_tokenizer(TekkenPlan(ranks=512, specials=64, vision=False, version=version))
    form = replace(detect_format(tokenizer), instruction=(), closing="")
    held = replace(LIMITS, **limits)
    with Engine(network(tokenizer.size), engine_vocabulary(tokenizer), held) as engine:
        yield LocalChat(engine, Renderer(tokenizer, form), context=held.context)


def ask(chat: LocalChat, **fields: Any) -> tuple[Choice, ...]:
    return asyncio.run(collect(chat.chat(ChatRequest(**{"messages": (user("Say."),)} | fields)))).choices


def check_calls(choice: Choice, most: int, names: tuple[str, ...] = ("weather", "weather_now")) -> None:
    calls = choice.message.tool_calls
    assert choice.finish is FinishReason.TOOL_CALLS
    assert 1 <= len(calls) <= most
    for call in calls:
        assert call.name in names
        (tool,) = (tool for tool in TOOLS if tool.name == call.name)
        jsonschema_rs.validate(tool.parameters, json.loads(call.arguments))
    assert not [note for note in choice.annotations if note.kind not in ("thought", "empty_thought")]


def test_json_is_what_the_schema_says() -> None:
    with chatting() as chat:

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(schema=objects(documents()), seed=st.integers(0, 99))
        def check(schema: dict[str, Any], seed: int) -> None:
            for choice in ask(
                chat, json_format=JsonFormat(schema), sampling=Sampling(seed=seed, n=2, thinking_tokens=5, **HOT)
            ):
                assert choice.finish is FinishReason.END
                jsonschema_rs.validate(schema, json.loads(choice.message.text))

        check()


def test_json_of_no_schema_is_an_object() -> None:
    with chatting() as chat:
        ended = 0
        for choice in ask(chat, json_format=JsonFormat(), sampling=Sampling(seed=1, n=16, thinking_tokens=0, **HOT)):
            if choice.finish is FinishReason.END:
                ended += 1
                assert isinstance(json.loads(choice.message.text), dict)
            assert choice.message.text.lstrip().startswith("{")
        assert ended


@pytest.mark.parametrize("version", ["v11", "v13"])
@pytest.mark.parametrize(
    ("choice", "most"),
    [
        (ToolChoice(ToolMode.REQUIRED), 99),
        (ToolChoice(ToolMode.REQUIRED, parallel=False), 1),
        (ToolChoice(ToolMode.NAMED, "weather"), 1),
        (ToolChoice(ToolMode.NAMED, "weather_now"), 1),
    ],
)
def test_a_forced_call_is_made(choice: ToolChoice, most: int, version: str) -> None:
    names = tuple(tool.name for tool in TOOLS) if choice.name is None else (choice.name,)
    with chatting(version) as chat:
        thought: dict[str, Any] = {"thinking_tokens": 6} if version == "v13" else {}
        # Thoughts of 2506 are text, which a random network never ends.
        before = assistant("I call: ") if version == "v11" else user("Please.")
        sampling = Sampling(seed=2, n=6, max_tokens=500, **HOT, **thought)
        for made in ask(chat, messages=(user("?"), before), tools=TOOLS, tool_choice=choice, sampling=sampling):
            check_calls(made, most, names)
            assert not made.message.text


def test_in_auto_a_call_that_is_made_is_a_right_one() -> None:
    with chatting() as chat:
        call = chat.renderer.tokenizer.id("[TOOL_CALLS]")
        called = free = 0
        for bias in (3.0, 12.0):
            sampling = Sampling(seed=3, n=12, max_tokens=120, thinking_tokens=4, logit_bias={call: bias}, **HOT)
            for choice in ask(chat, tools=TOOLS, sampling=sampling):
                if choice.message.tool_calls and choice.finish is not FinishReason.LENGTH:
                    check_calls(choice, 99)
                    called += 1
                else:
                    free += 1
        assert called
        assert free


def test_with_a_format_and_tools_it_is_one_or_the_other() -> None:
    with chatting() as chat:
        call = chat.renderer.tokenizer.id("[TOOL_CALLS]")
        outcomes = set()
        for bias in (-9.0, 0.0, 9.0):
            sampling = Sampling(seed=4, n=6, max_tokens=500, thinking_tokens=0, logit_bias={call: bias}, **HOT)
            asked = {"tools": TOOLS, "tool_choice": ToolChoice(parallel=False), "json_format": JsonFormat(SCHEMA)}
            for choice in ask(chat, sampling=sampling, **asked):
                outcomes.add(choice.finish)
                if choice.message.tool_calls:
                    assert not choice.message.text
                    check_calls(choice, 1)
                else:
                    jsonschema_rs.validate(SCHEMA, json.loads(choice.message.text))
        assert outcomes == {FinishReason.END, FinishReason.TOOL_CALLS}


def test_where_no_tool_may_be_called_none_is() -> None:
    with chatting() as chat:
        sampling = Sampling(seed=5, n=8, max_tokens=40, logit_bias={chat.renderer.tokenizer.id("[TOOL_CALLS]"): 30.0})
        for choice in ask(chat, tools=TOOLS, tool_choice=ToolChoice(ToolMode.NONE), sampling=sampling):
            assert not choice.message.tool_calls
            assert not [note for note in choice.annotations if note.kind == "stray_tag"]


def test_an_open_thought_is_thought_to_its_end_first() -> None:
    with chatting() as chat:
        messages = (user("?"), assistant(Thinking("Well", closed=False)))
        sampling = Sampling(seed=6, n=4, thinking_tokens=7, **HOT)
        for choice in ask(chat, messages=messages, json_format=JsonFormat(SCHEMA), sampling=sampling):
            assert choice.usage.thinking_tokens == 8
            jsonschema_rs.validate(SCHEMA, json.loads(choice.message.text))


def test_side_by_side_guessed_and_preempted_it_stays_what_it_was_alone() -> None:
    requests = [
        {"json_format": JsonFormat(SCHEMA), "sampling": Sampling(seed=seed, thinking_tokens=9, **HOT)}
        for seed in range(4)
    ] + [
        {
            "tools": TOOLS,
            "tool_choice": choice,
            "sampling": Sampling(seed=seed, thinking_tokens=9, max_tokens=90, **HOT),
        }
        for seed, choice in enumerate(
            (ToolChoice(), ToolChoice(ToolMode.REQUIRED), ToolChoice(ToolMode.NAMED, "weather"))
        )
    ]

    async def together(chat: LocalChat) -> list[Choice]:
        replies = [collect(chat.chat(ChatRequest(messages=(user("Say."),), **fields))) for fields in requests]
        return [reply.choices[0] for reply in await asyncio.gather(*replies)]

    with chatting() as chat:
        alone = [ask(chat, **fields)[0] for fields in requests]
        assert [choice.message.text for choice in asyncio.run(together(chat))] == [one.message.text for one in alone]
    with chatting(context=480, blocks=60, speculation=4, row_cost=0.0) as chat:
        crowded = asyncio.run(together(chat))
        assert isinstance(chat.token_model, Engine)
        assert chat.token_model.load().preemptions > 0
    for one, other in zip(alone, crowded, strict=True):
        assert (one.message.text, one.finish) == (other.message.text, other.finish)
        assert [(c.name, c.arguments) for c in one.message.tool_calls] == [
            (c.name, c.arguments) for c in other.message.tool_calls
        ]


def test_a_schema_that_cannot_be_followed_is_refused_by_its_own_field() -> None:
    bad = {"type": "object", "properties": {"x": {"not": {}}}}
    with chatting() as chat:
        with pytest.raises(Refused, match=r"^tools\[1\]\.parameters: cannot be followed: Unimplemented keys"):
            ask(chat, tools=(TOOLS[0], Tool("bad", bad)))
        with pytest.raises(Refused, match=r"^json_format: cannot be followed: Unimplemented keys"):
            ask(chat, json_format=JsonFormat(bad))
        with pytest.raises(Refused, match=r"^grammar: at 1\(8\): unknown name"):
            ask(chat, sampling=Sampling(grammar="start: x"))
