"""Laws of text: parse(render(m)) = m, any split of the stream says the same, and a history is what was generated."""

from __future__ import annotations

import functools
import itertools
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from magister.text import Renderer, TekkenPlan, detect_format, make_tokenizer
from magister.text.formats import CLOSE_TAG, OPEN_TAG, Tags
from magister.types import (
    ChatRequest,
    Chunk,
    Event,
    FinishReason,
    Message,
    OpenAt,
    Part,
    Prompt,
    Reply,
    Role,
    Sampling,
    Text,
    TextDelta,
    Thinking,
    ToolCall,
    ToolResult,
    assistant,
    fold,
    user,
)

law = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
both = pytest.mark.parametrize("version", ["v13", "v11"])


@functools.cache
def renderer(version: str) -> Renderer:
    tokenizer = make_tokenizer(TekkenPlan(ranks=1024, specials=64, version=version, vision=False))
    return Renderer(tokenizer, detect_format(tokenizer))


words = st.sampled_from(
    [
        "<think>",
        "</think>",
        "[THINK]",
        "[/THINK]",
        "</s>",
        "[ARGS]",
        "\n\n",
        " ",
        "👩‍🚀",
        "四十六",
        "é",
        "e\u0301",
        "\ufffd",
        "{",
    ]
)
texts = st.one_of(st.text(min_size=1), st.lists(words, min_size=1, max_size=6).map("".join))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
calls = st.builds(
    ToolCall,
    id=st.from_regex(r"[a-zA-Z0-9]{9}", fullmatch=True),
    name=st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True),
    arguments=st.dictionaries(texts, values, max_size=3).map(lambda value: json.dumps(value, ensure_ascii=False)),
)


@st.composite
def normal_messages(draw: st.DrawFn) -> Message:
    """An assistant's message in normal form."""
    thought = draw(st.none() | texts)
    text = draw(st.none() | texts)
    made = draw(st.lists(calls, max_size=3, unique_by=lambda call: call.id))
    closed = text is not None or draw(st.booleans())
    parts: list[Part] = [*([Thinking(thought, closed=closed)] if thought else []), *([Text(text)] if text else [])]
    assume(parts or made)
    return assistant(*parts, *made)


def sayable(message: Message, version: str) -> bool:
    """Whether 2506 can write the message: tags that are text cannot be told from text in their place."""
    if renderer(version).format.tags is Tags.TOKENS:
        return True
    begins = OPEN_TAG if not message.thinking and message.text.lstrip().startswith(OPEN_TAG) else ""
    return CLOSE_TAG not in message.thinking and not begins


def without_ids(message: Message) -> Message:
    return assistant(*(ToolCall("", p.name, p.arguments) if isinstance(p, ToolCall) else p for p in message.parts))


def parse(version: str, pieces: list[Chunk], **sampling: Any) -> Reply:
    request = ChatRequest(messages=(user("?"),), sampling=Sampling(**sampling))
    parser = renderer(version).parser(Prompt(ids=(1,), open_at=OpenAt.START), request, 0)
    events: list[Event] = [TextDelta(text="")]
    for piece in pieces:
        events += parser.feed(piece)
    return fold([*events, *parser.end()])


def split(ids: tuple[int, ...], cuts: set[int]) -> list[Chunk]:
    """The tokens in chunks that end at the cuts; logprobs name the tokens' places."""
    edges = sorted({0, len(ids), *(cut % (len(ids) + 1) for cut in cuts)})
    return [
        Chunk(
            ids=ids[start:stop],
            logprobs=tuple(-float(place) for place in range(start, stop)),
            sampled_logprobs=tuple(-2.0 * place for place in range(start, stop)),
            forced=tuple(place % 3 == 0 for place in range(start, stop)),
        )
        for start, stop in itertools.pairwise(edges)
    ]


cuts = st.sets(st.integers(0, 300), max_size=40)


@both
@law
@given(message=normal_messages(), places=cuts)
def test_parse_undoes_render(version: str, message: Message, places: set[int]) -> None:
    assume(sayable(message, version))
    reply = parse(version, split(renderer(version).reply(message), places))
    assert without_ids(reply.message) == without_ids(message)
    if version == "v11":
        assert reply.message == message


@both
@law
@given(
    ids=st.lists(st.one_of(st.integers(0, 40), st.integers(0, 64 + 1023), st.integers(64, 64 + 255)), max_size=40),
    places=cuts,
)
def test_any_split_says_the_same(version: str, ids: list[int], places: set[int]) -> None:
    tokens = tuple(ids)
    whole = parse(version, split(tokens, set()), logprobs=True)
    assert parse(version, split(tokens, places), logprobs=True) == whole
    assert parse(version, split(tokens, set(range(41))), logprobs=True) == whole
    assert parse(version, split(tokens, places)).message == whole.message
    assert [token.id for token in whole.choices[0].tokens] == [token for token in ids if token != 2]


@law
@given(data=st.binary(max_size=30), places=cuts)
def test_bytes_decode_as_a_whole(data: bytes, places: set[int]) -> None:
    reply = parse("v13", split(tuple(64 + byte for byte in data), places))
    assert reply.message.text == data.decode("utf-8", errors="replace")


@law
@given(text=texts)
def test_special_tokens_are_never_made_of_text(text: str) -> None:
    made = renderer("v13")
    request = ChatRequest(messages=(user(text), assistant(text), user("?")))
    ids = made.render(request).ids
    plain = made.render(ChatRequest(messages=(user("x"), assistant("x"), user("?")))).ids
    assert [token for token in ids if token < 64] == [token for token in plain if token < 64]


@both
@law
@given(message=normal_messages(), continued=st.booleans())
def test_a_history_is_what_was_generated(version: str, message: Message, continued: bool) -> None:
    """The prompt of a later turn begins with the earlier prompt and the very tokens of the reply: a cache will hit."""
    made = renderer(version)
    asked = ChatRequest(messages=(user("?"),))
    before = made.render(asked).ids + made.reply(message)
    results = tuple(Message(Role.TOOL, (ToolResult(call.id, "R"),)) for call in message.tool_calls)
    later = ChatRequest(messages=(*asked.messages, message, *results, user("And?")))
    assert made.render(later).ids[: len(before)] == before
    if continued and not message.tool_calls:
        going = made.render(ChatRequest(messages=(*asked.messages, message)))
        assert going.ids == before[:-1] == made.render(asked).ids + made.reply(message, ended=False)


def test_the_last_finish_ends_everything() -> None:
    parser = renderer("v13").parser(Prompt(ids=(1,)), ChatRequest(messages=(user("?"),)), 0)
    assert parser.feed(Chunk(ids=(64 + 0xE5,), finish=FinishReason.LENGTH)) == [TextDelta(text="\ufffd")]
    assert parser.end() == []
