"""The body of Responses as types, and the items of its input.

Items, tools and choices are taken apart one by one in `wire.openai_responses.items` and `.request`, by their type.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class _Struct(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An unknown key is an error."""


class TextPart(_Struct):
    type: str
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    prompt_cache_breakpoint: Any = None
    parsed: Any = None


class RefusalPart(_Struct):
    type: str
    refusal: str


class ImagePart(_Struct):
    type: str
    image_url: str | None = None
    file_id: str | None = None
    detail: Literal["auto", "high", "low", "original"] | None = None
    prompt_cache_breakpoint: Any = None


_Status = Literal["in_progress", "completed", "incomplete"]


class Message(_Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[dict[str, Any]]
    type: str | None = None
    id: str | None = None
    status: _Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class FunctionCall(_Struct):
    type: str
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: _Status | None = None
    caller: dict[str, Any] | None = None
    namespace: str | None = None
    parsed_arguments: Any = None
    asynchronous: bool | None = msgspec.field(name="async", default=None)


class FunctionCallOutput(_Struct):
    type: str
    call_id: str
    output: str | list[dict[str, Any]]
    id: str | None = None
    status: _Status | None = None
    caller: dict[str, Any] | None = None
    name: str | None = None
    namespace: str | None = None


class ReasoningText(_Struct):
    text: str
    type: Literal["reasoning_text", "summary_text", "text"]


class Reasoning(_Struct):
    type: str
    summary: list[ReasoningText] | None = None
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None
    id: str | None = None
    status: _Status | None = None


class ReasoningConfig(_Struct):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: str | None = None


class Format(_Struct):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextConfig(_Struct):
    format: Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Tool(_Struct):
    type: str
    name: str
    parameters: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    allowed_callers: list[str] | None = None
    output_schema: dict[str, Any] | None = None
    asynchronous: bool | None = msgspec.field(name="async", default=None)


class NamedChoice(_Struct):
    type: str
    name: str


class AllowedChoice(_Struct):
    type: str
    mode: Literal["auto", "required"]
    tools: list[dict[str, Any]]


class StreamOptions(_Struct):
    include_obfuscation: bool | None = None


class CacheOptions(_Struct):
    mode: Literal["implicit", "explicit"] | None = None
    ttl: str | None = None
    prewarm: bool | None = None
    comparison_response_id: str | None = None


class Body(_Struct):
    """What Responses takes."""

    model: str | None = None
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    reasoning: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    client_metadata: dict[str, str] | None = None
    """What agents call their installation and their turn."""
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: CacheOptions | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    service_tier: str | None = None
    truncation: Literal["auto", "disabled"] | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    context_management: Any = None
    moderation: Any = None
    access_programs: Any = None
    image: Any = None
