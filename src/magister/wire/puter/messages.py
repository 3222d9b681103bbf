"""Puter's messages -> messages: without roles, with strings and blocks mixed, calls in OpenAI's shape or Claude's.

Thoughts come back in whatever shape a client kept them. Knows no options.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from magister.types import Image, Message, Part, Role, Text, Thinking, ToolCall, ToolResult
from magister.wire.fault import BadRequest
from magister.wire.puter.envelope import part_of
from magister.wire.reading import base64_of, image_of

_ROLES = {"system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}
_CANNOT = {
    "video_url": "this server reads no video",
    "file": "this server reads no files; send their text",
    "document": "this server reads no documents; send their text",
    "puter_path": "there is no file system here; send the image itself",
    "input_audio": "this server hears no audio",
    "compaction": "conversations are not compacted here; send the messages themselves",
    "redacted_thinking": "another model's hidden thoughts mean nothing here",
}


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """One message, as a user writes it or a reply had it."""

    content: Any = None
    role: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    """Of a tool whose result this is; the call's id says it better."""
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[dict[str, Any]] | None = None
    refusal: str | None = None
    images: list[Any] | None = None
    cache_control: Any = None
    """Beginnings that repeat are cached without being told."""


class _Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] = ""


class _Call(msgspec.Struct, forbid_unknown_fields=True):
    function: _Function
    id: str = ""
    type: str = "function"
    index: int | None = None


