"""Worlds for tests of grammars: a vocabulary that can spell JSON in several ways, and random networks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tests.engine.world import END, END_THINK, LIMITS, THINK, UNUSED, Make, decoder, opened

from magister.engine.engine import Engine
from magister.engine.limits import Limits
from magister.engine.vocabulary import Vocabulary
from magister.model.config import ModelConfig
from magister.model.network import Model, build, init_weights, native_parameters

CALL = 3
"""A control token that only a grammar asks for."""
SINGLES = [bytes([byte]) for byte in range(256)]
PAIRS = [b'{"', b'":', b'", "', b'"}', b"true", b"[]", b"12", b"ab", b"abc", "ü".encode()]
PIECES = (*[b""] * 5, *SINGLES, *PAIRS)
VOCABULARY = Vocabulary(pieces=PIECES, end=END, think=THINK, end_think=END_THINK, never=frozenset({UNUSED}))
ROOMY = replace(LIMITS, context=512, blocks=512)


def one(piece: bytes) -> int:
    """The id of a piece."""
    return PIECES.index(piece, 5)


def spell(text: str) -> list[int]:
    """A text byte by byte."""
    return [one(bytes([byte])) for byte in text.encode()]


def network(size: int, seed: int = 0, sharpness: float = 2.0) -> Model:
    """A random network over so many ids; the sharper, the more it repeats itself."""
    made = build(ModelConfig(decoder(vocab_size=size, max_position_embeddings=2048)))
    init_weights(made, seed)
    for _, parameter in native_parameters(made):
        parameter.requires_grad_(False)
        if parameter.dim() > 1:
            parameter.mul_(sharpness)
    return made


def model(seed: int = 0, sharpness: float = 2.0) -> Model:
    """A random network over `PIECES` and four more ids."""
    return network(len(PIECES) + 4, seed, sharpness)


@contextmanager
def speaking(
    seed: int = 0, limits: Limits = ROOMY, make: Make | None = None, sharpness: float = 2.0
) -> Iterator[Engine]:
    """An engine over such a network."""
    with opened(model(seed, sharpness), VOCABULARY, limits, make) as engine:
        yield engine


def json_grammar(schema: dict[str, Any], before: str = "") -> str:
    """The grammar of a schema's documents, with at most one blank between two of their parts."""
    return f"start: {before} %json {json.dumps({**schema, 'x-guidance': {'whitespace_pattern': ' '}})}"
