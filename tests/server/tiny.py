"""A real engine over a small random network, with its tokenizer: a model that says anything, served like any other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tests.engine.grammars import network

from magister.chat import LocalChat
from magister.cli.compose import engine_vocabulary
from magister.cli.texts import Texts
from magister.engine.engine import Engine
from magister.engine.limits import Limits
from magister.text import Renderer, TekkenPlan, Tokenizer, detect_format, make_tokenizer

LIMITS = Limits(context=160, blocks=400, block_size=8, step_tokens=256, running=16)


def words() -> Tokenizer:
    """A small vocabulary: all bytes, some pairs, and the special tokens."""
    return make_tokenizer(TekkenPlan(ranks=512, specials=64, vision=False))


@contextmanager
def tiny(tokenizer: Tokenizer, limits: Limits = LIMITS, sharpness: float = 2.0) -> Iterator[dict[str, Any]]:
    """What `running.site` is told of such a model, its chat included; the engine must be idle at the end."""
    form = replace(detect_format(tokenizer), instruction=(), closing="")
    with Engine(network(tokenizer.size, sharpness=sharpness), engine_vocabulary(tokenizer), limits) as engine:
        chat = LocalChat(engine, Renderer(tokenizer, form), context=limits.context)
        yield {"chat": chat, "tokens": engine, "text": Texts(tokenizer, chat)}
        load = engine.load()
        assert (load.running, load.waiting, load.free_blocks) == (0, 0, limits.blocks)
