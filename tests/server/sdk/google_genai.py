"""The published google-genai package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google import genai
from google.genai import errors, types
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

USER = types.Content(role="user", parts=[types.Part(text=QUESTION)])
SHOWN = {"thinking_config": {"include_thoughts": True}}
TOOLS = [
    {"function_declarations": [{"name": name, "description": "tells", "parameters_json_schema": PARAMETERS}]}
    for name in (WEATHER, CLOCK)
]


def drive(base: str) -> Said:
    with genai.Client(api_key="any", http_options=types.HttpOptions(base_url=base)) as client:
        models: Any = client.models
        form = {"response_mime_type": "application/json", "response_json_schema": FORM}
        said = Said(
            plain=_answered(models.generate_content(model="nano", contents=QUESTION, config=SHOWN)),
            streamed=_streamed(models),
            turns=_turns(models),
            called=_called(models),
            formed=models.generate_content(model="nano", contents=QUESTION, config=form).text,
            missing=_wrong(lambda: models.generate_content(model="gemini-9", contents=QUESTION)),
            wrong=_wrong(lambda: models.generate_content(model="nano", contents=QUESTION, config={"temperature": 9})),
        )
        stream = models.generate_content_stream(model="nano", contents=LONG, config=SHOWN)
        for _ in zip(range(3), stream, strict=False):
            pass
        stream.close()
        return said


def _answered(reply: Any) -> Answered:
    parts = reply.candidates[0].content.parts
    return {
        "thinking": "".join(part.text for part in parts if part.thought),
        "text": "".join(part.text or "" for part in parts if not part.thought),
    }


def _wrong(call: Callable[[], object]) -> Wrong:
    try:
        call()
    except errors.APIError as error:
        return {"kind": type(error).__name__, "status": error.code, "message": str(error)}
    raise AssertionError("no error")


def _streamed(models: Any) -> Streamed:
    thinking, text, pieces = "", "", 0
    for chunk in models.generate_content_stream(model="nano", contents=QUESTION, config=SHOWN):
        if chunk.candidates and chunk.candidates[0].content and chunk.candidates[0].content.parts:
            piece = _answered(chunk)
            thinking, text = thinking + piece["thinking"], text + piece["text"]
        pieces += 1
    return {"thinking": thinking, "text": text, "pieces": pieces}


def _turns(models: Any) -> Turns:
    first = models.generate_content(model="nano", contents=QUESTION, config=SHOWN)
    content = first.candidates[0].content
    spoken = types.Content(role="model", parts=[part for part in content.parts if not part.thought])
    replayed, bare = (
        models.count_tokens(model="nano", contents=[USER, turn, USER]).total_tokens for turn in (content, spoken)
    )
    return {"replayed": replayed, "bare": bare}


def _called(models: Any) -> Called:
    def config(**choice: Any) -> dict[str, Any]:
        return {**SHOWN, "tools": TOOLS, "tool_config": {"function_calling_config": choice}}

    first = models.generate_content(model="nano", contents=QUESTION, config=config(mode="ANY"))
    only = config(mode="ANY", allowed_function_names=[CLOCK])
    named = models.generate_content(model="nano", contents=QUESTION, config=only)
    results = [
        types.Part(function_response=types.FunctionResponse(id=call.id, name=call.name, response={"output": "12"}))
        for call in first.function_calls
    ]
    turns = [USER, first.candidates[0].content, types.Content(role="user", parts=results)]
    after = models.generate_content(
        model="nano", contents=turns, config={**config(mode="NONE"), "max_output_tokens": 16}
    )
    return {
        "name": first.function_calls[0].name,
        "arguments": first.function_calls[0].args,
        "named": named.function_calls[0].name,
        "after": after.text,
        "prompt": after.usage_metadata.prompt_token_count,
    }
