"""Messages as mistral-common takes them, checked so that every refusal names the field that caused it.

What mistral-common checks itself (tool schemas, calls and results that do not match) is left to it. Knows nothing of
tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import assert_never

from mistral_common.protocol.instruct import chunk as chunks
from mistral_common.protocol.instruct import messages as mistral
from mistral_common.protocol.instruct import tool_calls as calls

from magister.text.formats import CLOSE_TAG, OPEN_TAG, Format, Tags
from magister.text.images import ImageLimits, decode_image
from magister.text.parser import CALL_ID, call_id
from magister.types import (
    ChatRequest,
    Image,
    Message,
    Part,
    Refused,
    Role,
    SystemPrompt,
    Text,
    Thinking,
    ToolCall,
    ToolMode,
    ToolResult,
)

_PARTS: dict[Role, tuple[type, ...]] = {
    Role.SYSTEM: (Text, Thinking),
    Role.USER: (Text, Image),
    Role.ASSISTANT: (Text, Thinking, ToolCall),
    Role.TOOL: (ToolResult,),
}

_AFTER: dict[Role, tuple[Role, ...]] = {
    Role.SYSTEM: (Role.SYSTEM, Role.USER, Role.ASSISTANT),
    Role.USER: (Role.USER, Role.ASSISTANT, Role.SYSTEM),
    Role.ASSISTANT: (Role.ASSISTANT, Role.USER, Role.TOOL),
    Role.TOOL: (Role.TOOL, Role.ASSISTANT, Role.USER),
}

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")

ChatMessage = mistral.SystemMessage | mistral.UserMessage | mistral.AssistantMessage | mistral.ToolMessage
Content = list[chunks.ContentChunk]


def check_request(request: ChatRequest, version: str) -> None:
    """Whether a request can be said in Magistral's formats at all."""
    _check_order(request.messages)
    for at, message in enumerate(request.messages):
        after = request.messages[at + 1].role if at + 1 < len(request.messages) else None
        _check_parts(message, f"messages[{at}]", after)
    _check_tools(request, version)
    _check_form(request)


def to_mistral(request: ChatRequest, form: Format, version: str, limits: ImageLimits) -> list[ChatMessage]:
    """A checked request's messages, the instruction among them."""
    images = sum(isinstance(part, Image) for message in request.messages for part in message.parts)
    if images > limits.count:
        raise ValueError(f"messages: {images} images, at most {limits.count} are read in one request")
    leading = next(at for at, message in enumerate(request.messages) if message.role is not Role.SYSTEM)
    told: list[ChatMessage] = []
    system = _system_prompt(request, request.messages[:leading], form)
    if system:
        told.append(mistral.SystemMessage(content=_speech(system, form.tags)))
    start = 0 if request.system_prompt is SystemPrompt.REPLACE else leading
    last_user = max(at for at, message in enumerate(request.messages) if message.role is Role.USER)
    for at, message in enumerate(request.messages[start:], start):
        if not request.keep_thinking and message.role is Role.ASSISTANT and at < last_user:
            message = Message(message.role, tuple(part for part in message.parts if not isinstance(part, Thinking)))
        final = at == len(request.messages) - 1
        told += _message(message, form, version, limits, f"messages[{at}]", continued=final)
    return told


def to_tools(request: ChatRequest) -> list[calls.Tool] | None:
    """The tools to offer; none where none may be called."""
    if request.tool_choice.mode is ToolMode.NONE or not request.tools:
        return None
    return [
        calls.Tool(function=calls.Function(name=tool.name, description=tool.description, parameters=tool.parameters))
        for tool in request.tools
    ]


def spoken(message: Message) -> list[Text | Thinking]:
    """What an assistant says in tokens of its own, calls apart: its thoughts and the texts that are not empty."""
    return [part for part in message.parts if isinstance(part, Thinking) or (isinstance(part, Text) and part.text)]


