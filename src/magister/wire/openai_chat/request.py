"""The body of Chat Completions -> `Asked`. Knows what of a request this server can honour."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from magister.types import ChatRequest, Effort, JsonFormat, Sampling, Tool, ToolChoice, ToolMode
from magister.wire.dialect import Asked
from magister.wire.fault import BadRequest
from magister.wire.openai_chat import body as openai
from magister.wire.openai_chat.messages import messages_of
from magister.wire.reading import decode, within

_CANNOT = {
    "audio": "this model neither hears nor speaks",
    "prediction": "predicted outputs are not used here",
    "web_search_options": "this server searches nothing; declare a tool and run it yourself",
    "functions": "functions are called tools now: use tools",
    "function_call": "functions are called tools now: use tool_choice",
    "chat_template_kwargs": "there is one chat template; say reasoning_effort",
    "moderation": "nothing is moderated here",
    "prompt_cache_options": "beginnings that repeat are cached without being told; leave it out",
}
_TIERS = (None, "auto", "default")
_MOST_TOOLS, _MOST_STOPS = 128, 16
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def read_request(body: bytes, model: str = "", stream: bool = False) -> Asked:
    """What a body asks for. Raises `BadRequest`."""
    said = decode(body, openai.Body)
    _refuse(said)
    tools, choice = _tools(said)
    sampling = sampling_of(said)
    effort, show = _reasoning(said, sampling)
    streams = bool(stream or said.stream)
    usage_at_end = ends_with_usage(said.stream_options, streams)
    messages = messages_of(said.messages)
    _check_continued(said)
    chat = ChatRequest(
        messages=messages,
        model=said.model or model,
        tools=tools,
        tool_choice=choice,
        json_format=format_of(said.response_format),
        sampling=Sampling(**sampling),
        effort=effort,
    )
    return Asked(
        chat=chat,
        given=frozenset(sampling),
        stream=streams,
        usage_at_end=usage_at_end,
        show_thinking=show,
        labels=_labels(said),
    )


def _refuse(said: openai.Body) -> None:
    for name, why in _CANNOT.items():
        if getattr(said, name):
            raise BadRequest(name, why)
    if said.store:
        raise BadRequest("store", "this server keeps no completions")
    if said.service_tier not in _TIERS:
        raise BadRequest("service_tier", "there is one tier here: auto, or default")
    if said.verbosity not in (None, "medium"):
        raise BadRequest("verbosity", "this model has no such setting; ask for it in the prompt")
    if said.modalities not in (None, [], ["text"]):
        raise BadRequest("modalities", 'this model writes text: ["text"]')
    if said.prompt_cache_retention not in (None, "in_memory", "in-memory"):
        raise BadRequest("prompt_cache_retention", "prompts are kept in memory, as long as there is room: in_memory")


def ends_with_usage(options: openai.StreamOptions | None, streams: bool) -> bool:
    """Whether the cost is told at the end; whole replies always tell it. Raises `BadRequest`."""
    if options is None:
        return not streams
    if not streams:
        raise BadRequest("stream_options", "goes with stream: true")
    if options.include_obfuscation:
        raise BadRequest("stream_options.include_obfuscation", "frames are not padded here")
    return bool(options.include_usage)


def _check_continued(said: openai.Body) -> None:
    """vLLM's two words for what happens here by itself: a final message of the assistant's is gone on with."""
    continued = said.messages[-1].role == "assistant"
    if said.continue_final_message is not None and said.continue_final_message is not continued:
        told = "false, but a last message of the assistant's is always gone on with"
        raise BadRequest("continue_final_message", told if continued else "goes with a last message of the assistant's")
    if said.add_generation_prompt is not None and said.add_generation_prompt is continued:
        told = "must be false where the last message is the assistant's, which is gone on with, and true elsewhere"
        raise BadRequest("add_generation_prompt", told)


def stops_of(said: str | list[str] | None) -> tuple[str, ...] | None:
    """One string or several; none is nothing asked for. Raises `BadRequest`."""
    stops = [said] if isinstance(said, str) else list(said or ())
    if len(stops) > _MOST_STOPS:
        raise BadRequest("stop", f"has {len(stops)} strings, at most {_MOST_STOPS} are looked for")
    for at, stop in enumerate(stops):
        if not stop:
            raise BadRequest(f"stop[{at}]" if isinstance(said, list) else "stop", "must not be empty")
    return tuple(stops) or None


def sampling_of(said: Any) -> dict[str, Any]:
    """The fields of `Sampling` that the client set; of plain completions too. Raises `BadRequest`."""
    within("temperature", said.temperature, 0, 2)
    within("top_p", said.top_p, 0, 1)
    within("top_k", said.top_k, -1, 1 << 20)
    within("min_p", said.min_p, 0, 1)
    within("presence_penalty", said.presence_penalty, -2, 2)
    within("frequency_penalty", said.frequency_penalty, -2, 2)
    within("n", said.n, 1, 128)
    within("seed", said.seed, -(1 << 63), (1 << 63) - 1)
    found = {
        "temperature": said.temperature,
        "top_p": said.top_p,
        "top_k": None if said.top_k is None else max(0, said.top_k),
        "min_p": said.min_p,
        "presence_penalty": said.presence_penalty,
        "frequency_penalty": said.frequency_penalty,
        "n": said.n,
        "seed": None if said.seed is None else said.seed & ((1 << 63) - 1),
        "stop": stops_of(said.stop),
        "max_tokens": _most(said),
        "logit_bias": _bias(said.logit_bias),
        "ignore_end": said.ignore_eos,
    }
    # Plain completions have a number there.
    if isinstance(said, openai.Body):
        found |= logprobs_of(said.logprobs, said.top_logprobs)
    return {name: value for name, value in found.items() if value is not None}


def logprobs_of(logprobs: bool | None, top_logprobs: int | None) -> dict[str, Any]:
    """Both, as they were set. Raises `BadRequest` where they contradict each other."""
    within("top_logprobs", top_logprobs, 0, 20)
    if top_logprobs and not logprobs:
        raise BadRequest("top_logprobs", "goes with logprobs: true")
    return {"logprobs": logprobs, "top_logprobs": top_logprobs}


def _most(said: Any) -> int | None:
    """Tokens of the whole reply, its thought included."""
    newer: int | None = getattr(said, "max_completion_tokens", None)
    older: int | None = said.max_tokens
    if newer is not None and older is not None and newer != older:
        raise BadRequest("max_tokens", f"says {older}, max_completion_tokens {newer}; send one of them")
    within("max_completion_tokens", newer, 1, 1 << 31)
    # Plain completions may be asked for the prompt's own probabilities and nothing more.
    scores = getattr(said, "echo", None) and said.logprobs is not None
    within("max_tokens", older, 0 if scores else 1, 1 << 31)
    return older if newer is None else newer


def _bias(given: dict[str, float] | None) -> dict[int, float] | None:
    if not given:
        return None
    found: dict[int, float] = {}
    for name, value in given.items():
        if not (name.isascii() and name.isdigit() and len(name) < 10):
            raise BadRequest(f"logit_bias.{name}", "must be a token's id")
        within(f"logit_bias.{name}", value, -100, 100)
        found[int(name)] = value
    return found


def _reasoning(said: openai.Body, sampling: dict[str, Any]) -> tuple[Effort | None, bool]:
    """The effort, and whether thoughts are shown; OpenRouter's number of tokens goes into `sampling`."""
    asked = said.reasoning or openai.Reasoning()
    words = [word for word in (said.reasoning_effort, asked.effort) if word is not None]
    if len(set(words)) > 1:
        raise BadRequest("reasoning.effort", f"says {words[1]}, reasoning_effort {words[0]}; send one of them")
    if asked.max_tokens is not None:
        within("reasoning.max_tokens", asked.max_tokens, 0, 1 << 31)
        if words:
            told = f"is a number of tokens beside an effort of {words[0]}; send one of them"
            raise BadRequest("reasoning.max_tokens", told)
        sampling["thinking_tokens"] = asked.max_tokens
    effort = Effort(words[0]) if words else None
    if asked.enabled is not None:
        thinks = effort is not Effort.NONE and asked.max_tokens != 0
        if asked.enabled is False and (asked.max_tokens or (words and thinks)):
            raise BadRequest("reasoning.enabled", "is false, but an effort or tokens to think with are asked for")
        if asked.enabled and not thinks:
            raise BadRequest("reasoning.enabled", "is true, but no thinking is asked for")
        effort = effort if asked.enabled or asked.max_tokens is not None else Effort.NONE
    hidden = "reasoning.exclude" if asked.exclude else "include_reasoning" if said.include_reasoning is False else ""
    if hidden and said.logprobs:
        raise BadRequest(hidden, "logprobs are of all tokens, so they would show the thought")
    return effort, not hidden


