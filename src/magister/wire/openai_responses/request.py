"""The body of Responses -> `Asked`.

Knows what of a request this server can honour; the input is read in `wire.openai_responses.items`.
"""

from __future__ import annotations

from typing import Any

from magister.types import ChatRequest, Effort, JsonFormat, Sampling, Tool, ToolChoice, ToolMode
from magister.wire.dialect import Asked
from magister.wire.fault import BadRequest
from magister.wire.nested import convert_at, kind_of, refuse
from magister.wire.openai_responses import body as openai
from magister.wire.openai_responses.items import messages_of
from magister.wire.reading import decode, within

LOGPROBS = "message.output_text.logprobs"
SEALED = "reasoning.encrypted_content"
"""The two words of `include` that have an effect here."""
LABELS = ("user", "safety_identifier", "prompt_cache_key")
"""Labels that have fields of their own; all others are `metadata`."""

_KEEPS_NOTHING = "this server keeps no responses; send the items again"
_CANNOT = {
    "store": _KEEPS_NOTHING,
    "previous_response_id": _KEEPS_NOTHING,
    "conversation": _KEEPS_NOTHING,
    "background": "this server keeps no responses; wait for this one, or stream it",
    "prompt": "there are no stored prompts here; send instructions and input",
    "context_management": "contexts are not edited here; send the items that shall count",
    "moderation": "there is no such filter here",
    "access_programs": "there are none here",
    "image": "images are read at their own size, within the model's limit",
}
_CANNOT_CACHE = {
    "ttl": "how long a prefix stays depends on what else is asked",
    "prewarm": "a repeated beginning is cached anyway",
    "comparison_response_id": _KEEPS_NOTHING,
}
_ECHOED = (
    "instructions",
    "metadata",
    "reasoning",
    "text",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "max_tool_calls",
    "max_output_tokens",
    "top_logprobs",
    "include",
    "user",
    "safety_identifier",
    "prompt_cache_key",
)
_CHOICES = {"auto": ToolMode.AUTO, "none": ToolMode.NONE, "required": ToolMode.REQUIRED}


def read_request(body: bytes, model: str = "", stream: bool = False, *, signing_key: bytes = b"") -> Asked:
    """What a body asks for. `signing_key` unseals thoughts replayed without text. Raises `BadRequest`."""
    said = decode(body, openai.Body)
    _refuse(said)
    if not (said.model or model):
        raise BadRequest("model", "is required")
    sampling = _sampling(said)
    reasoning = convert_at(said.reasoning or {}, openai.ReasoningConfig, "reasoning")
    _check_reasoning(reasoning)
    tools = tuple(_tool(tool, f"tools[{at}]") for at, tool in enumerate(said.tools or ()))
    tools, choice = _choice(said, tools)
    chat = ChatRequest(
        messages=messages_of(said, signing_key),
        model=said.model or model,
        tools=tools,
        tool_choice=choice,
        json_format=_json_format(convert_at(said.text or {}, openai.TextConfig, "text")),
        sampling=Sampling(**sampling),
        keep_thinking=reasoning.context != "current_turn",
        effort=None if reasoning.effort is None else Effort(reasoning.effort),
    )
    return Asked(
        chat=chat,
        given=frozenset(sampling),
        stream=stream if said.stream is None else said.stream,
        labels=_labels(said),
        echo={name: value for name in _ECHOED if (value := getattr(said, name)) is not None},
    )


def _refuse(said: openai.Body) -> None:
    refuse(said, "", _CANNOT)
    if said.truncation == "auto":
        raise BadRequest("truncation", "nothing is left out of a prompt unasked; send less, or say disabled")
    if said.service_tier not in (None, "auto", "default"):
        raise BadRequest("service_tier", f"there is one tier here, not {said.service_tier!r}")
    if said.stream_options is not None and said.stream_options.include_obfuscation:
        raise BadRequest("stream_options.include_obfuscation", "streams are not padded here")
    if said.prompt_cache_retention == "24h":
        raise BadRequest("prompt_cache_retention", "prefixes are kept in memory for as long as there is room")
    if said.prompt_cache_options is not None:
        refuse(said.prompt_cache_options, "prompt_cache_options", _CANNOT_CACHE)
        if said.prompt_cache_options.mode == "explicit":
            raise BadRequest("prompt_cache_options.mode", "every prefix is cached here: implicit")
    for at, name in enumerate(said.include or ()):
        if name not in (LOGPROBS, SEALED):
            raise BadRequest(f"include[{at}]", f"{LOGPROBS} and {SEALED} are there to include, got {name!r}")


def _sampling(said: openai.Body) -> dict[str, Any]:
    """The fields of `Sampling` that the client set."""
    within("temperature", said.temperature, 0, 2)
    within("top_p", said.top_p, 0, 1)
    within("top_logprobs", said.top_logprobs, 0, 20)
    within("max_output_tokens", said.max_output_tokens, 1, 1 << 31)
    logprobs = LOGPROBS in (said.include or ())
    if said.top_logprobs and not logprobs:
        raise BadRequest("top_logprobs", f"needs {LOGPROBS} in include")
    found = {
        "temperature": said.temperature,
        "top_p": said.top_p,
        "max_tokens": said.max_output_tokens,
        "logprobs": logprobs or None,
        "top_logprobs": said.top_logprobs,
    }
    return {name: value for name, value in found.items() if value is not None}


