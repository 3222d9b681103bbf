"""The published openai package: responses."""

from __future__ import annotations

import json
from typing import Any

from tests.server.sdk.openai_chat import client, wrong
from tests.server.sdk.said import (
    CLOCK,
    FORM,
    LONG,
    PARAMETERS,
    QUESTION,
    WEATHER,
    Answered,
    Called,
    Said,
    Streamed,
    Turns,
)

USER: Any = {"role": "user", "content": QUESTION}
TOOLS: Any = [
    {"type": "function", "name": name, "description": "tells", "parameters": PARAMETERS, "strict": True}
    for name in (WEATHER, CLOCK)
]


def drive(base: str) -> Said:
    with client(base) as api:
        ask: Any = api.responses
        form = {"format": {"type": "json_schema", "name": "form", "schema": FORM, "strict": True}}
        said = Said(
            plain=_answered(ask.create(model="nano", input=QUESTION)),
            streamed=_streamed(ask),
            turns=_turns(ask),
            called=_called(ask),
            formed=ask.create(model="nano", input=QUESTION, text=form).output_text,
            missing=wrong(lambda: ask.create(model="gpt-9", input=QUESTION)),
            wrong=wrong(lambda: ask.create(model="nano", input=QUESTION, temperature=9)),
        )
        stream = ask.create(model="nano", input=LONG, stream=True)
        for _ in zip(range(6), stream, strict=False):
            pass
        stream.close()
        return said


def _answered(reply: Any) -> Answered:
    thoughts = [part.text for item in reply.output if item.type == "reasoning" for part in item.content]
    return {"thinking": "".join(thoughts), "text": reply.output_text}


def _streamed(ask: Any) -> Streamed:
    thinking, text, pieces = "", "", 0
    for event in ask.create(model="nano", input=QUESTION, stream=True):
        if event.type == "response.reasoning_text.delta":
            thinking += event.delta
        elif event.type == "response.output_text.delta":
            text += event.delta
        elif event.type == "response.completed":
            assert _answered(event.response) == {"thinking": thinking, "text": text}
        pieces += 1
    return {"thinking": thinking, "text": text, "pieces": pieces}


def _turns(ask: Any) -> Turns:
    first = ask.create(model="nano", input=QUESTION)
    spoken = [item for item in first.output if item.type != "reasoning"]
    replayed, bare = (
        ask.create(model="nano", max_output_tokens=16, input=[USER, *turn, USER]).usage.input_tokens
        for turn in (first.output, spoken)
    )
    return {"replayed": replayed, "bare": bare}


def _called(ask: Any) -> Called:
    first = ask.create(model="nano", input=QUESTION, tools=TOOLS, tool_choice="required")
    calls = [item for item in first.output if item.type == "function_call"]
    choice = {"type": "function", "name": CLOCK}
    named = ask.create(model="nano", input=QUESTION, tools=TOOLS, tool_choice=choice)
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "12"} for call in calls]
    after = ask.create(
        model="nano", input=[USER, *first.output, *results], tools=TOOLS, tool_choice="none", max_output_tokens=16
    )
    return {
        "name": calls[0].name,
        "arguments": json.loads(calls[0].arguments),
        "named": next(item.name for item in named.output if item.type == "function_call"),
        "after": after.output_text,
        "prompt": after.usage.input_tokens,
    }
