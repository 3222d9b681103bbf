"""A name or a path -> a model ready to chat: finds the checkpoint, fits it to this machine, joins the rooms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from magister.chat import LocalChat
from magister.cli.placement import Kernels, Placement, is_small, place
from magister.cli.places import beside, find, served_name
from magister.engine.engine import Engine
from magister.engine.vocabulary import Vocabulary
from magister.model import weights
from magister.model.config import ModelConfig
from magister.text.formats import Format, load_format
from magister.text.render import Renderer
from magister.text.tokenizer import MAGISTRAL_VOCABULARY, TekkenPlan, Tokenizer, load_tokenizer, make_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model in this process, ready to chat."""

    name: str
    chat: LocalChat
    engine: Engine
    tokenizer: Tokenizer
    form: Format
    context: int
    """Tokens of prompt and answer that there is room for."""
    kernels: Kernels
    """What computes it."""


def load(model: str, how: Placement | None = None, *, own_process: bool = False) -> Loaded:
    """Load a checkpoint and start its engine; `how` is as `Placement()` where it is not given.

    `own_process`: nothing else computes here, so PyTorch's threads may be set for the whole process. Raises
    `ValueError` for what is no checkpoint, a broken one, or one that this machine cannot hold.
    """
    how = how or Placement()
    path = find(model)
    config = weights.read_config(path)
    tokenizer = find_tokenizer(path, config)
    form = load_format(beside(path), tokenizer)
    if own_process and (is_small(config) or config.vision is None):
        # Two threads of PyTorch and two of the compiled decoder would spin against each other; and in a small network
        # two spend their time waiting for each other (measured: 224 tokens/s against 189).
        torch.set_num_threads(1)
    placed = place(path, config, form, how)
    engine = Engine(placed.model, engine_vocabulary(tokenizer), placed.limits, kv=placed.kv)
    name = served_name(model, path, form.name)
    chat = LocalChat(engine, Renderer(tokenizer, form), context=placed.limits.context)
    return Loaded(
        name=name,
        chat=chat,
        engine=engine,
        tokenizer=tokenizer,
        form=form,
        context=placed.limits.context,
        kernels=placed.kernels,
    )


def find_tokenizer(path: Path, config: ModelConfig) -> Tokenizer:
    """The Tekken file of the checkpoint at `path`, else the real Magistral tokenizer from mistral-common's wheel.

    Raises `ValueError` where there is no file and the vocabulary is not as large as Magistral's.
    """
    own = beside(path) / "tekken.json"
    if own.is_file():
        return load_tokenizer(own)
    if config.decoder.vocab_size != MAGISTRAL_VOCABULARY:
        raise ValueError(
            f"tokenizer: {own.parent} has no tekken.json, and its vocabulary of {config.decoder.vocab_size} tokens "
            f"is not Magistral's {MAGISTRAL_VOCABULARY}"
        )
    return make_tokenizer(TekkenPlan(vision=config.vision is not None))


def engine_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """What the engine is told of a tokenizer: bytes, ends, and the special tokens a model never says."""
    spoken = {"</s>", "[THINK]", "[/THINK]", "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"}
    never = {
        id_ for id_ in range(tokenizer.size) if tokenizer.is_special(id_) and tokenizer.token_name(id_) not in spoken
    }
    return Vocabulary(
        pieces=tokenizer.vocabulary,
        end=tokenizer.id("</s>"),
        think=tokenizer.find("[THINK]"),
        end_think=tokenizer.find("[/THINK]"),
        never=frozenset(never),
    )
