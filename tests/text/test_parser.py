"""The streaming parser: the table of its header, row by row, and everything a chunk may carry."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest

from magister.text.formats import Tags
from magister.text.parser import Parser, call_id
from magister.text.tokenizer import TekkenPlan, Tokenizer, make_tokenizer
from magister.types import (
    Annotation,
    Choice,
    Chunk,
    Event,
    FinishReason,
    OpenAt,
    Part,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    TokenLogprob,
    ToolCall,
    fold,
)


@functools.cache
def tokenizer(version: str = "v13") -> Tokenizer:
    return make_tokenizer(TekkenPlan(ranks=1024, specials=64, version=version, vision=False))


def ids(said: str, version: str = "v13") -> tuple[int, ...]:
    """Tokens of text in which [NAMES] and </s> are special tokens."""
    pieces = re.split(r"(\[/?[A-Z_]+\]|</s>)", said)
    found = [(piece, tokenizer(version).find(piece)) for piece in pieces if piece]
    return tuple(
        token for piece, special in found for token in ((special,) if special is not None else encode(piece, version))
    )


def encode(text: str, version: str = "v13") -> tuple[int, ...]:
    return tokenizer(version).encode_text(text)


def read(parser: Parser, tokens: tuple[int, ...], *, step: int = 1) -> Choice:
    """The folded reply of tokens fed `step` at a time."""
    events: list[Event] = []
    for at in range(0, len(tokens), step):
        events += parser.feed(Chunk(ids=tokens[at : at + step]))
    events += parser.feed(Chunk(finish=FinishReason.END))
    choices = fold([TextDelta(text=""), *events]).choices
    assert len(choices) == 1
    return choices[0]


def parser(version: str = "v13", **options: Any) -> Parser:
    return Parser(tokenizer(version), Tags.TEXT if version == "v11" else Tags.TOKENS, **options)


def kinds(choice: Choice) -> list[str]:
    return [annotation.kind for annotation in choice.annotations]


def parts(choice: Choice) -> tuple[Part, ...]:
    """The message's parts, call ids left out."""
    return tuple(ToolCall("", p.name, p.arguments) if isinstance(p, ToolCall) else p for p in choice.message.parts)


F = ToolCall("", "f", '{"a": 1}')

