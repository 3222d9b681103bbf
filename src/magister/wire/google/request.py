"""generateContent's and countTokens' bodies -> `Asked`.

Knows what of a request this server can honour; the messages are read in `wire.google.contents`.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from magister.types import ChatRequest, Effort, JsonFormat, Sampling, Tool, ToolChoice, ToolMode
from magister.wire.dialect import Asked
from magister.wire.fault import BadRequest
from magister.wire.google import body as google
from magister.wire.google.contents import messages_of
from magister.wire.google.schema import to_json_schema
from magister.wire.reading import convert, join, within

_LEVELS = {"MINIMAL": Effort.MINIMAL, "LOW": Effort.LOW, "MEDIUM": Effort.MEDIUM, "HIGH": Effort.HIGH}
_NO_BLOCKING = frozenset({"BLOCK_NONE", "OFF", "HARM_BLOCK_THRESHOLD_UNSPECIFIED"})
_NO_TOOL = "this server runs no tools of its own; declare it as a function and run it yourself"
_BODY = {
    "cached_content": "contexts are not stored here; send them whole, a repeated beginning is cached anyway",
    "model_armor_config": "there is no such filter here",
    "continuation_token": "nothing is kept here to go on with; send the contents",
}
_CONFIG = {
    "media_resolution": "images are read at their own size, within the model's limit",
    "speech_config": "the answer is text",
    "audio_transcription_config": "there is no audio here",
    "audio_timestamp": "there is no audio here",
    "image_config": "the answer is text",
    "routing_config": "name the model in the path",
    "model_config": "name the model in the path",
    "model_selection_config": "name the model in the path",
    "enable_enhanced_civic_answers": "there is no such mode here",
    "enable_affective_dialog": "there is no such mode here",
    "translation_config": "ask for the translation in the prompt",
    "response_format": "say responseMimeType and responseJsonSchema",
}


def read_request(body: bytes, model: str = "", stream: bool = False, *, signing_key: bytes = b"") -> Asked:
    """What a body asks of the model in the path. `signing_key` unseals thoughts replayed without text.

    Raises `BadRequest`.
    """
    tree, spelled = google.read_tree(body)
    with google.respelled(spelled):
        return _asked(convert(tree, google.Body), model, stream, signing_key)


def read_count_request(body: bytes, model: str = "", *, signing_key: bytes = b"") -> Asked:
    """What countTokens is to count: `contents`, or a `generateContentRequest`. Raises `BadRequest`."""
    tree, spelled = google.read_tree(body)
    with google.respelled(spelled):
        said = convert(tree, google.CountBody)
        if said.generate_content_request is None:
            return _asked(said, model, False, signing_key)
        if said.contents is not None:
            raise BadRequest("contents", "are within generateContentRequest already")
        try:
            return _asked(said.generate_content_request, model, False, signing_key)
        except BadRequest as error:
            told = error.fault
            field = join("generateContentRequest", told.field)
            raise BadRequest(field, told.message.removeprefix(f"{told.field}: "), told.kind) from None


def _asked(said: google.Body, model: str, stream: bool, signing_key: bytes) -> Asked:
    refuse(said, "", _BODY)
    if said.service_tier and said.service_tier.casefold() not in ("standard", "default", "auto", "unspecified"):
        raise BadRequest("serviceTier", f"there is one tier here, not {said.service_tier!r}")
    if said.store:
        raise BadRequest("store", "nothing is stored here")
    for at, setting in enumerate(said.safety_settings or ()):
        if setting.threshold is not None and setting.threshold not in _NO_BLOCKING:
            told = f"there is no filter here that could block; only BLOCK_NONE and OFF hold, got {setting.threshold!r}"
            raise BadRequest(f"safetySettings[{at}].threshold", told)
    config = said.generation_config or google.GenerationConfig()
    sampling = _sampling(config)
    effort, thinking_tokens, show = _thinking(config.thinking_config)
    if thinking_tokens is not None:
        sampling["thinking_tokens"] = thinking_tokens
    tools, choice = _tools(said)
    chat = ChatRequest(
        messages=messages_of(said, signing_key),
        model=_model(said, model),
        tools=tools,
        tool_choice=choice,
        json_format=_json_format(config),
        sampling=Sampling(**sampling),
        effort=effort,
    )
    return Asked(
        chat=chat, given=frozenset(sampling), stream=stream, show_thinking=show, labels=dict(said.labels or {})
    )


def refuse(said: msgspec.Struct, field: str, cannot: dict[str, str]) -> None:
    """Raises `BadRequest` for a field of `cannot` that asks for something."""
    for name, why in cannot.items():
        value = getattr(said, name)
        asks = bool(value) and not (isinstance(value, str) and value.endswith("_UNSPECIFIED"))
        if asks:
            raise BadRequest(join(field, google.camel(name)), why)


def _model(said: google.Body, model: str) -> str:
    inner = (said.model or "").removeprefix("models/")
    if inner and model and inner != model.removeprefix("models/"):
        raise BadRequest("model", f"is {inner!r}, but the path names {model!r}")
    return model.removeprefix("models/") or inner


def _sampling(config: google.GenerationConfig) -> dict[str, Any]:
    """The fields of `Sampling` that the client set."""
    at = "generationConfig"
    refuse(config, at, _CONFIG)
    within(f"{at}.temperature", config.temperature, 0, 2)
    within(f"{at}.topP", config.top_p, 0, 1)
    within(f"{at}.presencePenalty", config.presence_penalty, -2, 2)
    within(f"{at}.frequencyPenalty", config.frequency_penalty, -2, 2)
    top_logprobs = _whole(f"{at}.logprobs", config.logprobs, 0, 20)
    if top_logprobs is not None and not config.response_logprobs:
        raise BadRequest(f"{at}.logprobs", "needs responseLogprobs: true")
    stops = config.stop_sequences or []
    if len(stops) > 5 or "" in stops:
        raise BadRequest(f"{at}.stopSequences", f"at most 5 that are not empty, got {len(stops)}")
    for index, modality in enumerate(config.response_modalities or ()):
        if modality.upper() not in ("TEXT", "MODALITY_UNSPECIFIED"):
            raise BadRequest(f"{at}.responseModalities[{index}]", f"the answer is TEXT, not {modality!r}")
    found = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": _whole(f"{at}.topK", config.top_k, 0, 1 << 20),
        "max_tokens": _whole(f"{at}.maxOutputTokens", config.max_output_tokens, 1, 1 << 31),
        "stop": tuple(stops) or None,
        "n": _whole(f"{at}.candidateCount", config.candidate_count, 1, 8),
        "seed": _whole(f"{at}.seed", config.seed, -(1 << 31), (1 << 31) - 1),
        "presence_penalty": config.presence_penalty,
        "frequency_penalty": config.frequency_penalty,
        "logprobs": config.response_logprobs,
        "top_logprobs": top_logprobs,
    }
    return {name: value for name, value in found.items() if value is not None}


def _whole(field: str, value: float | None, least: int, most: int) -> int | None:
    """Google's clients send whole numbers as floats, too."""
    within(field, value, least, most)
    if value is None:
        return None
    if value != int(value):
        raise BadRequest(field, f"must be a whole number, got {value:g}")
    return int(value)


