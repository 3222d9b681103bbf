"""What a chat model says, as it says it, and the fold of that stream into a whole reply.

The whole reply is always the fold of the stream: there is no second path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec

from magister.types.parts import Message, Part, Role, Text, Thinking, ToolCall
from magister.types.tokens import FinishReason, Timings, TokenLogprob


class EventToken(msgspec.Struct, frozen=True, kw_only=True):
    """One token behind a delta."""

    id: int
    bytes: bytes
    logprob: float
    sampled_logprob: float
    forced: bool = False
    top: tuple[TokenLogprob, ...] = ()


class ThinkingDelta(msgspec.Struct, frozen=True, kw_only=True, tag="thinking_delta"):
    """More of the thought. A `closed` delta ends it."""

    text: str
    choice: int = 0
    closed: bool = False
    signature: str | None = None
    """Of the whole thought, where a remote model's dialect has one; comes with its end."""
    tokens: tuple[EventToken, ...] = ()


class TextDelta(msgspec.Struct, frozen=True, kw_only=True, tag="text_delta"):
    """More of the answer."""

    text: str
    choice: int = 0
    tokens: tuple[EventToken, ...] = ()


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True, tag="tool_call_delta"):
    """More of a tool call; id and name come with the first delta of an index."""

    index: int
    arguments: str = ""
    id: str = ""
    name: str = ""
    choice: int = 0
    tokens: tuple[EventToken, ...] = ()


class Annotation(msgspec.Struct, frozen=True, kw_only=True, tag="annotation"):
    """What dialects have no word for: a tally, a check, a cut, a stray tag."""

    kind: str
    data: dict[str, Any] = {}
    choice: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True, tag="usage"):
    """What one choice cost; prompt tokens count once, with choice 0."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    thinking_tokens: int = 0
    """Part of the completion tokens, the two tags included."""
    completion_tokens: int = 0
    timings: Timings = Timings()
    choice: int = 0


class Finish(msgspec.Struct, frozen=True, kw_only=True, tag="finish"):
    """A choice has ended; its last event."""

    reason: FinishReason
    choice: int = 0
    stop: str | None = None
    error: str | None = None


Event = ThinkingDelta | TextDelta | ToolCallDelta | Annotation | Usage | Finish


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One whole answer."""

    message: Message
    finish: FinishReason | None = None
    """None where the stream broke off before its end."""
    stop: str | None = None
    error: str | None = None
    usage: Usage = Usage()
    annotations: tuple[Annotation, ...] = ()
    tokens: tuple[EventToken, ...] = ()


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """All choices of a request."""

    choices: tuple[Choice, ...] = ()

    @property
    def message(self) -> Message:
        """The first choice's message."""
        return self.choices[0].message


class _Call:
    """A tool call under construction."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []

    def build(self) -> ToolCall:
        return ToolCall(id=self.id, name=self.name, arguments="".join(self.arguments))


class _Builder:
    """One choice under construction."""

    def __init__(self) -> None:
        self.thinking: list[str] | None = None
        self.closed = False
        self.signatures: list[str | None] = []
        """Of each thought; thoughts that were joined have none."""
        self.text: list[str] = []
        self.calls: dict[int, _Call] = {}
        self.annotations: list[Annotation] = []
        self.tokens: list[EventToken] = []
        self.usage = Usage()
        self.finish: Finish | None = None

    def add(self, event: Event) -> None:
        match event:
            case ThinkingDelta():
                if self.thinking is None or (self.closed and event.text):
                    self.signatures.append(None)
                if self.thinking is None:
                    self.thinking = []
                self.thinking.append(event.text)
                self.signatures[-1] = event.signature or self.signatures[-1]
                self.closed = self.closed or event.closed
                self.tokens.extend(event.tokens)
            case TextDelta():
                self.text.append(event.text)
                self.tokens.extend(event.tokens)
            case ToolCallDelta():
                call = self.calls.setdefault(event.index, _Call())
                call.id, call.name = call.id or event.id, call.name or event.name
                call.arguments.append(event.arguments)
                self.tokens.extend(event.tokens)
            case Annotation():
                self.annotations.append(event)
            case Usage():
                self.usage = event
            case Finish():
                self.finish = event

    def build(self) -> Choice:
        parts: list[Part] = []
        if self.thinking is not None:
            signature = self.signatures[0] if len(self.signatures) == 1 else None
            parts.append(Thinking("".join(self.thinking), closed=self.closed, signature=signature))
        text = "".join(self.text)
        if text:
            parts.append(Text(text))
        parts += [self.calls[index].build() for index in sorted(self.calls)]
        return Choice(
            message=Message(Role.ASSISTANT, tuple(parts)),
            finish=self.finish.reason if self.finish else None,
            stop=self.finish.stop if self.finish else None,
            error=self.finish.error if self.finish else None,
            usage=self.usage,
            annotations=tuple(self.annotations),
            tokens=tuple(self.tokens),
        )


def fold(events: Iterable[Event]) -> Reply:
    """The whole reply of a stream, choices in order."""
    builders: dict[int, _Builder] = {}
    for event in events:
        builder = builders.get(event.choice)
        if builder is None:
            builder = builders[event.choice] = _Builder()
        builder.add(event)
    return Reply(choices=tuple(builders[choice].build() for choice in sorted(builders)))


async def collect(events: AsyncIterator[Event]) -> Reply:
    """`fold` of an asynchronous stream, read to its end."""
    return fold([event async for event in events])