def to_assistant(message: Message, tags: Tags, version: str, *, continued: bool = False) -> mistral.AssistantMessage:
    """An assistant's message; a continued one does not end its turn."""
    return mistral.AssistantMessage(
        content=_speech(spoken(message), tags) or None,
        tool_calls=[
            calls.ToolCall(
                id=_call_id(call.id, version), function=calls.FunctionCall(name=call.name, arguments=call.arguments)
            )
            for call in message.tool_calls
        ]
        or None,
        prefix=continued,
    )


def _check_order(messages: Sequence[Message]) -> None:
    if not messages:
        raise ValueError("messages: must not be empty")
    if messages[0].role in (Role.ASSISTANT, Role.TOOL):
        raise ValueError(f"messages[0].role: a conversation cannot begin with {messages[0].role.value}")
    for at in range(1, len(messages)):
        role, before = messages[at].role, messages[at - 1].role
        if role not in _AFTER[before]:
            raise ValueError(f"messages[{at}].role: {role.value} cannot follow {before.value}")
    if messages[-1].role is Role.SYSTEM:
        raise ValueError(f"messages[{len(messages) - 1}].role: a conversation cannot end with system")
    if all(message.role is not Role.USER for message in messages):
        raise ValueError("messages: needs a message of role user")


def _check_parts(message: Message, field: str, after: Role | None) -> None:
    """The parts a role may have; of an assistant's, what can be said and, at the end, continued."""
    for at, part in enumerate(message.parts):
        if not isinstance(part, _PARTS[message.role]):
            kind = type(part).__name__
            raise ValueError(f"{field}.parts[{at}]: a {message.role.value} message cannot hold a {kind} part")
        if isinstance(part, ToolCall):
            _check_name(part.name, f"{field}.parts[{at}].name")
    if message.role is Role.ASSISTANT:
        followed = spoken(message) if after is Role.ASSISTANT else spoken(message)[:-1]
        if any(isinstance(part, Thinking) and not part.closed for part in followed):
            raise ValueError(f"{field}.parts: after a thought that is not closed nothing more can be said")
        if after is None and message.tool_calls:
            raise ValueError(f"{field}.parts: tool calls cannot be continued; their results must follow")
    if not _says(message):
        raise ValueError(f"{field}.parts: must not be empty")


def _says(message: Message) -> bool:
    """Whether there is anything to encode; an empty text of an assistant is nothing, an empty thought is its tags."""
    if message.role is Role.ASSISTANT:
        return bool(spoken(message) or message.tool_calls)
    return bool(message.parts)


