"""`Asked` -> the body of Messages that asks for it.

Knows what Anthropic's words can say; what they cannot is refused by name, never left out.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec

from magister.types import (
    Effort,
    Image,
    JsonFormat,
    Message,
    Part,
    Refused,
    Role,
    Sampling,
    SystemPrompt,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
)
from magister.wire.anthropic.request import LEAST_BUDGET
from magister.wire.dialect import Asked
from magister.wire.media import media_type

_DEFAULT = Sampling()
_WORDS = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop": "stop_sequences",
}
_MODES = {ToolMode.AUTO: "auto", ToolMode.NONE: "none", ToolMode.REQUIRED: "any", ToolMode.NAMED: "tool"}
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})

_Json = dict[str, Any]


def write_request(asked: Asked) -> bytes:
    """The body. Raises `Refused`."""
    chat = asked.chat
    if chat.system_prompt is not SystemPrompt.ADD:
        raise Refused("system_prompt", "Anthropic has no word for leaving the model's own instruction out")
    if not chat.keep_thinking:
        raise Refused("keep_thinking", "Anthropic has no word for it")
    if not asked.usage_at_end:
        raise Refused("usage_at_end", "Anthropic always tells what a stream cost")
    if asked.echo:
        raise Refused("echo", "Anthropic's replies repeat nothing of the request")
    if not chat.model:
        raise Refused("model", "Anthropic asks for one")
    if not chat.messages:
        raise Refused("messages", "Anthropic takes no empty conversation")
    body: _Json = {"model": chat.model, **_sampling(chat.sampling, asked.given)}
    messages = _Writer().write(chat.messages)
    if messages[0]["role"] == "system":
        body["system"] = messages.pop(0)["content"]
        if not messages:
            raise Refused("messages", "Anthropic takes no conversation of a system prompt alone")
    body["messages"] = messages
    if asked.stream:
        body["stream"] = True
    body |= _thinking(chat.effort, chat.sampling, show=asked.show_thinking)
    config: _Json = {} if chat.effort in (None, Effort.NONE) else {"effort": chat.effort}
    if chat.json_format is not None:
        config["format"] = _format(chat.json_format)
    if config:
        body["output_config"] = config
    if chat.tools:
        body["tools"] = [_tool(tool) for tool in chat.tools]
    if chat.tool_choice != ToolChoice():
        body["tool_choice"] = _choice(chat.tool_choice)
    for name, label in asked.labels.items():
        if name not in ("user_id", "user_profile_id"):
            raise Refused(f"labels.{name}", "Anthropic's labels are user_id and user_profile_id")
        body |= {"metadata": {"user_id": label}} if name == "user_id" else {name: label}
    return msgspec.json.encode(body)


class _Writer:
    """Messages in, Anthropic's out."""

    def __init__(self) -> None:
        self._waiting: dict[str, str] = {}
        self._asked: set[str] = set()

    def write(self, messages: tuple[Message, ...]) -> list[_Json]:
        told = []
        for at, message in enumerate(messages):
            field = f"messages[{at}]"
            if not message.parts:
                raise Refused(f"{field}.parts", "Anthropic takes no empty message")
            blocks = [self._block(message.role, part, f"{field}.parts[{i}]") for i, part in enumerate(message.parts)]
            if message.role is Role.ASSISTANT:
                _check_normal(message.parts, f"{field}.parts", final=at == len(messages) - 1)
            role = "user" if message.role is Role.TOOL else message.role.value
            alone = len(blocks) == 1 and blocks[0]["type"] == "text"
            told.append({"role": role, "content": blocks[0]["text"] if alone else blocks})
        for field in self._waiting.values():
            raise Refused(field, "Anthropic asks for a result of every call")
        return told

    def _block(self, role: Role, part: Part, field: str) -> _Json:
        match role, part:
            case ((Role.SYSTEM | Role.USER | Role.ASSISTANT), Text()):
                if not part.text:
                    raise Refused(f"{field}.text", "Anthropic takes no empty text")
                return {"type": "text", "text": part.text}
            case Role.USER, Image():
                return {"type": "image", "source": _source(part, field)}
            case Role.ASSISTANT, Thinking():
                # A thought that Anthropic did not show is in its signature.
                if not part.text and not part.signature:
                    raise Refused(f"{field}.text", "an empty thought is nothing to Anthropic")
                return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
            case Role.ASSISTANT, ToolCall():
                if part.id in self._asked:
                    raise Refused(f"{field}.id", f"{part.id!r} is there twice")
                self._asked.add(part.id)
                self._waiting[part.id] = field
                return {"type": "tool_use", "id": part.id, "name": part.name, "input": _input(part, field)}
            case Role.TOOL, ToolResult():
                if self._waiting.pop(part.call_id, None) is None:
                    raise Refused(f"{field}.call_id", f"no call {part.call_id!r} waits for its result")
                failed = {"is_error": True} if part.is_error else {}
                return {"type": "tool_result", "tool_use_id": part.call_id, "content": part.content, **failed}
        raise Refused(field, f"a {role} message holds no {type(part).__name__} in Anthropic's words")


