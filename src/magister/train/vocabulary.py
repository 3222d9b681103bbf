"""A small vocabulary in Tekken's own format: the tokens of the real one that a corpus uses most.

A token is kept only with the pieces that merging builds it from, so the small vocabulary splits text
the way the real one does, only finer where a token was dropped.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from magister.text.tokenizer import TekkenPlan, tekken

_BYTES = 256
_WORD = re.compile(rb" ([a-z]{3,10})")


def choose_tokens(encode: Iterable[list[bytes]], ranks: dict[bytes, int], count: int, general: int) -> list[bytes]:
    """`count` tokens in the order of their ranks: all bytes, the first `general` ranks, then by frequency.

    `encode` gives the corpus as lists of the real vocabulary's tokens; `ranks` is that vocabulary.
    """
    kept = {token for token, rank in ranks.items() if rank < _BYTES + general}
    frequency: Counter[bytes] = Counter()
    for tokens in encode:
        frequency.update(tokens)
    for token, _ in frequency.most_common():
        needed = {piece for piece in ancestry(token, ranks) if piece not in kept}
        if len(kept) + len(needed) <= count:
            kept |= needed
    if len(kept) < count:
        # A small corpus: fill up with the commonest tokens of general text.
        for token in sorted(ranks, key=ranks.__getitem__):
            if len(kept) == count:
                break
            kept.add(token)
    return sorted(kept, key=ranks.__getitem__)


def ancestry(token: bytes, ranks: dict[bytes, int]) -> set[bytes]:
    """The token and every piece that byte-pair merging passes through on the way to it."""
    assert token in ranks, token
    pieces = [bytes([byte]) for byte in token]
    seen = {token}
    while len(pieces) > 1:
        pairs = [pieces[i] + pieces[i + 1] for i in range(len(pieces) - 1)]
        best = min(range(len(pairs)), key=lambda i: ranks.get(pairs[i], 1 << 60))
        if pairs[best] not in ranks:
            break
        pieces[best : best + 2] = [pairs[best]]
        seen.add(pairs[best])
    return seen


def small_tekken(tokens: list[bytes], slots: int) -> dict[str, Any]:
    """The content of a text-only Tekken v13 file with `tokens` as its vocabulary after `slots` special places."""
    content = tekken(TekkenPlan(ranks=_BYTES, specials=slots, vision=False))
    content["config"] |= {"num_vocab_tokens": len(tokens), "default_vocab_size": slots + len(tokens)}
    content["vocab"] = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": _shown(token)}
        for rank, token in enumerate(tokens)
    ]
    return content


def real_ranks() -> dict[bytes, int]:
    """The real Tekken vocabulary: token bytes and their ranks."""
    return {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in tekken(TekkenPlan())["vocab"]}


def plain_words(ranks: dict[bytes, int], most: int = 20_000) -> tuple[str, ...]:
    """Lower-case words of 3 to 10 plain letters that are one token of the real vocabulary, the commonest first."""
    found: list[str] = []
    for token in sorted(ranks, key=ranks.__getitem__):
        match = _WORD.fullmatch(token)
        if match and len(found) < most:
            found.append(match.group(1).decode())
    return tuple(found)


def _shown(token: bytes) -> str | None:
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return None
