"""The published mistralai package."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mistralai.client import Mistral, errors
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
    Wrong,
)

USER: Any = {"role": "user", "content": QUESTION}
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "description": "tells", "parameters": PARAMETERS}}
    for name in (WEATHER, CLOCK)
]


def drive(base: str) -> Said:
    with Mistral(api_key="any", server_url=base) as client:
        chat: Any = client.chat
        form = {"type": "json_schema", "json_schema": {"name": "form", "schema": FORM, "strict": True}}
        formed = chat.complete(model="nano", messages=[USER], response_format=form)
        said = Said(
            plain=_answered(chat.complete(model="nano", messages=[USER]).choices[0].message.content),
            streamed=_streamed(chat),
            turns=_turns(chat),
            called=_called(chat),
            formed=_answered(formed.choices[0].message.content)["text"],
            missing=_wrong(lambda: chat.complete(model="mistral-9", messages=[USER])),
            wrong=_wrong(lambda: chat.complete(model="nano", messages=[USER], temperature=9)),
        )
        with chat.stream(model="nano", messages=[{"role": "user", "content": LONG}]) as stream:
            for _ in zip(range(3), stream, strict=False):
                pass
        return said


def _answered(content: Any) -> Answered:
    chunks = [] if isinstance(content, str) or not content else content
    thoughts = [part.text for chunk in chunks if chunk.type == "thinking" for part in chunk.thinking]
    text = content if isinstance(content, str) else "".join(chunk.text for chunk in chunks if chunk.type == "text")
    return {"thinking": "".join(thoughts), "text": text}


def _wrong(call: Callable[[], object]) -> Wrong:
    try:
        call()
    except errors.MistralError as error:
        return {"kind": type(error).__name__, "status": error.status_code, "message": f"{error} {error.body}"}
    raise AssertionError("no error")


def _streamed(chat: Any) -> Streamed:
    thinking, text, pieces = "", "", 0
    with chat.stream(model="nano", messages=[USER]) as stream:
        for event in stream:
            piece = _answered(event.data.choices[0].delta.content)
            thinking, text, pieces = thinking + piece["thinking"], text + piece["text"], pieces + 1
    return {"thinking": thinking, "text": text, "pieces": pieces}


def _turns(chat: Any) -> Turns:
    first = chat.complete(model="nano", messages=[USER])
    message = first.choices[0].message
    spoken = {"role": "assistant", "content": _answered(message.content)["text"]}
    replayed, bare = (
        chat.complete(model="nano", max_tokens=1, messages=[USER, turn, USER]).usage.prompt_tokens
        for turn in (message, spoken)
    )
    return {"replayed": replayed, "bare": bare}


def _called(chat: Any) -> Called:
    message = chat.complete(model="nano", messages=[USER], tools=TOOLS, tool_choice="any").choices[0].message
    choice = {"type": "function", "function": {"name": CLOCK}}
    named = chat.complete(model="nano", messages=[USER], tools=TOOLS, tool_choice=choice).choices[0].message
    results = [{"role": "tool", "tool_call_id": one.id, "content": "12"} for one in message.tool_calls]
    after = chat.complete(
        model="nano", messages=[USER, message, *results], tools=TOOLS, tool_choice="none", max_tokens=16
    )
    arguments = message.tool_calls[0].function.arguments
    return {
        "name": message.tool_calls[0].function.name,
        "arguments": json.loads(arguments) if isinstance(arguments, str) else arguments,
        "named": named.tool_calls[0].function.name,
        "after": _answered(after.choices[0].message.content)["text"],
        "prompt": after.usage.prompt_tokens,
    }
