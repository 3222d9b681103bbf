"""The published anthropic package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
from tests.server.sdk.said import CLOCK, FORM, LONG, PARAMETERS, QUESTION, WEATHER, Called, Said, Streamed, Turns, Wrong

USER: Any = {"role": "user", "content": QUESTION}
TOOLS: Any = [{"name": name, "description": "tells", "input_schema": PARAMETERS} for name in (WEATHER, CLOCK)]
ROOM: Any = {"model": "nano", "max_tokens": 500}


def drive(base: str) -> Said:
    with anthropic.Anthropic(base_url=base, api_key="any", max_retries=0) as api:
        chat: Any = api.messages
        form = {"format": {"type": "json_schema", "schema": FORM}}
        thought, answer = chat.create(**ROOM, messages=[USER]).content
        said = Said(
            plain={"thinking": thought.thinking, "text": answer.text},
            streamed=_streamed(chat),
            turns=_turns(chat),
            called=_called(chat),
            formed=_text(chat.create(**ROOM, messages=[USER], output_config=form)),
            missing=_wrong(lambda: chat.create(model="claude-9", max_tokens=9, messages=[USER])),
            # This package has no word for the temperature any more; it sends what it is given.
            wrong=_wrong(lambda: chat.create(**ROOM, messages=[USER], extra_body={"temperature": 9})),
        )
        with chat.stream(**ROOM, messages=[{"role": "user", "content": LONG}]) as stream:
            for _ in zip(range(5), stream, strict=False):
                pass
        return said


def _text(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def _wrong(call: Callable[[], object]) -> Wrong:
    try:
        call()
    except anthropic.APIStatusError as error:
        return {"kind": type(error).__name__, "status": error.status_code, "message": str(error)}
    raise AssertionError("no error")


def _streamed(chat: Any) -> Streamed:
    thinking, text, pieces = "", "", 0
    with chat.stream(**ROOM, messages=[USER]) as stream:
        for event in stream:
            thinking += event.thinking if event.type == "thinking" else ""
            text += event.text if event.type == "text" else ""
            pieces += 1
        assert _text(stream.get_final_message()) == text
    return {"thinking": thinking, "text": text, "pieces": pieces}


def _turns(chat: Any) -> Turns:
    first = chat.create(**ROOM, messages=[USER])
    spoken = [block for block in first.content if block.type == "text"]
    replayed, bare = (
        chat.count_tokens(model="nano", messages=[USER, {"role": "assistant", "content": turn}, USER]).input_tokens
        for turn in (first.content, spoken)
    )
    return {"replayed": replayed, "bare": bare}


def _called(chat: Any) -> Called:
    first = chat.create(**ROOM, messages=[USER], tools=TOOLS, tool_choice={"type": "any"})
    calls = [block for block in first.content if block.type == "tool_use"]
    named = chat.create(**ROOM, messages=[USER], tools=TOOLS, tool_choice={"type": "tool", "name": CLOCK})
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "12"} for call in calls]
    turns = [USER, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    after = chat.create(model="nano", max_tokens=16, messages=turns, tools=TOOLS, tool_choice={"type": "none"})
    return {
        "name": calls[0].name,
        "arguments": calls[0].input,
        "named": next(block.name for block in named.content if block.type == "tool_use"),
        "after": _text(after),
        "prompt": after.usage.input_tokens + after.usage.cache_read_input_tokens,
    }