def _check_normal(parts: tuple[Part, ...], field: str, *, final: bool) -> None:
    """One thought, one text, then calls: read back, Anthropic's blocks become just that."""
    order = [(Thinking, Text, ToolCall).index(type(part)) for part in parts]
    if order != sorted(order) or order.count(0) > 1 or order.count(1) > 1:
        raise Refused(field, "must be at most one thought, at most one text, then calls")
    thought = parts[0]
    if isinstance(thought, Thinking):
        goes_on = final and len(parts) == 1 and not thought.signature
        if thought.closed is goes_on:
            told = "a thought that goes on is the last thing said, without a signature; any other is closed"
            raise Refused(f"{field}[0].closed", told)
        if thought.signature == "":
            raise Refused(f"{field}[0].signature", "an empty one is none")


def _source(image: Image, field: str) -> _Json:
    if not image.data:
        return {"type": "url", "url": image.url}
    kind = media_type(image.data, field)
    if kind not in _IMAGES:
        raise Refused(field, f"Anthropic reads PNG, JPEG, GIF and WebP, not {kind}")
    return {"type": "base64", "media_type": kind, "data": base64.b64encode(image.data).decode()}


def _input(call: ToolCall, field: str) -> _Json:
    try:
        said = json.loads(call.arguments)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Refused(f"{field}.arguments", "Anthropic takes a JSON object")
    return said


def _sampling(sampling: Sampling, given: frozenset[str]) -> _Json:
    """What the client set, or what differs from the default all the same."""
    if sampling.max_tokens is None:
        raise Refused("sampling.max_tokens", "Anthropic asks for a number")
    for name, most in (("temperature", 1), ("top_p", 1)):
        if getattr(sampling, name) > most:
            raise Refused(f"sampling.{name}", f"Anthropic takes at most {most}, got {getattr(sampling, name)}")
    said: _Json = {}
    for name in Sampling.__struct_fields__:
        value = getattr(sampling, name)
        if name == "thinking_tokens" or (name not in given and value == getattr(_DEFAULT, name)):
            continue
        if name not in _WORDS:
            raise Refused(f"sampling.{name}", "Anthropic has no word for it")
        if value == () or (name == "stop" and "" in value):
            raise Refused(f"sampling.{name}", f"Anthropic has no word for {value!r}")
        said[_WORDS[name]] = value
    return said


def _thinking(effort: Effort | None, sampling: Sampling, *, show: bool) -> _Json:
    budget, most = sampling.thinking_tokens, sampling.max_tokens
    hidden = {} if show else {"display": "omitted"}
    if effort is Effort.MINIMAL:
        raise Refused("effort", "Anthropic has no effort 'minimal'")
    if effort is Effort.NONE:
        if budget is not None or hidden:
            raise Refused("effort", "where nothing is thought, Anthropic caps nothing and hides nothing")
        return {"thinking": {"type": "disabled"}}
    if budget is not None:
        if not LEAST_BUDGET <= budget < (most or 0):
            told = f"Anthropic takes at least {LEAST_BUDGET} and less than max_tokens {most}, got {budget}"
            raise Refused("sampling.thinking_tokens", told)
        return {"thinking": {"type": "enabled", "budget_tokens": budget, **hidden}}
    return {"thinking": {"type": "adaptive", **hidden}} if hidden else {}


def _format(wanted: JsonFormat) -> _Json:
    if wanted.name != JsonFormat().name:
        raise Refused("json_format.name", "Anthropic's schemas have no name")
    if wanted.schema is None:
        raise Refused("json_format.schema", "Anthropic asks for one")
    return {"type": "json_schema", "schema": wanted.schema}


def _tool(tool: Tool) -> _Json:
    about = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **about, "input_schema": tool.parameters}


def _choice(choice: ToolChoice) -> _Json:
    if choice.mode is ToolMode.NONE and not choice.parallel:
        raise Refused("tool_choice.parallel", "Anthropic has no word for it where no tool is called")
    named = {} if choice.name is None else {"name": choice.name}
    single = {} if choice.parallel else {"disable_parallel_tool_use": True}
    return {"type": _MODES[choice.mode], **named, **single}