TABLE: list[tuple[str, tuple[Part, ...], list[str]]] = [
    ("", (), []),
    ("a", (Text("a"),), []),
    (" \n a ", (Text(" \n a "),), []),
    (" \n ", (Text(" \n "),), []),
    ("[THINK]a", (Thinking("a", closed=False),), []),
    ("[THINK]a[/THINK]", (Thinking("a"),), []),
    ("[THINK]a[/THINK]b", (Thinking("a"), Text("b")), []),
    ("[THINK]\n a \n[/THINK]\n\n b\n", (Thinking("\n a \n"), Text("\n\n b\n")), []),
    ("[THINK][/THINK]b", (Text("b"),), ["empty_thought"]),
    ("[THINK][/THINK]", (), ["empty_thought"]),
    ("[THINK]", (), ["empty_thought"]),
    ("[THINK]\n[/THINK]b", (Thinking("\n"), Text("b")), []),
    (" \n[THINK]a[/THINK]b", (Thinking("a"), Text("b")), ["dropped_text"]),
    ("a[THINK]b[/THINK]c", (Text("abc"),), ["stray_tag", "stray_tag"]),
    ("[THINK]a[/THINK][THINK]b[/THINK]c", (Thinking("a"), Text("bc")), ["stray_tag", "stray_tag"]),
    ("[THINK]a[/THINK]b[THINK]c", (Thinking("a"), Text("bc")), ["stray_tag"]),
    ("[THINK]a[THINK]b[/THINK]c", (Thinking("ab"), Text("c")), ["stray_tag"]),
    ("a[/THINK]b", (Text("ab"),), ["stray_tag"]),
    ("[/THINK]a", (Text("a"),), ["stray_tag"]),
    ("[THINK]a[/THINK][/THINK]b", (Thinking("a"), Text("b")), ["stray_tag"]),
    ('[TOOL_CALLS]f[ARGS]{"a": 1}', (F,), []),
    ('[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]f[ARGS]{"a": 1}', (F, F), []),
    ('a[TOOL_CALLS]f[ARGS]{"a": 1}', (Text("a"), F), []),
    ('\n[TOOL_CALLS]f[ARGS]{"a": 1}', (Text("\n"), F), []),
    ('[TOOL_CALLS] f\n[ARGS]{"a": 1}', (F,), []),
    ('[THINK]a[/THINK]b[TOOL_CALLS]f[ARGS]{"a": 1}', (Thinking("a"), Text("b"), F), []),
    ('[THINK]a[TOOL_CALLS]f[ARGS]{"a": 1}', (Thinking("a", closed=False), F), ["unclosed_thought"]),
    ('[THINK][TOOL_CALLS]f[ARGS]{"a": 1}', (F,), ["empty_thought", "unclosed_thought"]),
    ('[TOOL_CALLS]f[ARGS]{"a"[/THINK][ARGS]: 1}', (F,), ["stray_tag", "stray_tag"]),
    ("[TOOL_CALLS]f", (Text("f"),), ["broken_call"]),
    ("a[TOOL_CALLS]f", (Text("af"),), ["broken_call"]),
    ('[TOOL_CALLS]f[TOOL_CALLS]f[ARGS]{"a": 1}', (Text("f"), F), ["broken_call"]),
    ("[TOOL_CALLS]f[INST]b", (Text("fb"),), ["broken_call", "stray_tag"]),
    ("[TOOL_CALLS][ARGS]{}", (Text("{}"),), ["stray_tag", "broken_call"]),
    ("[TOOL_CALLS]", (), ["broken_call"]),
    ("[ARGS]a[CALL_ID]b", (Text("ab"),), ["stray_tag", "stray_tag"]),
    ("a[INST]b[IMG]c", (Text("abc"),), ["stray_tag", "stray_tag"]),
    ("[THINK]a[/INST]b[/THINK]c", (Thinking("ab"), Text("c")), ["stray_tag"]),
    ("a</s>b</s>", (Text("ab"),), []),
]


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(("said", "expected", "annotations"), TABLE)
def test_table(said: str, expected: tuple[Part, ...], annotations: list[str], step: int) -> None:
    choice = read(parser(), (*ids(said), tokenizer().id("</s>")), step=step)
    assert (parts(choice), kinds(choice)) == (expected, annotations)


def test_annotations_say_what_was_dropped() -> None:
    assert parser().feed(Chunk(ids=ids("\n [THINK]")))[0] == Annotation(kind="dropped_text", data={"text": "\n "})
    assert parser().feed(Chunk(ids=ids("[/THINK]")))[0] == Annotation(kind="stray_tag", data={"tag": "[/THINK]"})
    broken = parser(choice=3).feed(Chunk(choice=3, ids=ids("[TOOL_CALLS]f"), finish=FinishReason.LENGTH))
    assert Annotation(kind="broken_call", data={"text": "f"}, choice=3) in broken


@pytest.mark.parametrize(
    ("open_at", "said", "expected", "annotations"),
    [
        (OpenAt.THOUGHT, "b[/THINK]c", (Thinking("b"), Text("c")), []),
        (OpenAt.THOUGHT, "[/THINK]c", (Thinking(""), Text("c")), []),
        (OpenAt.THOUGHT, " b", (Thinking(" b", closed=False),), []),
        (OpenAt.THOUGHT, "[THINK]b[/THINK]", (Thinking("b"),), ["stray_tag"]),
        (OpenAt.ANSWER, " b", (Text(" b"),), []),
        (OpenAt.ANSWER, "[THINK]b[/THINK]", (Text("b"),), ["stray_tag", "stray_tag"]),
        (OpenAt.ANSWER, '[TOOL_CALLS]f[ARGS]{"a": 1}', (F,), []),
    ],
)
def test_continued_messages(open_at: OpenAt, said: str, expected: tuple[Part, ...], annotations: list[str]) -> None:
    choice = read(parser(open_at=open_at), ids(said))
    assert (parts(choice), kinds(choice)) == (expected, annotations)


