"""The bodies of generateContent and countTokens as types, and how their keys are spelled.

Clients write camelCase or snake_case, even within one body. Keys are made camelCase before anything else reads them,
but for those inside values that are the client's own: schemas, arguments, responses, labels. Errors name a field as
the client spelled it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from magister.wire.fault import BadRequest
from magister.wire.reading import parse

OPAQUE = frozenset(
    {"parameters", "parametersJsonSchema", "response", "responseSchema", "responseJsonSchema", "args", "labels"}
)
"""Fields whose keys belong to the client."""

_WORD = re.compile(r"[A-Za-z_]\w*")


class _Struct(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Keys in camelCase; an unknown one is an error."""


class Blob(_Struct):
    data: str
    mime_type: str
    display_name: str | None = None


class FileData(_Struct):
    file_uri: str
    mime_type: str | None = None
    display_name: str | None = None


class FunctionCall(_Struct):
    name: str
    id: str | None = None
    args: dict[str, Any] | None = None
    partial_args: Any = None
    will_continue: Any = None


class FunctionResponse(_Struct):
    name: str
    id: str | None = None
    response: dict[str, Any] | None = None
    parts: Any = None
    will_continue: Any = None
    scheduling: Any = None


class Part(_Struct):
    """One of the first five, with marks on it."""

    text: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    executable_code: Any = None
    code_execution_result: Any = None
    tool_call: Any = None
    tool_response: Any = None
    video_metadata: Any = None
    media_resolution: Any = None
    part_metadata: Any = None
    media_processing: Any = None
    audio_metadata: Any = None
    audio_transcription: Any = None
    speech_metadata: Any = None
    document_metadata: Any = None
    spreadsheet_metadata: Any = None


class Content(_Struct):
    role: str | None = None
    parts: list[Part] | Part | None = None


class FunctionDeclaration(_Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None
    response: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None
    behavior: str | None = None


class Tool(_Struct):
    function_declarations: list[FunctionDeclaration] | None = None
    google_search: Any = None
    google_search_retrieval: Any = None
    google_maps: Any = None
    code_execution: Any = None
    computer_use: Any = None
    url_context: Any = None
    file_search: Any = None
    retrieval: Any = None
    enterprise_web_search: Any = None
    parallel_ai_search: Any = None
    exa_ai_search: Any = None
    mcp_servers: Any = None


class FunctionCallingConfig(_Struct):
    mode: str | None = None
    allowed_function_names: list[str] | None = None
    stream_function_call_arguments: Any = None


class ToolConfig(_Struct):
    function_calling_config: FunctionCallingConfig | None = None
    retrieval_config: Any = None
    include_server_side_tool_invocations: Any = None


class ThinkingConfig(_Struct):
    include_thoughts: bool | None = None
    thinking_budget: float | None = None
    thinking_level: str | None = None


class GenerationConfig(_Struct):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    max_output_tokens: float | None = None
    stop_sequences: list[str] | None = None
    candidate_count: float | None = None
    seed: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_mime_type: str | None = None
    response_schema: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None
    response_logprobs: bool | None = None
    logprobs: float | None = None
    thinking_config: ThinkingConfig | None = None
    response_modalities: list[str] | None = None
    media_resolution: Any = None
    speech_config: Any = None
    audio_timestamp: Any = None
    audio_transcription_config: Any = None
    image_config: Any = None
    routing_config: Any = None
    model_config: Any = None
    model_selection_config: Any = None
    enable_enhanced_civic_answers: Any = None
    enable_affective_dialog: Any = None
    translation_config: Any = None
    response_format: Any = None


class SafetySetting(_Struct):
    category: str | None = None
    threshold: str | None = None
    method: str | None = None


class Body(_Struct):
    """What generateContent takes."""

    contents: list[Content] | Content | None = None
    system_instruction: Content | str | None = None
    tools: list[Tool] | None = None
    tool_config: ToolConfig | None = None
    generation_config: GenerationConfig | None = None
    safety_settings: list[SafetySetting] | None = None
    labels: dict[str, str] | None = None
    model: str | None = None
    cached_content: Any = None
    service_tier: str | None = None
    store: bool | None = None
    model_armor_config: Any = None
    continuation_token: Any = None


class CountBody(Body):
    """What countTokens takes: a whole request, or its contents alone."""

    generate_content_request: Body | None = None


def read_tree(body: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """A body with its keys in camelCase, and how the client spelled those that were not."""
    tree, spelled = parse(body), dict[str, str]()
    return (_camelled(tree, spelled) if b"_" in body else tree), spelled


@contextmanager
def respelled(spelled: Mapping[str, str]) -> Iterator[None]:
    """Errors raised within name their field as the client spelled it."""
    try:
        yield
    except BadRequest as error:
        if not spelled:
            raise
        told = error.fault
        field = _WORD.sub(lambda word: spelled.get(word[0], word[0]), told.field)
        raise BadRequest(field, told.message.removeprefix(f"{told.field}: "), told.kind) from None


def camel(name: str) -> str:
    """`top_p` as `topP`; what has no underscore within it stays."""
    if "_" not in name:
        return name
    head, *rest = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in rest) if head else name


def _camelled(value: Any, spelled: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_camelled(one, spelled) if isinstance(one, dict | list) else one for one in value]
    made: dict[str, Any] = {}
    for key, inner in value.items():
        name = camel(key)
        if name in made:
            raise BadRequest(key, f"is given twice, also as {spelled.get(name, name)}")
        if name != key:
            spelled[name] = key
        made[name] = _camelled(inner, spelled) if isinstance(inner, dict | list) and name not in OPAQUE else inner
    return made
