"""The body of Chat Completions as types. Parts of messages are taken apart by their type in `contents`.

Besides OpenAI's own fields: OpenRouter's `reasoning` and `include_reasoning`; vLLM's `top_k`, `min_p`, `ignore_eos`,
`continue_final_message` and `add_generation_prompt`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

EffortWord = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class _Struct(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An unknown key is an error."""


class TextPart(_Struct):
    text: str
    type: str = "text"
    cache_control: Any = None
    """Beginnings that repeat are cached without being told."""
    prompt_cache_breakpoint: Any = None
    """As `cache_control`."""


class RefusalPart(_Struct):
    refusal: str
    type: str = "refusal"


class ImageUrl(_Struct):
    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(_Struct):
    image_url: ImageUrl | str
    type: str = "image_url"
    cache_control: Any = None
    prompt_cache_breakpoint: Any = None


class ThinkingPart(_Struct):
    """Mistral's chunk, whose thought is a list of texts or, in vLLM's templates, a string."""

    thinking: str | list[dict[str, Any]]
    type: str = "thinking"
    closed: bool | None = None
    signature: str | None = None


class CalledFunction(_Struct):
    name: str
    arguments: str = ""
    parsed_arguments: Any = None
    """The SDK's own reading of the arguments, in messages it gave."""


class Call(_Struct):
    id: str = ""
    type: str = "function"
    function: CalledFunction | None = None
    index: int | None = None
    custom: dict[str, Any] | None = None


class Message(_Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    prefix: bool | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[dict[str, Any]] | None = None
    refusal: str | None = None
    audio: dict[str, Any] | None = None
    function_call: dict[str, Any] | None = None
    annotations: list[Any] | None = None
    parsed: Any = None
    """The SDK's own reading of the content, in messages it gave."""


class Function(_Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Struct):
    type: str
    function: Function | None = None
    custom: dict[str, Any] | None = None


class Named(_Struct):
    name: str


class AllowedTools(_Struct):
    mode: Literal["auto", "required"]
    tools: list[dict[str, Any]]


class Choice(_Struct):
    type: str
    function: Named | None = None
    allowed_tools: AllowedTools | None = None
    custom: Named | None = None


class JsonSchema(_Struct):
    name: str
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class Format(_Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(_Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Reasoning(_Struct):
    effort: EffortWord | None = None
    max_tokens: int | None = None
    exclude: bool | None = None
    enabled: bool | None = None


class Body(_Struct):
    """What is asked for."""

    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: EffortWord | None = None
    reasoning: Reasoning | None = None
    include_reasoning: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: str | Choice | None = None
    parallel_tool_calls: bool | None = None
    response_format: Format | None = None
    ignore_eos: bool | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    verbosity: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    chat_template_kwargs: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None


BODY = Body
"""The type that bodies are read with."""