def _check_name(name: str, field: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{field}: {name!r} is not made of 1 to 64 of a-z, A-Z, 0-9, _ and -")


def _check_tools(request: ChatRequest, version: str) -> None:
    choice = request.tool_choice
    for at, tool in enumerate(request.tools):
        _check_name(tool.name, f"tools[{at}].name")
        if any(tool.name == other.name for other in request.tools[:at]):
            raise ValueError(f"tools[{at}].name: {tool.name!r} is there twice")
    if (choice.name is not None) != (choice.mode is ToolMode.NAMED):
        raise ValueError("tool_choice.name: belongs to the mode named, and to no other")
    if choice.mode is ToolMode.REQUIRED and not request.tools:
        raise ValueError("tool_choice.mode: required, and there is no tool to call")
    if choice.mode is ToolMode.NAMED and choice.name not in [tool.name for tool in request.tools]:
        raise ValueError(f"tool_choice.name: {choice.name!r} is none of the tools")
    if version == "v7" and request.tools and choice.mode is not ToolMode.NONE:
        raise Refused("tools", "the call syntax of tokenizer version v7 is not supported")


def _check_form(request: ChatRequest) -> None:
    """Whether the answer's form can be what is asked."""
    formed = request.json_format is not None
    if formed and request.tool_choice.mode in (ToolMode.REQUIRED, ToolMode.NAMED):
        raise Refused("json_format", "where a tool must be called there is no answer that it could form")
    last = request.messages[-1]
    if formed and last.role is Role.ASSISTANT and last.text:
        raise Refused("json_format", "an answer that has begun cannot be continued as JSON")
    if request.sampling.grammar is not None and (formed or request.tools):
        raise Refused("sampling.grammar", "cannot hold together with json_format or tools, which make a grammar too")


def _system_prompt(request: ChatRequest, leading: Sequence[Message], form: Format) -> list[Text | Thinking]:
    """The instruction with the user's own system prompt added, or nothing where the user's stands alone.

    A user's prompt with a thought in it brings a reasoning instruction of its own, as the model cards tell clients
    to; a second one would not help.
    """
    if request.system_prompt is SystemPrompt.REPLACE:
        return []
    own = [part for message in leading for part in message.parts if isinstance(part, Text | Thinking)]
    if any(isinstance(part, Thinking) or (form.tags is Tags.TEXT and OPEN_TAG in part.text) for part in own):
        return own
    return [*form.instruction, *own, *([Text(form.closing)] if form.closing else [])]


def _message(
    message: Message, form: Format, version: str, limits: ImageLimits, field: str, *, continued: bool
) -> list[ChatMessage]:
    match message.role:
        case Role.SYSTEM:
            return [mistral.SystemMessage(content=_speech(message.parts, form.tags))]
        case Role.USER:
            return [mistral.UserMessage(content=_user_content(message, form, limits, field))]
        case Role.ASSISTANT:
            return [to_assistant(message, form.tags, version, continued=continued)] if _says(message) else []
        case Role.TOOL:
            return [
                mistral.ToolMessage(content=_result(part), tool_call_id=_call_id(part.call_id, version))
                for part in message.parts
                if isinstance(part, ToolResult)
            ]
    assert_never(message.role)


def _user_content(message: Message, form: Format, limits: ImageLimits, field: str) -> Content:
    content: Content = []
    for at, part in enumerate(message.parts):
        if isinstance(part, Text):
            content.append(chunks.TextChunk(text=part.text))
        elif isinstance(part, Image):
            if not form.images:
                raise Refused(f"{field}.parts[{at}]", "this model reads no images")
            if part.url and not part.data:
                raise Refused(f"{field}.parts[{at}]", "an image by URL was not fetched")
            content.append(chunks.ImageChunk(image=decode_image(part.data, limits, f"{field}.parts[{at}]")))
    return content


def _speech(parts: Iterable[Part], tags: Tags) -> Content:
    """Text and thoughts in order, as chunks; in a format of text tags, as one text."""
    content: Content = []
    for part in parts:
        if isinstance(part, Text):
            content.append(chunks.TextChunk(text=part.text))
        elif isinstance(part, Thinking):
            content.append(chunks.ThinkChunk(thinking=part.text, closed=part.closed))
    return content if tags is Tags.TOKENS else _tagged(content)


def _tagged(content: Content) -> Content:
    """Thoughts between text tags; texts side by side are joined by a blank line, as mistral-common does."""
    text, before = "", None
    for piece in content:
        if isinstance(piece, chunks.ThinkChunk):
            text += OPEN_TAG + piece.thinking + (CLOSE_TAG if piece.closed else "")
        elif isinstance(piece, chunks.TextChunk) and piece.text:
            text += ("\n\n" if isinstance(before, chunks.TextChunk) else "") + piece.text
        before = piece
    return [chunks.TextChunk(text=text)] if text else []


def _result(part: ToolResult) -> str:
    """The formats have no mark for failure, so a failed tool's result says so itself."""
    return json.dumps({"error": part.content}, ensure_ascii=False) if part.is_error else part.content


def _call_id(given: str, version: str) -> str:
    """v13 writes no ids into the prompt; those before it do, and only ids of their own form."""
    return given if version == "v13" or CALL_ID.fullmatch(given) else call_id(given)