def _thinking(said: google.ThinkingConfig | None) -> tuple[Effort | None, int | None, bool]:
    """Effort, a number of tokens, and whether thoughts are shown."""
    at = "generationConfig.thinkingConfig"
    if said is None:
        return None, None, False
    show = bool(said.include_thoughts)
    level = said.thinking_level or ""
    budget = _whole(f"{at}.thinkingBudget", said.thinking_budget, -1, 1 << 31)
    if level in ("", "THINKING_LEVEL_UNSPECIFIED"):
        if budget == 0:
            return Effort.NONE, None, show
        return None, (None if budget == -1 else budget), show
    if budget is not None:
        raise BadRequest(f"{at}.thinkingBudget", "is said twice: give a budget or a level")
    if level.upper() not in _LEVELS:
        raise BadRequest(f"{at}.thinkingLevel", f"must be one of {', '.join(_LEVELS)}, got {level!r}")
    return _LEVELS[level.upper()], None, show


def _json_format(config: google.GenerationConfig) -> JsonFormat | None:
    at = "generationConfig"
    if config.response_schema is not None and config.response_json_schema is not None:
        raise BadRequest(f"{at}.responseJsonSchema", "is said twice: give this or responseSchema")
    schema = config.response_json_schema
    if config.response_schema is not None:
        schema = to_json_schema(config.response_schema, f"{at}.responseSchema")
    kind = config.response_mime_type or "text/plain"
    if kind == "application/json":
        return JsonFormat(schema)
    if kind != "text/plain":
        raise BadRequest(f"{at}.responseMimeType", f"must be text/plain or application/json, got {kind!r}")
    if schema is not None:
        name = "responseSchema" if config.response_schema is not None else "responseJsonSchema"
        raise BadRequest(f"{at}.{name}", "needs responseMimeType application/json")
    return None


