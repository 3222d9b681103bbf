"""`Asked` -> the body of Responses that asks for it.

Knows what OpenAI's words can say; what they cannot is refused by name, never left out. Of `Asked.echo` it repeats
what has no other place: what to include, and whether thoughts are summarised.
"""

from __future__ import annotations

from typing import Any

import msgspec

from magister.types import (
    ChatRequest,
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
from magister.wire.dialect import Asked
from magister.wire.media import url_of
from magister.wire.openai_responses.request import LABELS, LOGPROBS

_DEFAULT = Sampling()
_WORDS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_output_tokens",
    "top_logprobs": "top_logprobs",
}
_REPEATED = ("include", "max_tool_calls")

_Json = dict[str, Any]


def write_request(asked: Asked) -> bytes:
    """The body. Raises `Refused`."""
    chat = asked.chat
    if chat.system_prompt is not SystemPrompt.ADD:
        raise Refused("system_prompt", "OpenAI has no word for leaving the model's own instruction out")
    if not asked.usage_at_end:
        raise Refused("usage_at_end", "this stream always tells what it cost")
    if not asked.show_thinking:
        raise Refused("show_thinking", "OpenAI has no word for hiding thoughts")
    if not chat.model:
        raise Refused("model", "OpenAI asks for one")
    body: _Json = {"model": chat.model, "store": False, **_messages(chat.messages)}
    body |= _sampling(chat.sampling, asked.given)
    body |= {name: asked.echo[name] for name in _REPEATED if name in asked.echo}
    if chat.sampling.logprobs and LOGPROBS not in body.setdefault("include", []):
        body["include"] = [*body["include"], LOGPROBS]
    if asked.stream:
        body["stream"] = True
    reasoning = _reasoning(chat, asked.echo.get("reasoning", {}))
    if reasoning:
        body["reasoning"] = reasoning
    if chat.json_format is not None:
        body["text"] = {"format": _format(chat.json_format)}
    if chat.tools:
        body["tools"] = [_tool(tool) for tool in chat.tools]
    body |= _choice(chat.tool_choice)
    return msgspec.json.encode(body | _labels(asked.labels))


def _messages(messages: tuple[Message, ...]) -> _Json:
    """Instructions, where the first message is one text of the system, and the input."""
    if not messages:
        raise Refused("messages", "OpenAI takes no empty conversation")
    said: _Json = {}
    first = messages[0]
    start = 0
    if first.role is Role.SYSTEM and len(first.parts) == 1 and isinstance(first.parts[0], Text) and first.text:
        said["instructions"] = first.text
        start = 1
    writer = _Writer()
    for at, message in enumerate(messages):
        if at >= start:
            before = messages[at - 1].role if at else None
            writer.add(message, f"messages[{at}]", before, final=at == len(messages) - 1)
    if not writer.items:
        raise Refused("messages", "OpenAI takes no conversation of instructions alone")
    for field in writer.waiting.values():
        raise Refused(field, "OpenAI asks for a result of every call")
    return said | {"input": writer.items}


class _Writer:
    """Messages in, items out."""

    def __init__(self) -> None:
        self.items: list[_Json] = []
        self.waiting: dict[str, str] = {}
        self._asked: set[str] = set()

    def add(self, message: Message, field: str, before: Role | None, *, final: bool) -> None:
        if not message.parts:
            raise Refused(f"{field}.parts", "OpenAI takes no empty message")
        if message.role is before and message.role in (Role.ASSISTANT, Role.TOOL):
            raise Refused(field, "OpenAI joins the items of one side that follow one another")
        if message.role is Role.ASSISTANT:
            _check_normal(message.parts, f"{field}.parts", final=final)
        content = []
        for at, part in enumerate(message.parts):
            inner = f"{field}.parts[{at}]"
            match message.role, part:
                case Role.ASSISTANT, Text() | Thinking() | ToolCall():
                    self.items.append(self._said(part, inner))
                case Role.TOOL, ToolResult():
                    self.items.append(self._result(part, inner))
                case ((Role.SYSTEM | Role.USER), Text()):
                    content.append({"type": "input_text", "text": part.text})
                case Role.USER, Image():
                    content.append({"type": "input_image", "detail": "auto", "image_url": url_of(part, inner)})
                case _:
                    told = f"a {message.role} message holds no {type(part).__name__} in OpenAI's words"
                    raise Refused(inner, told)
        if content:
            self.items.append({"type": "message", "role": message.role.value, "content": content})

    def _said(self, part: Text | Thinking | ToolCall, field: str) -> _Json:
        if isinstance(part, Text):
            return {"type": "message", "role": "assistant", "content": part.text}
        if isinstance(part, Thinking):
            item: _Json = {
                "type": "reasoning",
                "id": f"rs_{len(self.items)}",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": part.text}],
                "status": "completed" if part.closed else "incomplete",
            }
            return item if part.signature is None else item | {"encrypted_content": part.signature}
        if part.id in self._asked:
            raise Refused(f"{field}.id", f"{part.id!r} is there twice")
        try:
            msgspec.json.decode(part.arguments, type=dict[str, Any])
        except msgspec.DecodeError:
            raise Refused(f"{field}.arguments", "OpenAI takes a JSON object") from None
        self._asked.add(part.id)
        self.waiting[part.id] = field
        return {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.arguments}

    def _result(self, part: ToolResult, field: str) -> _Json:
        if self.waiting.pop(part.call_id, None) is None:
            raise Refused(f"{field}.call_id", f"no call {part.call_id!r} waits for its result")
        if part.is_error:
            raise Refused(f"{field}.is_error", "OpenAI has no word for it; say it in the content")
        return {"type": "function_call_output", "call_id": part.call_id, "output": part.content}


