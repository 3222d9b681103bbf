"""A request to a chat model, whole: messages, tools, output format, sampling.

Knows nothing of any dialect; what a dialect has no word for keeps its default.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from magister.types.parts import Message
from magister.types.tokens import Sampling


class Tool(msgspec.Struct, frozen=True):
    """A function the model may call."""

    name: str
    parameters: dict[str, Any]
    """JSON Schema of the arguments."""
    description: str = ""


class ToolMode(StrEnum):
    """Whether tools are called."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    NAMED = "named"


class ToolChoice(msgspec.Struct, frozen=True):
    """Which tools are called."""

    mode: ToolMode = ToolMode.AUTO
    name: str | None = None
    """Of the one tool to call; with `NAMED` only."""
    parallel: bool = True
    """False: one call at most."""


class JsonFormat(msgspec.Struct, frozen=True):
    """The answer must be JSON."""

    schema: dict[str, Any] | None = None
    """JSON Schema it must satisfy; None admits any JSON object."""
    name: str = "answer"


class SystemPrompt(StrEnum):
    """What becomes of the model's own reasoning instruction."""

    ADD = "add"
    """Kept; the user's system message is added to it."""
    REPLACE = "replace"
    """Left out; the user's system message, if any, stands alone."""


class Effort(StrEnum):
    """How much thinking is wanted, where a client gives no number of tokens."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a chat model answers."""

    messages: tuple[Message, ...]
    """A final assistant message is continued, inside its thought if that is not closed."""
    model: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    json_format: JsonFormat | None = None
    sampling: Sampling = Sampling()
    system_prompt: SystemPrompt = SystemPrompt.ADD
    keep_thinking: bool = True
    """Whether earlier turns' thoughts stay in the prompt."""
    effort: Effort | None = None
    """Becomes `sampling.thinking_tokens`, by the size of the model's context, where that is None."""
