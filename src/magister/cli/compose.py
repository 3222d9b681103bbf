"""A name or a path -> a model ready to chat: finds the checkpoint, fits it to this machine, joins the rooms."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch

from magister.chat import LocalChat
from magister.engine.engine import Engine
from magister.engine.limits import Limits
from magister.engine.vocabulary import Vocabulary
from magister.model import layout, weights
from magister.model.config import DecoderConfig
from magister.model.network import Model
from magister.text.formats import Format, load_format
from magister.text.render import Renderer
from magister.text.tokenizer import MAGISTRAL_VOCABULARY, TekkenPlan, Tokenizer, load_tokenizer, make_tokenizer

SHIPPED = ("nano",)
"""Checkpoints in the package."""

SMALL = 300_000_000
"""Parameters up to which a CPU computes in float32: it is faster there without bfloat16 units, and fits."""

CACHE_SHARE = 0.5
"""Of the memory free after loading, the most that the key/value cache takes."""

RUNNING = 32
"""Sequences at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model in this process, ready to chat."""

    name: str
    chat: LocalChat
    engine: Engine
    tokenizer: Tokenizer
    form: Format


def find(model: str) -> Path:
    """The folder of a shipped checkpoint by name, or of one by its path.

    Raises `ValueError` where there is neither.
    """
    if model in SHIPPED:
        return Path(str(resources.files("magister") / "checkpoints" / model))
    path = Path(model).expanduser()
    if not path.exists():
        raise ValueError(f"model: {model!r} is neither a folder nor one of {', '.join(SHIPPED)}")
    return path


def load(model: str, *, device: str = "auto", dtype: str = "auto") -> Loaded:
    """Load a checkpoint and start its engine.

    Raises `ValueError` for what is no checkpoint, a broken one, or one that this machine cannot hold.
    """
    folder = find(model)
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    config = weights.read_config(folder)
    tokenizer = find_tokenizer(folder)
    form = load_format(folder, tokenizer)
    network = weights.load(folder, device=chosen, dtype=_dtype(dtype, chosen, folder))
    layout.arrange(network)
    limits = _limits(config.decoder, form, network)
    engine = Engine(network, engine_vocabulary(tokenizer), limits)
    name = model if model in SHIPPED else (form.name if (folder / "magister.json").is_file() else folder.name)
    chat = LocalChat(engine, Renderer(tokenizer, form))
    return Loaded(name=name, chat=chat, engine=engine, tokenizer=tokenizer, form=form)


def find_tokenizer(folder: Path) -> Tokenizer:
    """The folder's Tekken file, else the real Magistral tokenizer from mistral-common's wheel."""
    own = folder / "tekken.json"
    if own.is_file():
        return load_tokenizer(own)
    config = weights.read_config(folder)
    if config.decoder.vocab_size != MAGISTRAL_VOCABULARY:
        raise ValueError(
            f"tokenizer: {folder} has no tekken.json, and its vocabulary of {config.decoder.vocab_size} tokens "
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


def _dtype(asked: str, device: str, folder: Path) -> torch.dtype | None:
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if asked != "auto":
        if asked not in names:
            raise ValueError(f"dtype: {asked!r} is none of auto, {', '.join(names)}")
        return names[asked]
    if device == "cpu" and _parameters(folder) <= SMALL:
        return torch.float32
    return None


def _parameters(folder: Path) -> int:
    with torch.device("meta"):
        network = Model(weights.read_config(folder))
    return sum(parameter.numel() for parameter in network.parameters())


def _limits(config: DecoderConfig, form: Format, network: Model) -> Limits:
    context = min(form.context, config.max_position_embeddings)
    element = next(network.parameters()).element_size()
    token = 2 * config.n_layers * config.n_kv_heads * config.head_dim * element
    device = next(network.parameters()).device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _free_memory()
    block = 16
    fitting = int(free * CACHE_SHARE) // (token * block)
    if fitting * block < context:
        most = max(0, fitting * block)
        raise ValueError(
            f"context: {context} tokens of cache take {context * token:,} bytes, memory holds {most} tokens"
        )
    wanted = -(-RUNNING * context // block)
    return Limits(context=context, blocks=min(wanted, fitting), block_size=block, running=RUNNING)


def _free_memory() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