def _tools(said: openai.Body) -> tuple[tuple[Tool, ...], ToolChoice]:
    given = said.tools or []
    tools = tools_of([_function(tool, f"tools[{at}]") for at, tool in enumerate(given)])
    parallel = said.parallel_tool_calls is not False
    choice = said.tool_choice
    if choice is None:
        return tools, ToolChoice(parallel=parallel)
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            raise BadRequest("tool_choice", f"must be none, auto, required or an object, got {choice!r}")
        if choice == "required" and not tools:
            raise BadRequest("tool_choice", "required needs at least one tool in tools")
        return tools, ToolChoice(ToolMode(choice), parallel=parallel)
    if choice.type == "function" and choice.function is not None:
        check_known([choice.function.name], tools, "tool_choice.function.name")
        return tools, ToolChoice(ToolMode.NAMED, choice.function.name, parallel=parallel)
    if choice.type == "allowed_tools" and choice.allowed_tools is not None:
        return _allowed(choice.allowed_tools, tools, parallel)
    if choice.type in ("function", "allowed_tools"):
        raise BadRequest(f"tool_choice.{choice.type}", "is required")
    raise BadRequest("tool_choice.type", f"{choice.type!r} is none of function and allowed_tools")


def _function(tool: openai.Tool, field: str) -> openai.Function:
    if tool.type != "function":
        raise BadRequest(f"{field}.type", f"{tool.type!r}: this server offers functions, with their parameters")
    if tool.function is None:
        raise BadRequest(f"{field}.function", "is required")
    return tool.function


