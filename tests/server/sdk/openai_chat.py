"""The published openai package: chat completions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
from tests.server.sdk.said import CLOCK, FORM, LONG, PARAMETERS, QUESTION, WEATHER, Called, Said, Streamed, Turns, Wrong

USER: Any = {"role": "user", "content": QUESTION}
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "description": "tells", "parameters": PARAMETERS}}
    for name in (WEATHER, CLOCK)
]


def client(base: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{base}/v1", api_key="any", max_retries=0)


def drive(base: str) -> Said:
    with client(base) as api:
        chat: Any = api.chat.completions
        message = chat.create(model="nano", messages=[USER]).choices[0].message
        form = {"type": "json_schema", "json_schema": {"name": "form", "schema": FORM, "strict": True}}
        said = Said(
            plain={"thinking": message.reasoning, "text": message.content},
            streamed=_streamed(chat),
            turns=_turns(chat),
            called=_called(chat),
            formed=chat.create(model="nano", messages=[USER], response_format=form).choices[0].message.content,
            missing=wrong(lambda: chat.create(model="gpt-9", messages=[USER])),
            wrong=wrong(lambda: chat.create(model="nano", messages=[USER], temperature=9)),
        )
        stream = chat.create(model="nano", messages=[{"role": "user", "content": LONG}], stream=True)
        for _ in zip(range(3), stream, strict=False):
            pass
        stream.close()
        return said


def wrong(call: Callable[[], object]) -> Wrong:
    try:
        call()
    except openai.APIStatusError as error:
        return {"kind": type(error).__name__, "status": error.status_code, "message": f"{error.param} {error}"}
    raise AssertionError("no error")


def _streamed(chat: Any) -> Streamed:
    thinking, text, pieces = "", "", 0
    for chunk in chat.create(model="nano", messages=[USER], stream=True):
        delta = chunk.choices[0].delta
        thinking += getattr(delta, "reasoning", None) or ""
        text += delta.content or ""
        pieces += 1
    return {"thinking": thinking, "text": text, "pieces": pieces}


def _turns(chat: Any) -> Turns:
    first = chat.create(model="nano", messages=[USER])
    message = first.choices[0].message
    replayed, bare = (
        chat.create(model="nano", max_tokens=1, messages=[USER, turn, USER]).usage.prompt_tokens
        for turn in (message, {"role": "assistant", "content": message.content})
    )
    return {"replayed": replayed, "bare": bare}


def _called(chat: Any) -> Called:
    message = chat.create(model="nano", messages=[USER], tools=TOOLS, tool_choice="required").choices[0].message
    (call, *_) = message.tool_calls
    choice = {"type": "function", "function": {"name": CLOCK}}
    named = chat.create(model="nano", messages=[USER], tools=TOOLS, tool_choice=choice).choices[0].message
    results = [{"role": "tool", "tool_call_id": one.id, "content": "12"} for one in message.tool_calls]
    after = chat.create(
        model="nano", messages=[USER, message, *results], tools=TOOLS, tool_choice="none", max_tokens=16
    )
    return {
        "name": call.function.name,
        "arguments": json.loads(call.function.arguments),
        "named": named.tool_calls[0].function.name,
        "after": after.choices[0].message.content,
        "prompt": after.usage.prompt_tokens,
    }
