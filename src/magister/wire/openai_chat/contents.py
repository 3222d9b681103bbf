"""Contents of messages in OpenAI's shape, and in Mistral's, which grew out of it -> parts of messages.

A replayed thought is a thought, whatever its shape: a field of its own under three names, or a chunk of the content.
Literal tags stay text. An assistant's message is put into its normal form: thought, text, calls. Knows no request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from magister.types import Image, Message, Part, Role, Text, Thinking, ToolCall
from magister.wire.fault import BadRequest
from magister.wire.nested import convert_at, kind_of
from magister.wire.openai_chat import body as openai
from magister.wire.reading import image_of

Content = str | list[dict[str, Any]] | None

_HOLDS = {
    Role.SYSTEM: ("text", "thinking"),
    Role.USER: ("text", "image_url"),
    Role.ASSISTANT: ("text", "thinking", "refusal"),
    Role.TOOL: ("text",),
}
_FILES = "this server reads no files; send their text"
_CANNOT = {
    "file": _FILES,
    "document_url": _FILES,
    "input_audio": "this server hears no audio",
    "video_url": "this server reads no video",
    "reference": "this server keeps no references; send the text",
    "tool_reference": "this server keeps no references; send the text",
}


class Replayed(Protocol):
    """The fields of a message under which thoughts come back."""

    @property
    def reasoning(self) -> str | None: ...
    @property
    def reasoning_content(self) -> str | None: ...
    @property
    def reasoning_details(self) -> list[dict[str, Any]] | None: ...


def parts_of(content: Content, field: str, role: Role) -> list[Part]:
    """What a content says, in its order. Raises `BadRequest`."""
    if content is None:
        if role is not Role.ASSISTANT:
            raise BadRequest(field, "is required")
        return []
    if isinstance(content, str):
        return [Text(content)] if content or role is not Role.ASSISTANT else []
    return [_part(part, f"{field}[{at}]", role) for at, part in enumerate(content)]


def _part(part: dict[str, Any], field: str, role: Role) -> Part:
    kind = kind_of(part, field)
    if kind not in _HOLDS[role]:
        why = _CANNOT.get(kind, f"a message of role {role.value} holds {', '.join(_HOLDS[role])} here")
        raise BadRequest(f"{field}.type", f"{kind!r}: {why}")
    match kind:
        case "thinking":
            return _thinking(convert_at(part, openai.ThinkingPart, field), field)
        case "image_url":
            return _image(convert_at(part, openai.ImagePart, field), f"{field}.image_url")
        case "refusal":
            return Text(convert_at(part, openai.RefusalPart, field).refusal)
        case _:
            return Text(convert_at(part, openai.TextPart, field).text)


def _image(part: openai.ImagePart, field: str) -> Image:
    if isinstance(part.image_url, str):
        return image_of(part.image_url, field)
    if part.image_url.detail == "low":
        raise BadRequest(f"{field}.detail", "images are read as large as they are; send a smaller one")
    return image_of(part.image_url.url, f"{field}.url")


def _thinking(part: openai.ThinkingPart, field: str) -> Thinking:
    text = part.thinking
    if not isinstance(text, str):
        texts = []
        for at, chunk in enumerate(text):
            inner = f"{field}.thinking[{at}]"
            if chunk.get("type", "text") != "text":
                raise BadRequest(f"{inner}.type", f"{chunk['type']!r}: a thought holds text only here")
            texts.append(convert_at(chunk, openai.TextPart, inner).text)
        text = "".join(texts)
    return Thinking(text, closed=part.closed is not False, signature=part.signature)


def text_of(content: Content, field: str, role: Role) -> str:
    """The same, where only text may be, as one string."""
    return "".join(part.text for part in parts_of(content, field, role) if isinstance(part, Text))


def speech(said: Replayed, content: Sequence[Part], calls: Iterable[ToolCall], field: str) -> Message:
    """An assistant's message in its normal form, whatever the order and the number of its chunks."""
    thoughts = [part for part in content if isinstance(part, Thinking)] or _replayed(said, field)
    text = "".join(part.text for part in content if isinstance(part, Text))
    parts: list[Part] = []
    if len(thoughts) == 1:
        parts += thoughts
    elif thoughts:
        parts.append(Thinking("".join(one.text for one in thoughts), closed=thoughts[-1].closed))
    # An empty thought says something only where it is to be gone on with.
    parts = [part for part in parts if isinstance(part, Thinking) and (part.text or not part.closed)]
    if text:
        parts.append(Text(text))
    return Message(Role.ASSISTANT, (*parts, *calls))


def _replayed(said: Replayed, field: str) -> list[Thinking]:
    """A thought in a field of its own. Clients that know more than one of its names send it under each."""
    older, newer = said.reasoning_content, said.reasoning
    if older and newer and older != newer:
        raise BadRequest(f"{field}.reasoning_content", "differs from reasoning; send one of them")
    if older or newer:
        return [Thinking(newer or older or "")]
    thoughts = []
    # What other providers put into their details is theirs; of it only what is told in words can be read.
    for at, one in enumerate(said.reasoning_details or ()):
        for name in ("text", "summary"):
            text = one.get(name)
            if text is not None and not isinstance(text, str):
                raise BadRequest(f"{field}.reasoning_details[{at}].{name}", "must be a string")
            if text:
                signature = one.get("signature")
                thoughts.append(Thinking(text, signature=signature if isinstance(signature, str) else None))
    return thoughts


def check_tool_names(names: Iterable[tuple[str, str, str]], messages: Sequence[Message]) -> None:
    """Raises `BadRequest` where a result, (field, call id, name), is said to be of another tool than was called."""
    called = {call.id: call.name for message in messages for call in message.tool_calls}
    for field, call_id, name in names:
        if called.get(call_id, name) != name:
            raise BadRequest(field, f"is {name!r}, but {call_id!r} was a call of {called[call_id]!r}")
