"""The body of La Plateforme's chat -> `Asked`. Knows what of a request this server can honour."""

from __future__ import annotations

from typing import Any

import msgspec

from magister.types import ChatRequest, Effort, Sampling, SystemPrompt, Tool, ToolChoice, ToolMode
from magister.wire.dialect import Asked
from magister.wire.fault import BadRequest
from magister.wire.mistral import body as mistral
from magister.wire.mistral.messages import messages_of
from magister.wire.openai_chat.body import Function
from magister.wire.openai_chat.request import check_known, format_of, logprobs_of, stops_of, tools_of
from magister.wire.reading import decode, within

_CANNOT = {
    "guardrails": "nothing is moderated here",
    "prediction": "predicted outputs are not used here",
    "safe_prompt": "say it in a system message",
    "min_tokens": "this model ends where it ends",
    "prompt_logprobs": "a prompt's tokens have no probabilities here",
    "top_prompt_logprobs": "a prompt's tokens have no probabilities here",
}
_MODES = {
    "auto": ToolMode.AUTO,
    "none": ToolMode.NONE,
    "any": ToolMode.REQUIRED,
    "required": ToolMode.REQUIRED,
}


def read_request(body: bytes, model: str = "", stream: bool = False) -> Asked:
    """What a body asks for. Raises `BadRequest`."""
    said = decode(body, mistral.Body)
    _refuse(said)
    sampling = _sampling(said)
    tools = tools_of([_function(tool, f"tools[{at}]") for at, tool in enumerate(said.tools or ())])
    chat = ChatRequest(
        messages=messages_of(said.messages),
        model=said.model or model,
        tools=tools,
        tool_choice=_choice(said, tools),
        json_format=format_of(said.response_format),
        sampling=Sampling(**sampling),
        system_prompt=SystemPrompt.REPLACE if said.prompt_mode is None else SystemPrompt.ADD,
        effort=None if said.reasoning_effort is None else Effort(said.reasoning_effort),
    )
    return Asked(chat=chat, given=frozenset(sampling), stream=bool(stream or said.stream), labels=_labels(said))


def _refuse(said: mistral.Body) -> None:
    for name, why in _CANNOT.items():
        if getattr(said, name):
            raise BadRequest(name, why)
    if said.repetition_penalty not in (None, 1):
        raise BadRequest("repetition_penalty", "use presence_penalty and frequency_penalty; 1 is none")
    if said.service_tier not in (None, "auto", "standard_only"):
        raise BadRequest("service_tier", "there is one tier here: auto, or standard_only")


def _sampling(said: mistral.Body) -> dict[str, Any]:
    within("temperature", said.temperature, 0, 1.5)
    within("top_p", said.top_p, 0, 1)
    within("top_k", said.top_k, 0, 1 << 20)
    within("presence_penalty", said.presence_penalty, -2, 2)
    within("frequency_penalty", said.frequency_penalty, -2, 2)
    within("n", said.n, 1, 128)
    within("random_seed", said.random_seed, 0, (1 << 63) - 1)
    within("max_tokens", said.max_tokens, 1, 1 << 31)
    found = {
        "temperature": said.temperature,
        "top_p": said.top_p,
        "top_k": said.top_k,
        "presence_penalty": said.presence_penalty,
        "frequency_penalty": said.frequency_penalty,
        "n": said.n,
        "seed": said.random_seed,
        "max_tokens": said.max_tokens,
        "stop": stops_of(said.stop),
        **logprobs_of(said.logprobs, said.top_logprobs),
    }
    return {name: value for name, value in found.items() if value is not None}


def _function(tool: mistral.Tool, field: str) -> Function:
    if tool.type != "function":
        raise BadRequest(f"{field}.type", f"{tool.type!r}: this server offers functions, with their parameters")
    if tool.function is None:
        raise BadRequest(f"{field}.function", "is required")
    return tool.function


def _choice(said: mistral.Body, tools: tuple[Tool, ...]) -> ToolChoice:
    parallel = said.parallel_tool_calls is not False
    choice = said.tool_choice
    if choice is None:
        return ToolChoice(parallel=parallel)
    if isinstance(choice, str):
        if choice not in _MODES:
            raise BadRequest("tool_choice", f"must be one of {', '.join(_MODES)} or an object, got {choice!r}")
        if _MODES[choice] is ToolMode.REQUIRED and not tools:
            raise BadRequest("tool_choice", f"{choice} needs at least one tool in tools")
        return ToolChoice(_MODES[choice], parallel=parallel)
    if choice.type != "function":
        raise BadRequest("tool_choice.type", f"{choice.type!r}: only functions are called here")
    check_known([choice.function.name], tools, "tool_choice.function.name")
    return ToolChoice(ToolMode.NAMED, choice.function.name, parallel=parallel)


def _labels(said: mistral.Body) -> dict[str, str]:
    labels = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in (said.metadata or {}).items()
    }
    return labels if said.prompt_cache_key is None else labels | {"prompt_cache_key": said.prompt_cache_key}
