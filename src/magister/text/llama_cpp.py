"""A Tekken tokenizer as llama.cpp keeps one: byte pairs with merges, its "tekken" splitting, and a chat template.

Tekken gives bytes a rank and joins the pair whose joined bytes have the lowest rank. llama.cpp wants a list of pairs
to join, earlier first: all pairs that join to a token, in the order of the tokens' ranks, say the same. Bytes are
written in the alphabet of GPT-2, which has a printable letter for each. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mistral_common.integrations.chat_templates.chat_templates import generate_chat_template
from mistral_common.tokens.tokenizers.base import TokenizerVersion

from magister.text.formats import Format, Tags
from magister.text.tokenizer import Tokenizer
from magister.types import Thinking

_NORMAL, _CONTROL = 1, 3


class Vocabulary(NamedTuple):
    """What the keys `tokenizer.ggml.*` of a GGUF file say."""

    tokens: list[str]
    """By id: a special token's name, or bytes in GPT-2's alphabet."""
    kinds: list[int]
    """By id: 1 for byte pairs, 3 for special tokens."""
    merges: list[str]
    """Pairs, a space between the two, the first to be joined first."""


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """The tokens and merges of `tokenizer`. ValueError for a byte pair that no two others make."""
    letters = _letters()
    specials = range(tokenizer.specials)
    pairs = tokenizer.vocabulary[tokenizer.specials :]
    spelled = {piece: "".join(map(letters.__getitem__, piece)) for piece in pairs}
    return Vocabulary(
        tokens=[tokenizer.token_name(token) for token in specials] + [spelled[piece] for piece in pairs],
        kinds=[_CONTROL] * len(specials) + [_NORMAL] * len(pairs),
        merges=[f"{spelled[left]} {spelled[right]}" for left, right in _merges(pairs)],
    )


def chat_template(tokenizer: Tokenizer, form: Format) -> str:
    """The Jinja template of chats, as mistral-common writes it for this version; where a chat has no system message,
    the format's own instruction is said.

    llama.cpp reads names of special tokens in a rendered template as those tokens, [THINK] in the instruction too.
    """
    version = TokenizerVersion(tokenizer.version)
    instruction = "".join(
        f"[THINK]{part.text}[/THINK]" if isinstance(part, Thinking) else part.text for part in form.instruction
    )
    closing = f"\n\n{form.closing}" if instruction and form.closing else form.closing
    return generate_chat_template(
        spm=False,
        tokenizer_version=version,
        image_support=tokenizer.image is not None,
        audio_support=False,
        thinking_support=form.tags is Tags.TOKENS,
        default_system_prompt=(instruction + closing) or None,
        plain_thinking_support=form.tags is Tags.TEXT and version == TokenizerVersion.v11,
        use_special_token_variables=True,
        model_settings_fields=None,
        reasoning_effort_values=None,
        reasoning_effort_default=None,
    )


def _letters() -> list[str]:
    """GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes for the letters from U+0100 on."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = iter(range(0x100, 0x200))
    return [chr(byte) if byte in plain else chr(next(rest)) for byte in range(256)]


def _merges(pairs: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    ranks = {piece: rank for rank, piece in enumerate(pairs)}
    for whole in pairs:
        if len(whole) == 1:
            continue
        cuts = [(whole[:cut], whole[cut:]) for cut in range(1, len(whole))]
        found = [(left, right) for left, right in cuts if left in ranks and right in ranks]
        if not found:
            raise ValueError(f"tokenizer: no two tokens make {whole!r}, llama.cpp cannot have it")
        yield from sorted(found, key=lambda cut: (ranks[cut[0]], ranks[cut[1]]))
