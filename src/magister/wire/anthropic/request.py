"""The bodies of Messages and count_tokens -> `Asked`.

Knows what of a request this server can honour; the messages are read in `wire.anthropic.contents`.
"""

from __future__ import annotations

from typing import Any

from magister.types import ChatRequest, Effort, JsonFormat, Sampling, Tool, ToolChoice, ToolMode
from magister.wire.anthropic import body as anthropic
from magister.wire.anthropic.contents import messages_of
from magister.wire.dialect import Asked
from magister.wire.fault import BadRequest
from magister.wire.nested import convert_at, refuse
from magister.wire.reading import decode, within

LEAST_BUDGET = 1024
"""Anthropic takes no smaller `thinking.budget_tokens`."""

_CANNOT = {
    "container": "there are no containers here",
    "inference_geo": "this server is where it is",
}
_CANNOT_ANYWHERE = {
    "mcp_servers": "this server calls no other; declare tools and run them yourself",
    "workspace_id": "there are no workspaces here",
    "compaction": "conversations are not compacted here; send the messages that shall count",
    "fallbacks": "a model answers for itself here, or not at all",
    "fallback_credit_token": "there are none here",
    "thread": "messages are not kept here; send all of them",
    "billing_policy": "nobody is billed here",
}
_NO_EDITS = "contexts are not edited here; send the messages that shall count"
_CANNOT_TOOL = {
    "defer_loading": "tools are not searched here; every one is shown",
    "input_examples": "put examples into the description",
}
_MODES = {"auto": ToolMode.AUTO, "any": ToolMode.REQUIRED, "tool": ToolMode.NAMED, "none": ToolMode.NONE}


def read_request(body: bytes, model: str = "", stream: bool = False, *, signing_key: bytes = b"") -> Asked:
    """What a body of Messages asks for. `signing_key` unseals thoughts replayed without text. Raises `BadRequest`."""
    said = decode(body, anthropic.Body)
    refuse(said, "", _CANNOT)
    if said.diagnostics and said.diagnostics.get("previous_message_id"):
        raise BadRequest("diagnostics.previous_message_id", "messages are not kept here to compare with")
    sampling = _sampling(said)
    asked = _asked(said, model, sampling, signing_key)
    user_id = said.metadata.user_id if said.metadata else None
    return Asked(
        chat=asked.chat,
        given=asked.given,
        stream=stream if said.stream is None else said.stream,
        show_thinking=asked.show_thinking,
        labels=asked.labels if user_id is None else {"user_id": user_id, **asked.labels},
    )


def read_count_request(body: bytes, model: str = "", *, signing_key: bytes = b"") -> Asked:
    """What count_tokens is to count. Raises `BadRequest`."""
    return _asked(decode(body, anthropic.CountBody), model, {}, signing_key)


def _asked(said: anthropic.CountBody, model: str, sampling: dict[str, Any], signing_key: bytes) -> Asked:
    refuse(said, "", _CANNOT_ANYWHERE)
    _check_edits(said.context_management)
    if said.speed == "fast":
        raise BadRequest("speed", "there is one speed here, standard")
    if not (said.model or model):
        raise BadRequest("model", "is required")
    config = said.output_config or anthropic.OutputConfig()
    if config.format is not None and said.output_format is not None:
        raise BadRequest("output_format", "is said twice, also as output_config.format")
    form = config.format or said.output_format
    effort = None if config.effort is None else Effort(config.effort)
    show = True
    if said.thinking is not None:
        show = said.thinking.display != "omitted"
        budget, off = _thinking(said.thinking, sampling.get("max_tokens"))
        if budget is not None:
            sampling["thinking_tokens"] = budget
        effort = Effort.NONE if off else effort
    tools = tuple(_tool(tool, f"tools[{at}]") for at, tool in enumerate(said.tools or ()))
    chat = ChatRequest(
        messages=messages_of(said, signing_key),
        model=said.model or model,
        tools=tools,
        tool_choice=_choice(said.tool_choice, tools),
        json_format=None if form is None else JsonFormat(form.schema),
        sampling=Sampling(**sampling),
        effort=effort,
    )
    labels = {} if said.user_profile_id is None else {"user_profile_id": said.user_profile_id}
    return Asked(chat=chat, given=frozenset(sampling), show_thinking=show, labels=labels)