class _Url(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    detail: str | None = None


class _TextBlock(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    type: str = "text"
    cache_control: Any = None
    citations: Any = None


class _ImageUrl(msgspec.Struct, forbid_unknown_fields=True):
    image_url: _Url | str
    type: str = "image_url"
    cache_control: Any = None


class _Source(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    data: str = ""
    url: str = ""
    media_type: str | None = None


class _ClaudeImage(msgspec.Struct, forbid_unknown_fields=True):
    source: _Source
    type: str = "image"
    cache_control: Any = None


class _Thought(msgspec.Struct, forbid_unknown_fields=True):
    """Claude's block, Mistral's chunk, or a line of Puter's own streams."""

    type: str
    thinking: str | list[_TextBlock] | None = None
    reasoning: str | None = None
    signature: str | None = None
    closed: bool | None = None


class _ToolUse(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    id: str = ""
    input: Any = None
    type: str = "tool_use"
    text: str | None = None
    cache_control: Any = None


class _ToolResult(msgspec.Struct, forbid_unknown_fields=True):
    tool_use_id: str
    content: Any = ""
    is_error: bool | None = None
    type: str = "tool_result"
    cache_control: Any = None


_KINDS: dict[str, type[Any]] = {
    "text": _TextBlock,
    "image_url": _ImageUrl,
    "image": _ClaudeImage,
    "thinking": _Thought,
    "reasoning": _Thought,
    "tool_use": _ToolUse,
    "tool_result": _ToolResult,
}


def messages_of(said: list[Any]) -> tuple[Message, ...]:
    """The conversation. Raises `BadRequest`."""
    if not said:
        raise BadRequest("messages", "must not be empty")
    told: list[Message] = []
    for at, value in enumerate(said):
        field = f"messages[{at}]"
        message = Said(content=value) if isinstance(value, str) else part_of(value, Said, field)
        # Clients keep an answer that was stopped before its first word.
        told += [one for one in _messages(message, field) if one.parts or one.role is not Role.ASSISTANT]
    return tuple(told)


def _messages(said: Said, field: str) -> list[Message]:
    for name in ("images", "refusal"):
        if getattr(said, name):
            raise BadRequest(f"{field}.{name}", "the model made none of these")
    role = said.role or "user"
    if role == "tool":
        if not said.tool_call_id:
            raise BadRequest(f"{field}.tool_call_id", "is required")
        return [Message(Role.TOOL, (ToolResult(said.tool_call_id, _plain(said.content, f"{field}.content")),))]
    if said.name:
        raise BadRequest(f"{field}.name", "speakers have no names here; say them in the text")
    if role not in _ROLES:
        raise BadRequest(f"{field}.role", f"must be system, user, assistant or tool, got {role!r}")
    if said.tool_call_id:
        raise BadRequest(f"{field}.tool_call_id", f"goes with the role tool, not {role}")
    parts = _content(said.content, f"{field}.content")
    if _ROLES[role] is Role.ASSISTANT:
        return [_assistant(said, parts, field)]
    for name in ("tool_calls", "reasoning", "reasoning_content", "reasoning_details"):
        if getattr(said, name):
            raise BadRequest(f"{field}.{name}", f"goes with the role assistant, not {role}")
    if said.content is None:
        raise BadRequest(f"{field}.content", "is required")
    for at, part in enumerate(parts):
        if isinstance(part, Thinking | ToolCall) or (role != "user" and not isinstance(part, Text)):
            raise BadRequest(f"{field}.content[{at}]", f"has no place in a message of role {role}")
    # Claude's clients answer calls within a user's message.
    results = tuple(part for part in parts if isinstance(part, ToolResult))
    rest = tuple(part for part in parts if not isinstance(part, ToolResult))
    heard = [Message(Role.TOOL, results)] if results else []
    return [*heard, Message(_ROLES[role], rest)] if rest or not results else heard


def _assistant(said: Said, parts: list[Part], field: str) -> Message:
    """At most one thought, one text, then calls, in whatever order and shape they came."""
    thoughts = [part for part in parts if isinstance(part, Thinking)]
    for at, part in enumerate(parts):
        if isinstance(part, Image | ToolResult):
            raise BadRequest(f"{field}.content[{at}]", "has no place in a message of role assistant")
    if not thoughts:
        thoughts = _thoughts(said)
    text = "".join(part.text for part in parts if isinstance(part, Text))
    calls: list[Part] = [part for part in parts if isinstance(part, ToolCall)]
    calls += [_call(value, f"{field}.tool_calls[{at}]") for at, value in enumerate(said.tool_calls or ())]
    made: list[Part] = []
    if thoughts:
        signature = next((one.signature for one in reversed(thoughts) if one.signature), None)
        joined = "".join(one.text for one in thoughts)
        made.append(Thinking(joined, closed=thoughts[-1].closed, signature=signature))
    if text:
        made.append(Text(text))
    named = [
        msgspec.structs.replace(call, id=call.id or f"call_{at}") if isinstance(call, ToolCall) else call
        for at, call in enumerate(calls)
    ]
    return Message(Role.ASSISTANT, (*made, *named))


def _thoughts(said: Said) -> list[Thinking]:
    """One of the three fields; clients that send several send the same thought."""
    found = []
    for detail in said.reasoning_details or ():
        text = detail.get("text") or detail.get("summary")
        if isinstance(text, str) and text:
            signature = detail.get("signature")
            found.append(Thinking(text, signature=signature if isinstance(signature, str) else None))
    if found:
        return found
    text = said.reasoning or said.reasoning_content
    return [Thinking(text)] if text else []


def _call(value: Any, field: str) -> ToolCall:
    said = part_of(value, _Call, field)
    if said.type != "function":
        raise BadRequest(f"{field}.type", f"must be function, got {said.type!r}")
    arguments = said.function.arguments
    return ToolCall(said.id, said.function.name, arguments if isinstance(arguments, str) else _dumps(arguments))


def _content(value: Any, field: str) -> list[Part]:
    if value is None:
        return []
    if isinstance(value, str):
        return [Text(value)]
    if isinstance(value, dict):
        return [_block(value, field)]
    if not isinstance(value, list):
        raise BadRequest(field, "must be a string, a block, or a list of these")
    return [
        Text(one) if isinstance(one, str) else _block(one, f"{field}[{at}]")
        for at, one in enumerate(value)
        if one is not None
    ]


def _block(value: Any, field: str) -> Part:
    if not isinstance(value, Mapping):
        raise BadRequest(field, "must be a string or a block")
    for name, why in _CANNOT.items():
        if name in value or value.get("type") == name:
            raise BadRequest(f"{field}.{name}" if name in value else f"{field}.type", why)
    # Puter's own blocks are named by what they hold.
    kind = value.get("type") or next((name for name in ("image_url", "text") if name in value), "")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise BadRequest(f"{field}.type", f"must be one of {', '.join(_KINDS)}, got {kind!r}")
    said = part_of(value, _KINDS[kind], field)
    match said:
        case _TextBlock():
            return Text(said.text)
        case _ImageUrl():
            url = said.image_url
            inner = f"{field}.image_url"
            return image_of(url, inner) if isinstance(url, str) else _image(url, inner)
        case _ClaudeImage():
            source = said.source
            if source.type == "base64":
                return Image(data=base64_of(source.data, f"{field}.source.data"))
            return image_of(source.url, f"{field}.source.url")
        case _Thought():
            thought = said.thinking if said.thinking is not None else said.reasoning or ""
            text = thought if isinstance(thought, str) else "".join(one.text for one in thought)
            return Thinking(text, closed=said.closed is not False, signature=said.signature or None)
        case _ToolUse():
            arguments = said.input if isinstance(said.input, str) else _dumps(said.input or {})
            return ToolCall(said.id, said.name, arguments)
    assert isinstance(said, _ToolResult)
    return ToolResult(said.tool_use_id, _plain(said.content, f"{field}.content"), bool(said.is_error))


def _image(said: _Url, field: str) -> Image:
    if said.detail not in (None, "auto", "high", "original"):
        told = f"images are read as large as they are: auto, high or original, got {said.detail!r}"
        raise BadRequest(f"{field}.detail", told)
    return image_of(said.url, f"{field}.url")


def _plain(value: Any, field: str) -> str:
    """What a tool gave back: text, text blocks, or any JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, list) and value and all(isinstance(one, dict) and "type" in one for one in value):
        parts = _content(value, field)
        for at, part in enumerate(parts):
            if not isinstance(part, Text):
                raise BadRequest(f"{field}[{at}]", "a tool gives back text here")
        return "".join(part.text for part in parts if isinstance(part, Text))
    return _dumps(value)


def _dumps(value: Any) -> str:
    """As models write them."""
    return json.dumps(value, ensure_ascii=False)
