"""`Asked` -> the body of a call that asks for it, without its token.

Puter's words are few; whatever they cannot say is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from magister.types import (
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
    ToolResult,
)
from magister.wire.dialect import Asked
from magister.wire.media import url_of
from magister.wire.puter.answer import ascii_json
from magister.wire.puter.envelope import INTERFACE

_DEFAULT = Sampling()


def write_request(asked: Asked) -> bytes:
    """The body; whoever sends it adds `auth_token`. Raises `Refused`."""
    chat = asked.chat
    if chat.system_prompt is not SystemPrompt.ADD:
        raise Refused("system_prompt", "Puter has no word for leaving the model's own instruction out")
    if not chat.keep_thinking:
        raise Refused("keep_thinking", "Puter has no word for it")
    if chat.tool_choice != ToolChoice():
        raise Refused("tool_choice", "Puter has no word for it")
    for name in ("usage_at_end", "show_thinking"):
        if not getattr(asked, name):
            raise Refused(name, "Puter has no word for it")
    if asked.labels:
        raise Refused("labels", "Puter has no word for them")
    if not chat.messages:
        raise Refused("messages", "must not be empty")
    args: dict[str, Any] = {"messages": [_message(one, f"messages[{at}]") for at, one in enumerate(chat.messages)]}
    if chat.model:
        args["model"] = chat.model
    args |= _sampling(chat.sampling, asked.given)
    if chat.tools:
        args["tools"] = [_tool(tool) for tool in chat.tools]
    if chat.effort is not None:
        args["reasoning_effort"] = chat.effort.value
    if chat.json_format is not None:
        args["response"] = _format(chat.json_format)
    if asked.stream:
        args["stream"] = True
    if asked.echo.get("normalized"):
        args["normalize"] = True
    test = bool(asked.echo.get("test_mode"))
    call = {"interface": INTERFACE, "driver": "ai-chat", "test_mode": test, "method": "complete", "args": args}
    return ascii_json(call)


def _sampling(sampling: Sampling, given: frozenset[str]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name in Sampling.__struct_fields__:
        value = getattr(sampling, name)
        if name not in given and value == getattr(_DEFAULT, name):
            continue
        if name not in ("temperature", "max_tokens") or value is None:
            raise Refused(f"sampling.{name}", "Puter has no word for it")
        said[name] = value
    return said


def _message(message: Message, field: str) -> dict[str, Any]:
    if message.role is Role.ASSISTANT:
        return _assistant(message.parts, field)
    if not message.parts:
        raise Refused(f"{field}.parts", "Puter takes no empty message")
    if message.role is Role.TOOL:
        return _results(message.parts, field)
    blocks = [_block(part, message.role, f"{field}.parts[{at}]") for at, part in enumerate(message.parts)]
    only = blocks[0] if len(blocks) == 1 else None
    content = only["text"] if only is not None and "text" in only else blocks
    return {"role": message.role.value, "content": content}


def _block(part: Part, role: Role, field: str) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image) and role is Role.USER:
        return {"type": "image_url", "image_url": {"url": url_of(part, field)}}
    raise Refused(field, f"a message of role {role.value} cannot hold it")


def _results(parts: Sequence[Part], field: str) -> dict[str, Any]:
    """One result that is no error is OpenAI's message; several, or an error, are Claude's blocks."""
    found: list[ToolResult] = []
    for at, part in enumerate(parts):
        if not isinstance(part, ToolResult):
            raise Refused(f"{field}.parts[{at}]", "a tool's message holds results")
        if not part.call_id:
            raise Refused(f"{field}.parts[{at}].call_id", "is needed")
        found.append(part)
    if len(found) == 1 and not found[0].is_error:
        return {"role": "tool", "tool_call_id": found[0].call_id, "content": found[0].content}
    blocks = [
        {"type": "tool_result", "tool_use_id": one.call_id, "content": one.content, "is_error": one.is_error}
        for one in found
    ]
    return {"role": "user", "content": blocks}


def _assistant(parts: Sequence[Part], field: str) -> dict[str, Any]:
    order = [next((at for at, kind in enumerate((Thinking, Text, ToolCall)) if isinstance(part, kind)), 3)
             for part in parts]  # fmt: skip
    if 3 in order or order != sorted(order) or order.count(0) > 1 or order.count(1) > 1:
        raise Refused(f"{field}.parts", "must be at most one thought, at most one text, then calls")
    said: dict[str, Any] = {"role": "assistant", "content": "".join(one.text for one in parts if isinstance(one, Text))}
    if 1 in order and not said["content"]:
        raise Refused(f"{field}.parts[{order.index(1)}].text", "an empty text is nothing to Puter")
    for part in parts:
        if isinstance(part, Thinking):
            said |= _thought(part, f"{field}.parts[0]")
    calls = [part for part in parts if isinstance(part, ToolCall)]
    if any(not call.id for call in calls):
        raise Refused(f"{field}.parts", "each call needs an id")
    if calls:
        said["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    return said


def _thought(part: Thinking, field: str) -> dict[str, Any]:
    if not part.text:
        raise Refused(f"{field}.text", "an empty thought is nothing to Puter")
    if not part.closed:
        raise Refused(f"{field}.closed", "Puter has no word for a thought that goes on")
    if part.signature == "":
        raise Refused(f"{field}.signature", "an empty signature is none to Puter")
    if part.signature is None:
        return {"reasoning": part.text}
    return {"reasoning_details": [{"type": "reasoning.text", "text": part.text, "signature": part.signature}]}


def _tool(tool: Tool) -> dict[str, Any]:
    about = {"description": tool.description} if tool.description else {}
    return {"type": "function", "function": {"name": tool.name, **about, "parameters": tool.parameters}}


def _format(wanted: JsonFormat) -> dict[str, Any]:
    if wanted.schema is None:
        if wanted.name != JsonFormat().name:
            raise Refused("json_format.name", "only schemas have a name")
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": msgspec.to_builtins(wanted)}
