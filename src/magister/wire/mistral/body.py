"""The body of La Plateforme's chat as types: its own fields, and those that its published SDKs send besides.

Contents are taken apart by their type where OpenAI's are. Null is no choice, but for `prompt_mode`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from magister.wire.openai_chat.body import EffortWord, Format, Function, Named


class _Struct(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An unknown key is an error."""


class CalledFunction(_Struct):
    name: str
    arguments: str | dict[str, Any] = ""


class Call(_Struct):
    function: CalledFunction
    id: str = ""
    type: str = "function"
    index: int | None = None


class Message(_Struct):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    prefix: bool | None = None
    reasoning: str | None = None
    """A thought as clients of other dialects replay it; so are the next two."""
    reasoning_content: str | None = None
    reasoning_details: list[dict[str, Any]] | None = None


class Tool(_Struct):
    type: str = "function"
    function: Function | None = None


class Choice(_Struct):
    function: Named
    type: str = "function"


class Body(_Struct):
    """What is asked for."""

    model: str
    messages: list[Message]
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    stop: str | list[str] | None = None
    random_seed: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    prompt_logprobs: bool | None = None
    top_prompt_logprobs: int | None = None
    tools: list[Tool] | None = None
    tool_choice: str | Choice | None = None
    parallel_tool_calls: bool | None = None
    response_format: Format | None = None
    prompt_mode: Literal["reasoning"] | msgspec.UnsetType | None = msgspec.UNSET
    """Null is a choice of its own: no reasoning instruction."""
    reasoning_effort: EffortWord | None = None
    safe_prompt: bool | None = None
    metadata: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    guardrails: list[Any] | None = None
    prediction: dict[str, Any] | None = None


BODY = Body
"""The type that bodies are read with."""
