"""Messages of La Plateforme -> messages. What contents hold is known in `openai_chat.contents`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from magister.types import Message, Role, ToolCall, ToolResult
from magister.wire.fault import BadRequest
from magister.wire.mistral import body as mistral
from magister.wire.openai_chat.contents import check_tool_names, parts_of, speech, text_of

_ONLY_OF = {
    "tool_calls": Role.ASSISTANT,
    "prefix": Role.ASSISTANT,
    "reasoning": Role.ASSISTANT,
    "reasoning_content": Role.ASSISTANT,
    "reasoning_details": Role.ASSISTANT,
    "tool_call_id": Role.TOOL,
    "name": Role.TOOL,
}


def messages_of(said: Sequence[mistral.Message]) -> tuple[Message, ...]:
    """All of them. Raises `BadRequest`."""
    if not said:
        raise BadRequest("messages", "must not be empty")
    last = len(said) - 1
    messages = tuple(_message(message, f"messages[{at}]") for at, message in enumerate(said))
    for at, message in enumerate(said):
        if message.prefix and at != last:
            raise BadRequest(f"messages[{at}].prefix", "goes with the last message")
    if said[last].role == "assistant" and not said[last].prefix:
        raise BadRequest(f"messages[{last}].role", "the last message is the assistant's: set prefix to go on with it")
    check_tool_names(
        (
            (f"messages[{at}].name", one.tool_call_id or "", one.name)
            for at, one in enumerate(said)
            if one.name is not None
        ),
        messages,
    )
    return messages


def _message(said: mistral.Message, field: str) -> Message:
    role = Role(said.role)
    for name, only in _ONLY_OF.items():
        if getattr(said, name) and role is not only:
            raise BadRequest(f"{field}.{name}", f"goes with the role {only.value} here, not {said.role}")
    if role is Role.TOOL:
        if not said.tool_call_id:
            raise BadRequest(f"{field}.tool_call_id", "is required")
        # Its SDKs send null for a tool that gave nothing back.
        content = "" if said.content is None else text_of(said.content, f"{field}.content", role)
        return Message(role, (ToolResult(said.tool_call_id, content),))
    parts = parts_of(said.content, f"{field}.content", role)
    if role is not Role.ASSISTANT:
        return Message(role, tuple(parts))
    calls = [_call(call, f"{field}.tool_calls[{at}]") for at, call in enumerate(said.tool_calls or ())]
    return speech(said, parts, calls, field)


def _call(call: mistral.Call, field: str) -> ToolCall:
    if call.type != "function":
        raise BadRequest(f"{field}.type", f"{call.type!r}: only functions are called here")
    if not call.id:
        raise BadRequest(f"{field}.id", "is required")
    given = call.function.arguments
    arguments = given if isinstance(given, str) else msgspec.json.encode(given).decode()
    return ToolCall(call.id, call.function.name, arguments)