def _tools(said: google.Body) -> tuple[tuple[Tool, ...], ToolChoice]:
    found: list[Tool] = []
    for at, tool in enumerate(said.tools or ()):
        builtin = [name for name in tool.__struct_fields__ if name != "function_declarations"]
        # {} asks for a tool that needs no settings.
        for name in builtin:
            if getattr(tool, name) is not None:
                raise BadRequest(f"tools[{at}].{google.camel(name)}", _NO_TOOL)
        for inner, declared in enumerate(tool.function_declarations or ()):
            found.append(_tool(declared, f"tools[{at}].functionDeclarations[{inner}]"))
    return _choice(said.tool_config or google.ToolConfig(), tuple(found))


def _tool(said: google.FunctionDeclaration, at: str) -> Tool:
    if said.behavior not in (None, "", "UNSPECIFIED", "BLOCKING"):
        raise BadRequest(f"{at}.behavior", f"the model waits for its calls: BLOCKING, not {said.behavior!r}")
    if said.parameters is not None and said.parameters_json_schema is not None:
        raise BadRequest(f"{at}.parametersJsonSchema", "is said twice: give this or parameters")
    schema = said.parameters_json_schema
    if said.parameters is not None:
        schema = to_json_schema(said.parameters, f"{at}.parameters")
    return Tool(said.name, schema or {"type": "object", "properties": {}}, _description(said, at))


def _description(said: google.FunctionDeclaration, at: str) -> str:
    """What a function does, and what it gives back: the prompt has one place for both."""
    if said.response is not None and said.response_json_schema is not None:
        raise BadRequest(f"{at}.responseJsonSchema", "is said twice: give this or response")
    returned = said.response_json_schema
    if said.response is not None:
        returned = to_json_schema(said.response, f"{at}.response")
    about = f"Returns JSON by this schema: {json.dumps(returned, ensure_ascii=False)}" if returned else ""
    return "\n\n".join(text for text in (said.description or "", about) if text)


def _choice(config: google.ToolConfig, tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools that may be called, and how."""
    why = "this server runs no tools of its own"
    refuse(config, "toolConfig", {"retrieval_config": why, "include_server_side_tool_invocations": why})
    said, at = config.function_calling_config or google.FunctionCallingConfig(), "toolConfig.functionCallingConfig"
    refuse(said, at, {"stream_function_call_arguments": "calls come whole, in the last frame"})
    mode, names = (said.mode or "AUTO").upper(), said.allowed_function_names or []
    if mode not in ("AUTO", "ANY", "NONE", "VALIDATED", "MODE_UNSPECIFIED"):
        raise BadRequest(f"{at}.mode", f"must be AUTO, ANY, NONE or VALIDATED, got {said.mode!r}")
    for index, name in enumerate(names):
        if mode not in ("ANY", "VALIDATED"):
            raise BadRequest(f"{at}.allowedFunctionNames", f"goes with the modes ANY and VALIDATED, not {mode}")
        if all(tool.name != name for tool in tools):
            raise BadRequest(f"{at}.allowedFunctionNames[{index}]", f"no function {name!r} is declared")
    if mode == "ANY":
        if not tools:
            raise BadRequest(f"{at}.mode", "ANY needs at least one function in tools")
        if len(names) == 1:
            return tools, ToolChoice(ToolMode.NAMED, names[0])
    # Of several allowed functions the model sees just these.
    shown = tuple(tool for tool in tools if not names or tool.name in names)
    modes = {"ANY": ToolMode.REQUIRED, "NONE": ToolMode.NONE}
    return shown, ToolChoice(modes.get(mode, ToolMode.AUTO))
