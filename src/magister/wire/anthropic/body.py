"""The bodies of Messages and count_tokens as types, and which blocks of content there are.

Blocks and tools are taken apart one by one in `wire.anthropic.contents` and `wire.anthropic.request`, by their type.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class _Struct(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An unknown key is an error."""


class CacheControl(_Struct):
    """Asks for caching, which happens anyway."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(_Struct):
    type: str
    text: str
    cache_control: CacheControl | None = None
    citations: list[Any] | None = None
    parsed_output: Any = None


class Source(_Struct):
    type: Literal["base64", "url", "file"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None


class ImageBlock(_Struct):
    type: str
    source: Source
    cache_control: CacheControl | None = None
    transformations: dict[str, Any] | None = None


class ToolUseBlock(_Struct):
    type: str
    id: str
    name: str
    input: dict[str, Any]
    cache_control: CacheControl | None = None
    caller: dict[str, Any] | None = None
    toolset_name: str | None = None


class ToolResultBlock(_Struct):
    type: str
    tool_use_id: str
    content: str | list[dict[str, Any]] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None
    toolset_name: str | None = None


class ThinkingBlock(_Struct):
    type: str
    thinking: str
    signature: str | None = None
    cache_control: CacheControl | None = None


class RedactedBlock(_Struct):
    type: str
    data: str
    cache_control: CacheControl | None = None


class Message(_Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class Thinking(_Struct):
    type: Literal["enabled", "adaptive", "between_tools", "disabled"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


class Format(_Struct):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(_Struct):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: Format | None = None


class Tool(_Struct):
    name: str
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None
    description: str | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None
    defer_loading: bool | None = None
    input_examples: list[dict[str, Any]] | None = None
    allowed_callers: list[str] | None = None


class ToolChoice(_Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ContextManagement(_Struct):
    """Edits of the conversation; those that would change nothing are taken."""

    edits: list[dict[str, Any]] | None = None


class CountBody(_Struct):
    """What count_tokens takes."""

    messages: list[Message]
    model: str | None = None
    system: str | list[dict[str, Any]] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: ToolChoice | None = None
    cache_control: CacheControl | None = None
    speed: Literal["standard", "fast"] | None = None
    context_management: ContextManagement | None = None
    mcp_servers: list[Any] | None = None
    output_format: Format | None = None
    """What `output_config.format` was called before."""
    user_profile_id: str | None = None
    workspace_id: str | None = None
    compaction: Any = None
    fallbacks: Any = None
    fallback_credit_token: Any = None
    thread: Any = None
    billing_policy: Any = None


class Metadata(_Struct):
    user_id: str | None = None


class Body(CountBody):
    """What Messages takes."""

    max_tokens: int | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    container: Any = None
    diagnostics: dict[str, Any] | None = None
    inference_geo: str | None = None