OLD: list[tuple[str, tuple[Part, ...], list[str]]] = [
    ("<think>\na\n</think>\nb", (Thinking("\na\n"), Text("\nb")), []),
    (" \n<think>a</think>b", (Thinking("a"), Text("b")), ["dropped_text"]),
    ("<think>a", (Thinking("a", closed=False),), []),
    ("<think>a</thin", (Thinking("a</thin", closed=False),), []),
    ("<think>a</</think>b", (Thinking("a</"), Text("b")), []),
    ("<think></think>b", (Text("b"),), ["empty_thought"]),
    ("<think><think>a</think>b", (Thinking("<think>a"), Text("b")), []),
    ("<thin", (Text("<thin"),), []),
    ("\n<thing>", (Text("\n<thing>"),), []),
    ("a<think>b</think>c", (Text("a<think>b</think>c"),), []),
    ("<think>a</think>b</think><think>", (Thinking("a"), Text("b</think><think>")), []),
]


@pytest.mark.parametrize("step", [1, 2, 1000])
@pytest.mark.parametrize(("said", "expected", "annotations"), OLD)
def test_tags_of_text_split_at_any_byte(
    said: str, expected: tuple[Part, ...], annotations: list[str], step: int
) -> None:
    choice = read(parser("v11"), tuple(64 + byte for byte in said.encode()), step=step)
    assert (choice.message.parts, kinds(choice)) == (expected, annotations)


def test_a_special_token_ends_what_may_have_become_a_tag() -> None:
    choice = read(parser("v11"), ids('<thi[TOOL_CALLS]f[ARGS]{"a": 1}', "v11"))
    assert parts(choice) == (Text("<thi"), F)
    choice = read(parser("v11"), ids('<think>a</thi[TOOL_CALLS]f[ARGS]{"a": 1}', "v11"))
    assert parts(choice) == (Thinking("a</thi", closed=False), F)


def test_continued_thought_of_2506() -> None:
    choice = read(parser("v11", open_at=OpenAt.THOUGHT), encode("more</think>\n42", "v11"))
    assert choice.message.parts == (Thinking("more"), Text("\n42"))


def test_ids_that_the_model_writes_are_kept_if_they_are_ids() -> None:
    assert read(parser("v11"), ids("[TOOL_CALLS]f[CALL_ID]abcdEF123[ARGS]{}", "v11")).message.tool_calls == (
        ToolCall("abcdEF123", "f", "{}"),
    )
    (call,) = read(parser("v11", salt=1), ids("[TOOL_CALLS]f[CALL_ID]x[ARGS]{}", "v11")).message.tool_calls
    assert call.id == call_id(1, 0, 0)


def test_call_ids_are_a_function_of_salt_choice_and_index() -> None:
    said = ids("[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g[ARGS]{}")
    one, again, other = ([call.id for call in read(parser(salt=salt), said).message.tool_calls] for salt in (1, 1, 2))
    assert one == again
    assert len({*one, *other, call_id(1, 1, 0)}) == 5
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", given) for given in one + other)


def test_calls_that_are_not_allowed_are_stray() -> None:
    choice = read(parser(calls=False), ids("a[TOOL_CALLS]f[ARGS]{}"))
    assert (parts(choice), kinds(choice)) == ((Text("af{}"),), ["stray_tag", "stray_tag"])


def test_whole_characters_only_and_nothing_lost() -> None:
    woman = "👩‍🚀é"
    tokens = tuple(64 + byte for byte in woman.encode())
    feeding = parser()
    texts = [event.text for token in tokens for event in feeding.feed(Chunk(ids=(token,)))]  # type: ignore[union-attr]
    assert texts == list(woman)
    choice = read(parser(), tokens[:-1])
    assert choice.message.text == woman[:-1] + "\ufffd"
    choice = read(parser(), (34, *tokens[:2], 35, *tokens[:3], 9, *tokens[:1]))
    assert choice.message.parts == (Thinking("\ufffd"), Text("\ufffd\ufffd"))


