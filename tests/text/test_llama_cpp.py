"""A Tekken tokenizer as llama.cpp keeps it: merges join as Tekken does, the template says what the renderer says."""

from __future__ import annotations

import functools
import re
from itertools import pairwise

import jinja2
import pytest

from magister.text.formats import detect_format
from magister.text.llama_cpp import chat_template, vocabulary
from magister.text.render import Renderer
from magister.text.tokenizer import TekkenPlan, Tokenizer, make_tokenizer
from magister.types import ChatRequest, Message, SystemPrompt, Text, assistant, system, user


@functools.cache
def tokenizer(version: str = "v13", vision: bool = False) -> Tokenizer:
    return make_tokenizer(TekkenPlan(ranks=4000, specials=64, version=version, vision=vision))


@functools.cache
def letter(byte: int) -> str:
    """GPT-2's alphabet, by its own words: what prints stands for itself, the rest follow from U+0100 in order."""
    prints = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [other for other in range(256) if other not in prints]
    return chr(byte) if byte in prints else chr(256 + rest.index(byte))


def joined(word: bytes, merges: dict[tuple[str, str], int]) -> list[str]:
    """Byte pair encoding from a list of merges: the earliest of the list first, the leftmost of equal ones."""
    pieces = [letter(byte) for byte in word]
    while pairs := [(merges[pair], at) for at, pair in enumerate(pairwise(pieces)) if pair in merges]:
        _, at = min(pairs)
        pieces[at : at + 2] = ["".join(pieces[at : at + 2])]
    return pieces


def test_tokens_are_names_and_bytes() -> None:
    made, found = tokenizer(), vocabulary(tokenizer())
    assert len(found.tokens) == len(set(found.tokens)) == made.size
    for token, (text, kind) in enumerate(zip(found.tokens, found.kinds, strict=True)):
        if made.is_special(token):
            assert (text, kind) == (made.token_name(token), 3)
        else:
            assert (text, kind) == ("".join(map(letter, made.token_bytes(token))), 1)


@pytest.mark.parametrize(
    "word",
    [
        "reasoning",
        " thought",
        "naïve",
        "Привет",
        "日本語",
        "aaaaaaa",
        "abababab",
        "\t\t\t",
        "\n\n",
        "🚀",
        "the" * 9,
        "ΑΒΓ",
    ],
)
def test_merges_join_as_tekken_does(word: str) -> None:
    made, found = tokenizer(), vocabulary(tokenizer())
    merges = {(left, right): rank for rank, (left, _, right) in enumerate(m.partition(" ") for m in found.merges)}
    assert len(merges) == len(found.merges)
    wanted = list(made.encode_text(word))
    # One word of Tekken's splitting, so that only the joining is looked at.
    assert len(re.findall(r"\s+|\S+", word.strip(" "))) == 1
    assert [found.tokens.index(piece) for piece in joined(word.encode(), merges)] == wanted


@pytest.mark.parametrize(("version", "vision"), [("v13", True), ("v13", False), ("v11", False), ("v7", False)])
@pytest.mark.parametrize(
    "messages",
    [
        (user("What is 12 + 34?"),),
        (user("Hi"), assistant("Hello."), user("Once more.")),
        (system("Be brief: it's \\ late."), user("Why?")),
    ],
)
def test_the_template_says_what_the_renderer_says(version: str, vision: bool, messages: tuple[Message, ...]) -> None:
    made = tokenizer(version, vision)
    form = detect_format(made)
    template = jinja2.Environment().from_string(chat_template(made, form))
    chat = [
        {"role": str(message.role), "content": "".join(part.text for part in message.parts if isinstance(part, Text))}
        for message in messages
    ]
    said = template.render(messages=chat, bos_token="<s>", eos_token="</s>")
    # A user's own system message takes the place of the instruction; ours is otherwise told to keep it.
    mode = SystemPrompt.REPLACE if str(messages[0].role) == "system" else SystemPrompt.ADD
    wanted = Renderer(made, form).render(ChatRequest(messages=messages, system_prompt=mode)).ids
    assert said == made.show(wanted)