def _check_edits(said: anthropic.ContextManagement | None) -> None:
    """All thoughts are kept anyway, unless the server was started to drop them."""
    for at, edit in enumerate((said and said.edits) or ()):
        keeps_all = edit.get("keep") in ("all", {"type": "all"})
        if not (edit.get("type") == "clear_thinking_20251015" and keeps_all):
            raise BadRequest(f"context_management.edits[{at}]", _NO_EDITS)


def _sampling(said: anthropic.Body) -> dict[str, Any]:
    """The fields of `Sampling` that the client set."""
    if said.max_tokens is None:
        raise BadRequest("max_tokens", "is required")
    within("max_tokens", said.max_tokens, 1, 1 << 31)
    within("temperature", said.temperature, 0, 1)
    within("top_p", said.top_p, 0, 1)
    within("top_k", said.top_k, 0, 1 << 20)
    for at, stop in enumerate(said.stop_sequences or ()):
        if not stop:
            raise BadRequest(f"stop_sequences[{at}]", "must not be empty")
    found = {
        "max_tokens": said.max_tokens,
        "temperature": said.temperature,
        "top_p": said.top_p,
        "top_k": said.top_k,
        "stop": tuple(said.stop_sequences or ()) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _thinking(said: anthropic.Thinking, max_tokens: int | None) -> tuple[int | None, bool]:
    """A number of tokens, and whether thinking is off.

    "between_tools" is off, too: what it shows between calls are not thoughts but reports, which this model writes as
    text.
    """
    if said.type != "enabled":
        if said.budget_tokens is not None:
            raise BadRequest("thinking.budget_tokens", f"goes with the type enabled, not {said.type}")
        if said.display is not None and said.type != "adaptive":
            raise BadRequest("thinking.display", f"goes with the types enabled and adaptive, not {said.type}")
        return None, said.type != "adaptive"
    if said.budget_tokens is None:
        raise BadRequest("thinking.budget_tokens", "is required")
    if said.budget_tokens < LEAST_BUDGET:
        told = f"must be at least {LEAST_BUDGET}, got {said.budget_tokens}; output_config.effort can ask for less"
        raise BadRequest("thinking.budget_tokens", told)
    within("thinking.budget_tokens", said.budget_tokens, LEAST_BUDGET, 1 << 31)
    if max_tokens is not None and said.budget_tokens >= max_tokens:
        raise BadRequest("thinking.budget_tokens", f"must be below max_tokens {max_tokens}, got {said.budget_tokens}")
    return said.budget_tokens, False


def _tool(tool: dict[str, Any], field: str) -> Tool:
    kind = tool.get("type")
    if kind not in (None, "custom"):
        why = "this server runs no tools of its own; declare it with an input_schema and run it yourself"
        raise BadRequest(f"{field}.type", f"{kind!r}: {why}")
    said = convert_at(tool, anthropic.Tool, field)
    refuse(said, field, _CANNOT_TOOL)
    if said.allowed_callers is not None and said.allowed_callers != ["direct"]:
        raise BadRequest(f"{field}.allowed_callers", "the model itself is the only caller here: ['direct']")
    return Tool(said.name, said.input_schema, said.description or "")


def _choice(said: anthropic.ToolChoice | None, tools: tuple[Tool, ...]) -> ToolChoice:
    if said is None:
        return ToolChoice()
    mode = _MODES[said.type]
    if (said.name is not None) != (mode is ToolMode.NAMED):
        told = "is required with the type tool" if said.name is None else f"goes with the type tool, not {said.type}"
        raise BadRequest("tool_choice.name", told)
    if mode is ToolMode.REQUIRED and not tools:
        raise BadRequest("tool_choice.type", "any needs at least one tool in tools")
    if said.name is not None and all(tool.name != said.name for tool in tools):
        raise BadRequest("tool_choice.name", f"no tool {said.name!r} is declared")
    if mode is ToolMode.NONE and said.disable_parallel_tool_use:
        raise BadRequest("tool_choice.disable_parallel_tool_use", "does not go with the type none")
    return ToolChoice(mode, said.name, parallel=not said.disable_parallel_tool_use)
