"""Events and messages for hypothesis: streams as a chat model says them, in the parts that dialects carry."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from magister.types import (
    Event,
    Finish,
    FinishReason,
    Message,
    Part,
    Reply,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
    fold,
)
from magister.wire.dialect import EventReader, EventWriter

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,12}", fullmatch=True)
ARGUMENTS = st.dictionaries(NAMES, st.one_of(st.integers(-9, 9), WORDS, st.booleans(), st.none()), max_size=3)


@st.composite
def one_choice(draw: Any, choice: int = 0) -> list[Event]:
    """Thought, text, calls, cost, end: each perhaps."""
    thoughts = draw(st.lists(WORDS, max_size=4))
    texts = draw(st.lists(WORDS, max_size=4))
    calls = draw(st.lists(st.tuples(NAMES, ARGUMENTS), max_size=2))
    events: list[Event] = [ThinkingDelta(text=text, choice=choice) for text in thoughts]
    events += [ThinkingDelta(text="", closed=True, choice=choice)] if thoughts else []
    events += [TextDelta(text=text, choice=choice) for text in texts]
    for index, (name, arguments) in enumerate(calls):
        said = dumps(arguments)
        cut = draw(st.integers(0, len(said)))
        events.append(ToolCallDelta(index=index, id=f"call{choice}{index}", name=name, choice=choice))
        events += [ToolCallDelta(index=index, arguments=piece, choice=choice) for piece in (said[:cut], said[cut:])]
    thinking = draw(st.integers(0, 9)) if thoughts else 0
    reason = FinishReason.TOOL_CALLS if calls else draw(st.sampled_from([FinishReason.END, FinishReason.REPETITION]))
    events.append(
        Usage(
            prompt_tokens=draw(st.integers(1, 99)) if not choice else 0,
            cached_tokens=draw(st.integers(0, 9)) if not choice else 0,
            thinking_tokens=thinking,
            completion_tokens=thinking + draw(st.integers(0, 9)),
            choice=choice,
        )
    )
    return [*events, Finish(reason=reason, choice=choice)]


def dumps(value: object) -> str:
    """JSON as models write it."""
    return json.dumps(value, ensure_ascii=False)


@st.composite
def cut(draw: Any, data: bytes) -> list[bytes]:
    """Bytes in pieces, as networks deliver them."""
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


def signed(reply: Reply, sign: Callable[[str], str]) -> Reply:
    """The reply with each whole thought signed."""

    def part(said: Part) -> Part:
        if not isinstance(said, Thinking) or not said.closed:
            return said
        return msgspec.structs.replace(said, signature=sign(said.text))

    return Reply(
        choices=tuple(
            msgspec.structs.replace(
                choice, message=Message(choice.message.role, tuple(part(one) for one in choice.message.parts))
            )
            for choice in reply.choices
        )
    )


def written(writer: EventWriter, events: Sequence[Event], groups: Sequence[int]) -> bytes:
    """The whole stream, its events handed over in groups of these sizes."""
    said, at = b"", 0
    for size in groups:
        said += writer.write(events[at : at + size])
        at += size
    return said + (writer.write(events[at:]) if at < len(events) else b"") + writer.end()


def read(reader: EventReader, pieces: Sequence[bytes]) -> Reply:
    """The fold of a stream."""
    events = [event for piece in pieces for event in reader.feed(piece)]
    return fold([*events, *reader.end()])
