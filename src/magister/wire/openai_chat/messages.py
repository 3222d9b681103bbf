"""Messages of Chat Completions -> messages. Knows their fields; what contents hold is known in `contents`."""

from __future__ import annotations

from collections.abc import Sequence

from magister.types import Message, Role, Text, Thinking, ToolCall, ToolResult
from magister.wire.fault import BadRequest
from magister.wire.openai_chat import body as openai
from magister.wire.openai_chat.contents import check_tool_names, parts_of, speech, text_of

_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
}
_ONLY_OF = {
    "tool_calls": Role.ASSISTANT,
    "reasoning": Role.ASSISTANT,
    "reasoning_content": Role.ASSISTANT,
    "reasoning_details": Role.ASSISTANT,
    "refusal": Role.ASSISTANT,
    "prefix": Role.ASSISTANT,
    "tool_call_id": Role.TOOL,
}
_CANNOT = {
    "audio": "this model neither hears nor speaks",
    "function_call": "functions are called tools now: use tool_calls and the role tool",
    "annotations": "this server keeps no references; leave them out",
}


def messages_of(said: Sequence[openai.Message]) -> tuple[Message, ...]:
    """All of them but those in which the assistant says nothing. Raises `BadRequest`."""
    if not said:
        raise BadRequest("messages", "must not be empty")
    for at, message in enumerate(said):
        if message.prefix and at + 1 < len(said):
            raise BadRequest(f"messages[{at}].prefix", "goes with the last message")
    read = [_message(message, f"messages[{at}]") for at, message in enumerate(said)]
    if any(one.name for one in said):
        read = [_spoken(message, name) for message, name in zip(read, _speakers(said, read), strict=True)]
    # Clients keep an answer that was stopped before its first word.
    messages = tuple(message for message in read if message.parts or message.role is not Role.ASSISTANT)
    check_tool_names(
        (
            (f"messages[{at}].name", one.tool_call_id or "", one.name)
            for at, one in enumerate(said)
            if one.name is not None
        ),
        messages,
    )
    return messages


def _speakers(said: Sequence[openai.Message], read: Sequence[Message]) -> list[str]:
    """Whose name has to be told, by message: it tells participants of one role apart, and of one alone nothing."""
    names: dict[Role, set[str]] = {}
    for one, message in zip(said, read, strict=True):
        names.setdefault(message.role, set()).add(one.name or "")
    several = {role for role, known in names.items() if len(known) > 1 and role is not Role.TOOL}
    return [one.name or "" if message.role in several else "" for one, message in zip(said, read, strict=True)]


def _spoken(message: Message, name: str) -> Message:
    """What was said with its speaker's name before it; the template has no other place for one."""
    if not name:
        return message
    parts = list(message.parts)
    first = next((at for at, part in enumerate(parts) if not isinstance(part, Thinking)), len(parts))
    spoken = parts[first] if first < len(parts) else None
    if isinstance(spoken, Text):
        parts[first] = Text(f"{name}: {spoken.text}")
    elif message.role is not Role.ASSISTANT:
        parts.insert(first, Text(f"{name}: "))
    return Message(message.role, tuple(parts))


def _message(said: openai.Message, field: str) -> Message:
    if said.role == "function":
        raise BadRequest(f"{field}.role", _CANNOT["function_call"])
    for name, why in _CANNOT.items():
        if getattr(said, name):
            raise BadRequest(f"{field}.{name}", why)
    role = _ROLES[said.role]
    for name, only in _ONLY_OF.items():
        if getattr(said, name) and role is not only:
            raise BadRequest(f"{field}.{name}", f"goes with the role {only.value} here, not {said.role}")
    if role is Role.TOOL:
        if not said.tool_call_id:
            raise BadRequest(f"{field}.tool_call_id", "is required")
        return Message(role, (ToolResult(said.tool_call_id, text_of(said.content, f"{field}.content", role)),))
    parts = parts_of(said.content, f"{field}.content", role)
    if role is not Role.ASSISTANT:
        return Message(role, tuple(parts))
    parts += parts_of(said.refusal, f"{field}.refusal", role)
    calls = [_call(call, f"{field}.tool_calls[{at}]") for at, call in enumerate(said.tool_calls or ())]
    return speech(said, parts, calls, field)


def _call(call: openai.Call, field: str) -> ToolCall:
    if call.type != "function" or call.function is None:
        raise BadRequest(f"{field}.type", f"{call.type!r}: only functions are called here")
    if not call.id:
        raise BadRequest(f"{field}.id", "is required")
    return ToolCall(call.id, call.function.name, call.function.arguments)