def _check_reasoning(said: openai.ReasoningConfig) -> None:
    for name in ("summary", "generate_summary"):
        if getattr(said, name) == "concise":
            raise BadRequest(
                f"reasoning.{name}", "nothing is shortened here; auto and detailed show the thought itself"
            )
    if said.mode not in (None, "standard"):
        raise BadRequest("reasoning.mode", f"there is one mode here, standard, not {said.mode!r}")


def _json_format(said: openai.TextConfig) -> JsonFormat | None:
    if said.verbosity not in (None, "medium"):
        raise BadRequest("text.verbosity", "ask for it in the instructions; only medium, the model's own, is there")
    form, at = said.format or openai.Format(type="text"), "text.format"
    if form.type != "json_schema":
        unused = dict.fromkeys(("name", "schema", "description"), f"goes with the type json_schema, not {form.type}")
        refuse(form, at, unused)
        return JsonFormat() if form.type == "json_object" else None
    if form.description:
        raise BadRequest(f"{at}.description", "put it into the schema or the instructions")
    if form.name is None or form.schema is None:
        raise BadRequest(f"{at}.{'name' if form.name is None else 'schema'}", "is required")
    return JsonFormat(form.schema, form.name)


def _tool(tool: dict[str, Any], field: str) -> Tool:
    kind = kind_of(tool, field)
    if kind != "function":
        told = f"{kind!r}: this server runs no tools of its own; declare a function and run it yourself"
        raise BadRequest(f"{field}.type", told)
    said = convert_at(tool, openai.Tool, field)
    if said.asynchronous:
        raise BadRequest(f"{field}.async", "the model waits for what its calls give back")
    if said.defer_loading:
        raise BadRequest(f"{field}.defer_loading", "tools are not searched here; every one is shown")
    if said.output_schema:
        raise BadRequest(f"{field}.output_schema", "outputs are not checked against it; describe it in the description")
    if said.allowed_callers is not None and said.allowed_callers != ["direct"]:
        raise BadRequest(f"{field}.allowed_callers", "the model itself is the only caller here: ['direct']")
    return Tool(said.name, said.parameters or {"type": "object", "properties": {}}, said.description or "")


def _choice(said: openai.Body, tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools that may be called, and how."""
    parallel = said.parallel_tool_calls is not False
    choice = "auto" if said.tool_choice is None else said.tool_choice
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise BadRequest("tool_choice", f"must be one of {', '.join(_CHOICES)} or an object, got {choice!r}")
        if choice == "required" and not tools:
            raise BadRequest("tool_choice", "required needs at least one tool in tools")
        return tools, ToolChoice(_CHOICES[choice], parallel=parallel)
    match kind_of(choice, "tool_choice"):
        case "function":
            named = convert_at(choice, openai.NamedChoice, "tool_choice")
            _check_declared(named.name, tools, "tool_choice.name")
            return tools, ToolChoice(ToolMode.NAMED, named.name, parallel)
        case "allowed_tools":
            return _allowed(convert_at(choice, openai.AllowedChoice, "tool_choice"), tools, parallel)
        case kind:
            raise BadRequest("tool_choice.type", f"must be function or allowed_tools, got {kind!r}")


def _allowed(
    said: openai.AllowedChoice, tools: tuple[Tool, ...], parallel: bool
) -> tuple[tuple[Tool, ...], ToolChoice]:
    """Of the tools the model sees those that it may call."""
    names = []
    for at, tool in enumerate(said.tools):
        field = f"tool_choice.tools[{at}]"
        if kind_of(tool, field) != "function":
            raise BadRequest(f"{field}.type", f"must be function, got {tool['type']!r}")
        names.append(convert_at(tool, openai.NamedChoice, field).name)
        _check_declared(names[-1], tools, f"{field}.name")
    if not names:
        raise BadRequest("tool_choice.tools", "must not be empty")
    mode = ToolMode.REQUIRED if said.mode == "required" else ToolMode.AUTO
    return tuple(tool for tool in tools if tool.name in names), ToolChoice(mode, parallel=parallel)


def _check_declared(name: str, tools: tuple[Tool, ...], field: str) -> None:
    if all(tool.name != name for tool in tools):
        raise BadRequest(field, f"no function {name!r} is declared")


def _labels(said: openai.Body) -> dict[str, str]:
    metadata = said.metadata or {}
    if len(metadata) > 16:
        raise BadRequest("metadata", f"holds at most 16 pairs, got {len(metadata)}")
    metadata = (said.client_metadata or {}) | metadata
    named = {name: getattr(said, name) for name in LABELS}
    return {name: label for name, label in named.items() if label is not None} | metadata
