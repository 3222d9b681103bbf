"""`Asked` -> the body of Chat Completions, for a server of this dialect. What it has no word for is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from magister.types import (
    ChatRequest,
    Image,
    Message,
    Part,
    Refused,
    Role,
    Sampling,
    SystemPrompt,
    Text,
    Thinking,
    ToolCall,
    ToolMode,
    ToolResult,
)
from magister.wire.dialect import Asked
from magister.wire.media import url_of

_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "n": "n",
    "seed": "seed",
    "max_tokens": "max_completion_tokens",
    "stop": "stop",
    "logprobs": "logprobs",
    "top_logprobs": "top_logprobs",
    "ignore_end": "ignore_eos",
}
_LABELS = ("user", "safety_identifier", "prompt_cache_key")
_ORDER = {Thinking: 0, Text: 1, ToolCall: 2}


def write_request(asked: Asked) -> bytes:
    """The body. Raises `Refused` with the field."""
    chat = asked.chat
    if chat.system_prompt is not SystemPrompt.ADD:
        raise Refused("system_prompt", "this dialect cannot leave the model's own instruction out")
    if not chat.keep_thinking:
        raise Refused("keep_thinking", "this dialect cannot ask for it; leave the thoughts out of the messages")
    body: dict[str, Any] = {"model": chat.model, "messages": _messages(chat)}
    if asked.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": asked.usage_at_end}
    body |= sampling_body(chat.sampling, asked.given - {"thinking_tokens", "logit_bias"}, _SAMPLING)
    if "logit_bias" in asked.given:
        body["logit_bias"] = {str(token): bias for token, bias in chat.sampling.logit_bias.items()}
    return msgspec.json.encode(
        body | _thinking(asked) | tools_body(chat, "required") | format_body(chat) | _labels(asked)
    )


def sampling_body(sampling: Sampling, given: frozenset[str], names: Mapping[str, str]) -> dict[str, Any]:
    """What was set, under the dialect's names. Raises `Refused` for what it has no name for."""
    for name in sorted(given):
        if name not in names:
            raise Refused(f"sampling.{name}", "this dialect has no word for it")
    return {names[name]: getattr(sampling, name) for name in sorted(given)}


def _thinking(asked: Asked) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if asked.chat.effort is not None:
        found["reasoning_effort"] = asked.chat.effort
    reasoning: dict[str, Any] = {}
    if "thinking_tokens" in asked.given:
        if asked.chat.effort is not None:
            raise Refused("effort", "goes with no number of thinking tokens in this dialect")
        reasoning["max_tokens"] = asked.chat.sampling.thinking_tokens
    if not asked.show_thinking:
        reasoning["exclude"] = True
    return found | ({"reasoning": reasoning} if reasoning else {})


def tools_body(chat: ChatRequest, required: str) -> dict[str, Any]:
    """Tools and their choice; `required` is the dialect's word for it."""
    found: dict[str, Any] = {}
    if chat.tools:
        found["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in chat.tools
        ]
    choice = chat.tool_choice
    if choice.mode is ToolMode.NAMED:
        found["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice.mode is not ToolMode.AUTO:
        found["tool_choice"] = required if choice.mode is ToolMode.REQUIRED else "none"
    if not choice.parallel:
        found["parallel_tool_calls"] = False
    return found


def format_body(chat: ChatRequest) -> dict[str, Any]:
    """The answer's form."""
    wanted = chat.json_format
    if wanted is None:
        return {}
    if wanted.schema is None:
        return {"response_format": {"type": "json_object"}}
    schema = {"name": wanted.name, "schema": wanted.schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _labels(asked: Asked) -> dict[str, Any]:
    own = {name: asked.labels[name] for name in _LABELS if name in asked.labels}
    rest = {name: value for name, value in asked.labels.items() if name not in own}
    return own | ({"metadata": rest} if rest else {})


def _messages(chat: ChatRequest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for at, message in enumerate(chat.messages):
        field = f"messages[{at}]"
        if message.role is Role.TOOL:
            found += results_body(message, field)
        elif message.role is Role.ASSISTANT:
            found.append(_speech(message, field))
        else:
            content = [part_body(part, message.role, f"{field}.parts[{n}]") for n, part in enumerate(message.parts)]
            found.append({"role": message.role, "content": plain(content)})
    return found


def results_body(message: Message, field: str) -> list[dict[str, Any]]:
    """One message a result."""
    found = []
    for at, part in enumerate(message.parts):
        if not isinstance(part, ToolResult):
            raise Refused(f"{field}.parts[{at}]", "a message of role tool holds results only")
        if part.is_error:
            raise Refused(f"{field}.parts[{at}].is_error", "this dialect has no mark for a failed tool")
        found.append({"role": "tool", "tool_call_id": part.call_id, "content": part.content})
    return found


def _speech(message: Message, field: str) -> dict[str, Any]:
    """The thought in fields of its own, unless it is open, which only a chunk can say."""
    said: dict[str, Any] = {"role": "assistant", "content": message.text or None}
    for thought in check_speech(message, field):
        if not thought.closed:
            content = [
                part_body(part, Role.ASSISTANT, field) for part in message.parts if not isinstance(part, ToolCall)
            ]
            said["content"] = content
        elif thought.signature is not None:
            detail = {"type": "reasoning.text", "text": thought.text, "signature": thought.signature}
            said["reasoning_details"] = [detail]
        else:
            said |= {"reasoning": thought.text, "reasoning_content": thought.text}
    if message.tool_calls:
        said["tool_calls"] = [call_body(call) for call in message.tool_calls]
    return said


def check_speech(message: Message, field: str) -> list[Thinking]:
    """The thought, if there is one. Raises `Refused` for an assistant's message that is not in its normal form."""
    before = -1
    for at, part in enumerate(message.parts):
        place = _ORDER.get(type(part))
        if place is None:
            raise Refused(f"{field}.parts[{at}]", "an assistant's message holds a thought, a text and calls only")
        if place < before or (place == before and place < _ORDER[ToolCall]):
            raise Refused(f"{field}.parts[{at}]", "this dialect has one thought, then one text, then calls")
        before = place
    return [part for part in message.parts if isinstance(part, Thinking)]


def call_body(call: ToolCall) -> dict[str, Any]:
    """One call."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def part_body(part: Part, role: Role, field: str) -> dict[str, Any]:
    """One chunk of a content."""
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Thinking() if role in (Role.SYSTEM, Role.ASSISTANT):
            thinking = [{"type": "text", "text": part.text}]
            said: dict[str, Any] = {"type": "thinking", "thinking": thinking, "closed": part.closed}
            return said if part.signature is None else said | {"signature": part.signature}
        case Image() if role is Role.USER:
            return {"type": "image_url", "image_url": {"url": url_of(part, field)}}
    raise Refused(field, f"a message of role {role.value} cannot hold it in this dialect")


def plain(content: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A lone text as a string, which every server of these dialects takes."""
    if len(content) == 1 and content[0]["type"] == "text":
        text: str = content[0]["text"]
        return text
    return content