def _check_normal(parts: tuple[Part, ...], field: str, *, final: bool) -> None:
    """One thought, one text, then calls, none of them empty: read back, OpenAI's items become just that."""
    kinds: tuple[type[Part], ...] = (Thinking, Text, ToolCall)
    if not all(isinstance(part, kinds) for part in parts):
        return
    order = [kinds.index(type(part)) for part in parts]
    if order != sorted(order) or order.count(0) > 1 or order.count(1) > 1:
        raise Refused(field, "must be at most one thought, at most one text, then calls")
    for at, part in enumerate(parts):
        if isinstance(part, Text | Thinking) and not part.text:
            raise Refused(f"{field}[{at}].text", "what is empty is nothing to OpenAI")
        if isinstance(part, Thinking) and not part.closed and not (final and len(parts) == 1):
            raise Refused(f"{field}[{at}].closed", "a thought that goes on is the last thing said")
        if isinstance(part, Thinking) and part.signature == "":
            raise Refused(f"{field}[{at}].signature", "an empty one is none")


def _sampling(sampling: Sampling, given: frozenset[str]) -> _Json:
    """What the client set, or what differs from the default all the same."""
    said: _Json = {}
    for name in Sampling.__struct_fields__:
        value = getattr(sampling, name)
        if (name not in given and value == getattr(_DEFAULT, name)) or (name == "logprobs" and value):
            continue
        if name not in _WORDS or value is None:
            raise Refused(f"sampling.{name}", f"OpenAI has no word for {value!r} here")
        said[_WORDS[name]] = value
    return said


def _reasoning(chat: ChatRequest, asked: _Json) -> _Json:
    said = {name: asked[name] for name in ("summary", "generate_summary") if asked.get(name) is not None}
    if chat.effort is not None:
        said["effort"] = chat.effort.value
    return said if chat.keep_thinking else said | {"context": "current_turn"}


def _format(wanted: JsonFormat) -> _Json:
    if wanted.schema is not None:
        return {"type": "json_schema", "name": wanted.name, "schema": wanted.schema, "strict": True}
    if wanted.name != JsonFormat().name:
        raise Refused("json_format.name", "OpenAI's JSON objects have no name")
    return {"type": "json_object"}


def _tool(tool: Tool) -> _Json:
    if not tool.parameters:
        raise Refused("tools.parameters", "an empty schema is none to OpenAI")
    about = {"description": tool.description} if tool.description else {}
    return {"type": "function", "name": tool.name, **about, "parameters": tool.parameters, "strict": False}


def _choice(choice: ToolChoice) -> _Json:
    said: _Json = {} if choice.parallel else {"parallel_tool_calls": False}
    if choice.mode is ToolMode.NAMED:
        return said | {"tool_choice": {"type": "function", "name": choice.name}}
    return said if choice.mode is ToolMode.AUTO else said | {"tool_choice": choice.mode.value}


def _labels(labels: dict[str, str]) -> _Json:
    own = {name: labels[name] for name in LABELS if name in labels}
    rest = {name: label for name, label in labels.items() if name not in own}
    return own | ({"metadata": rest} if rest else {})