def tools_of(functions: Sequence[openai.Function]) -> tuple[Tool, ...]:
    """What may be called. Their `strict` changes nothing: arguments always follow the schema. Raises `BadRequest`."""
    if len(functions) > _MOST_TOOLS:
        raise BadRequest("tools", f"there are {len(functions)}, at most {_MOST_TOOLS} are taken")
    tools: dict[str, Tool] = {}
    for at, one in enumerate(functions):
        field = f"tools[{at}].function.name"
        if not _NAME.fullmatch(one.name):
            raise BadRequest(field, f"{one.name!r} is not made of 1 to 64 of a-z, A-Z, 0-9, _ and -")
        if one.name in tools:
            raise BadRequest(field, f"{one.name!r} is there twice")
        parameters = {"type": "object", "properties": {}} if one.parameters is None else one.parameters
        tools[one.name] = Tool(one.name, parameters, one.description or "")
    return tuple(tools.values())


def _allowed(said: openai.AllowedTools, tools: tuple[Tool, ...], parallel: bool) -> tuple[tuple[Tool, ...], ToolChoice]:
    """Only these are offered."""
    names = []
    for at, one in enumerate(said.tools):
        function = one.get("function")
        name = function.get("name") if isinstance(function, dict) else one.get("name")
        if not isinstance(name, str):
            raise BadRequest(f"tool_choice.allowed_tools.tools[{at}].function.name", "is required")
        check_known([name], tools, f"tool_choice.allowed_tools.tools[{at}].function.name")
        names.append(name)
    if said.mode == "required" and not names:
        raise BadRequest("tool_choice.allowed_tools.tools", "required needs at least one tool")
    mode = ToolMode.REQUIRED if said.mode == "required" else ToolMode.AUTO
    return tuple(tool for tool in tools if tool.name in names), ToolChoice(mode, parallel=parallel)


def check_known(names: Iterable[str], tools: tuple[Tool, ...], field: str) -> None:
    """Raises `BadRequest` for the name of a tool that is not declared."""
    for name in names:
        if all(tool.name != name for tool in tools):
            raise BadRequest(field, f"no tool {name!r} is declared")


def format_of(said: openai.Format | None) -> JsonFormat | None:
    """The answer's form. Its `strict` changes nothing: answers always follow the schema. Raises `BadRequest`."""
    if said is None or said.type == "text":
        return None
    if said.type == "json_object":
        return JsonFormat()
    if said.json_schema is None or said.json_schema.schema is None:
        raise BadRequest("response_format.json_schema.schema", "is required")
    schema, description = said.json_schema.schema, said.json_schema.description
    if description and "description" not in schema:
        schema = {**schema, "description": description}
    return JsonFormat(schema, said.json_schema.name)


def _labels(said: openai.Body) -> dict[str, str]:
    given = {"user": said.user, "safety_identifier": said.safety_identifier, "prompt_cache_key": said.prompt_cache_key}
    return (said.metadata or {}) | {name: value for name, value in given.items() if value is not None}
