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
from magister.model.config import DecoderConfig, ModelConfig
from magister.model.count import count_parameters
from magister.model.network import Model
from magister.text.formats import Format, load_format
from magister.text.render import Renderer
from magister.text.tokenizer import MAGISTRAL_VOCABULARY, TekkenPlan, Tokenizer, load_tokenizer, make_tokenizer

SHIPPED = ("nano",)
"""Checkpoints in the package."""

SMALL = 300_000_000
"""Parameters up to which a CPU computes in float32: it is faster there without bfloat16 units, and fits."""

CACHE_SHARE = {"cpu": 0.5, "cuda": 0.9}
"""Of the memory free after loading, the most that the key/value cache takes, by kind of device."""

LEAST_CONTEXT = 256
"""Tokens below which loading is refused: too few for a thought."""

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
    context: int
    """Tokens of prompt and answer that there is room for."""


def find(model: str) -> Path:
    """The folder of a shipped checkpoint by name, or of one by its path.

    Raises `ValueError` where there is neither.
    """
    if model in SHIPPED:
        return Path(str(resources.files("magister") / "checkpoints" / model))
    path = Path(model).expanduser()
    if not model or not path.exists():
        raise ValueError(f"model: {model!r} is neither a folder nor one of {', '.join(SHIPPED)}")
    return path


def load(model: str, *, device: str = "auto", dtype: str = "auto", context: int | None = None) -> Loaded:
    """Load a checkpoint and start its engine. Without `context` it is as long as checkpoint and memory allow.

    Raises `ValueError` for what is no checkpoint, a broken one, or one that this machine cannot hold.
    """
    folder = find(model)
    chosen = _device(device)
    config = weights.read_config(folder)
    tokenizer = find_tokenizer(folder)
    form = load_format(folder, tokenizer)
    network = weights.load(folder, device=chosen, dtype=_dtype(dtype, chosen, config))
    layout.arrange(network)
    limits = _limits(config.decoder, form, network, context)
    engine = Engine(network, engine_vocabulary(tokenizer), limits)
    name = model if model in SHIPPED else (form.name if (folder / "magister.json").is_file() else folder.name)
    chat = LocalChat(engine, Renderer(tokenizer, form))
    return Loaded(name=name, chat=chat, engine=engine, tokenizer=tokenizer, form=form, context=limits.context)


def settle_threads(model: str) -> None:
    """One thread for a small network: two spend their time waiting for each other (measured: 224 tokens/s against 189).

    For commands only, since it holds for the whole process.
    """
    if count_parameters(weights.read_config(find(model))).total <= SMALL:
        torch.set_num_threads(1)


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


def _device(asked: str) -> str:
    if asked not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: {asked!r} is none of auto, cpu, cuda")
    if asked == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: PyTorch finds no CUDA device here")
    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def _dtype(asked: str, device: str, config: ModelConfig) -> torch.dtype | None:
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if asked != "auto":
        if asked not in names:
            raise ValueError(f"dtype: {asked!r} is none of auto, {', '.join(names)}")
        return names[asked]
    small = device == "cpu" and count_parameters(config).total <= SMALL
    return torch.float32 if small else None


def _limits(config: DecoderConfig, form: Format, network: Model, asked: int | None) -> Limits:
    made_for = min(form.context, config.max_position_embeddings)
    if asked is not None and not 2 <= asked <= config.max_position_embeddings:
        raise ValueError(f"context: {asked} tokens asked for, the model takes 2 to {config.max_position_embeddings}")
    weight = next(network.parameters())
    token = 2 * config.n_layers * config.n_kv_heads * config.head_dim * weight.element_size()
    free = torch.cuda.mem_get_info(weight.device)[0] if weight.device.type == "cuda" else _free_memory()
    block = 16
    blocks = int(free * CACHE_SHARE[weight.device.type]) // (token * block)
    context = min(made_for, blocks * block) if asked is None else asked
    if blocks * block < context or context < min(LEAST_CONTEXT, made_for, asked or made_for):
        wanted = max(context, LEAST_CONTEXT)
        raise ValueError(
            f"context: {wanted} tokens of cache take {wanted * token:,} bytes, memory holds {blocks * block} tokens"
        )
    return Limits(
        context=context, blocks=min(-(-RUNNING * context // block), blocks), block_size=block, running=RUNNING
    )


def _free_memory() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
