"""Messages and their parts: what is said, by whom, as values without identity.

Knows nothing of tokens, dialects or models.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Text(msgspec.Struct, frozen=True, tag="text"):
    """Plain text."""

    text: str


class Thinking(msgspec.Struct, frozen=True, tag="thinking"):
    """A thought, shown as such and never mixed into the text."""

    text: str
    closed: bool = True
    """False for a thought that was cut off, or that a continued message goes on with."""
    signature: str | None = None
    """Opaque proof of origin that some dialects replay; no part of the thought."""


class Image(msgspec.Struct, frozen=True, tag="image"):
    """An image as its file's bytes, or where they are."""

    data: bytes = b""
    """An encoded file (PNG, JPEG, WebP, GIF, BMP, TIFF), as read from disk."""
    url: str = ""
    """Where the file is, while `data` is empty; a server fetches it, a renderer refuses it."""


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call"):
    """The model asks for a tool to be run."""

    id: str
    name: str
    arguments: str
    """A JSON object as text, exactly as the model wrote it."""


class ToolResult(msgspec.Struct, frozen=True, tag="tool_result"):
    """What a tool gave back, in a message of role `tool`."""

    call_id: str
    content: str
    is_error: bool = False


Part = Text | Thinking | Image | ToolCall | ToolResult


class Message(msgspec.Struct, frozen=True):
    """One turn: a role and its parts in order.

    Normal form of an assistant message: at most one `Thinking`, then at most one `Text`, then any
    `ToolCall`s, none of them empty.
    """

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """All `Text` parts, joined without separator."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def thinking(self) -> str:
        """All `Thinking` parts, joined without separator."""
        return "".join(part.text for part in self.parts if isinstance(part, Thinking))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """All `ToolCall` parts in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


def user(*content: str | Part) -> Message:
    """A user's message; strings become `Text`."""
    return Message(Role.USER, tuple(Text(part) if isinstance(part, str) else part for part in content))


def system(*content: str | Part) -> Message:
    """A system message; strings become `Text`."""
    return Message(Role.SYSTEM, tuple(Text(part) if isinstance(part, str) else part for part in content))


def assistant(*content: str | Part) -> Message:
    """An assistant's message; strings become `Text`."""
    return Message(Role.ASSISTANT, tuple(Text(part) if isinstance(part, str) else part for part in content))