def test_text_comes_as_soon_as_it_may() -> None:
    feeding = parser()
    assert feeding.feed(Chunk(ids=ids("[THINK]"))) == []
    assert feeding.feed(Chunk(ids=ids("a"))) == [ThinkingDelta(text="a")]
    assert feeding.feed(Chunk(ids=ids("b[/THINK]c"))) == [
        ThinkingDelta(text="b"),
        ThinkingDelta(text="", closed=True),
        TextDelta(text="c"),
    ]
    assert feeding.feed(Chunk(ids=ids("d"))) == [TextDelta(text="d")]


@pytest.mark.parametrize(
    ("said", "trim", "expected"),
    [
        ("abc", 0, (Text("abc"),)),
        ("abc", 2, (Text("a"),)),
        ("abc", 3, ()),
        ("[THINK]ab[/THINK]cd", 1, (Thinking("ab"), Text("c"))),
        ("[THINK]ab[/THINK]cd", 2, (Thinking("ab"),)),
        ("[THINK]ab[/THINK]cd", 3, (Thinking("a", closed=False),)),
        ("ab</s>", 1, (Text("a"),)),
        ('[TOOL_CALLS]f[ARGS]{"a": 1} end', 4, (F,)),
    ],
)
def test_trim_drops_bytes_and_what_follows_them(said: str, trim: int, expected: tuple[Part, ...]) -> None:
    stop = Chunk(ids=ids(said), trim=trim, finish=FinishReason.STOP)
    choice = fold([TextDelta(text=""), *parser().feed(stop)]).choices[0]
    assert parts(choice) == expected


def test_trim_within_a_token_of_several_bytes() -> None:
    (token,) = encode(" the")
    for trim in range(1, 5):
        choice = fold(
            [TextDelta(text=""), *parser().feed(Chunk(ids=(token,), trim=trim, finish=FinishReason.STOP))]
        ).choices[0]
        assert choice.message.text == " the"[: 4 - trim]
    beyond = Chunk(ids=(*encode("x"), token), trim=5, finish=FinishReason.STOP)
    assert parser().feed(beyond) == []


def test_deltas_carry_their_tokens_when_asked() -> None:
    said = (*ids("[THINK]a[/THINK]b[TOOL_CALLS]f[ARGS]{}"), 2)
    count = len(said)
    feeding = parser(logprobs=True)
    chunk = Chunk(
        ids=said,
        logprobs=tuple(-0.1 * place for place in range(count)),
        sampled_logprobs=tuple(-0.2 * place for place in range(count)),
        forced=tuple(place == 2 for place in range(count)),
        top=tuple((TokenLogprob(token, -0.5),) for token in said),
        finish=FinishReason.END,
    )
    (choice,) = fold(feeding.feed(chunk)).choices
    assert [token.id for token in choice.tokens] == list(said[:-1])
    third = choice.tokens[2]
    assert (third.logprob, third.sampled_logprob, third.forced) == (-0.2, -0.4, True)
    assert third.top == (TokenLogprob(35, -0.5, b"[/THINK]"),)
    assert b"".join(token.bytes for token in choice.tokens) == b"abf{}"
    assert read(parser(), said).tokens == ()


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ("a", 0),
        ("[THINK]ab[/THINK]cd", 4),
        ("[THINK]ab", 3),
        ("[THINK]", 1),
        ("[THINK][/THINK]a", 2),
        ("\n[THINK]a[/THINK]b", 3),
        ("[THINK]a[TOOL_CALLS]f[ARGS]{}", 2),
        ("[THINK]a[THINK]b[/THINK]c", 5),
        ("a[THINK]b[/THINK]c", 0),
    ],
)
def test_thinking_tokens_include_the_tags(said: str, count: int) -> None:
    spelled = tuple(
        token if tokenizer().is_special(token) else 64 + byte
        for token in ids(said)
        for byte in tokenizer().token_bytes(token) or b"\0"
    )
    for step in (1, 100):
        counting = parser()
        read(counting, spelled, step=step)
        assert counting.thinking_tokens == count


def test_thinking_tokens_of_2506_include_the_tags() -> None:
    counting = parser("v11")
    read(counting, tuple(64 + byte for byte in b"<think>ab</think>cd"))
    assert counting.thinking_tokens == len("<think>ab</think>")
