"""The recipe of nano: its shape, its vocabulary, its data and its schedule, from nothing to weights.

Everything that made the shipped checkpoint is here; `magister train sft nano` runs it.
"""

from __future__ import annotations

import hashlib
import json
import random
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch

from magister.model.config import DecoderConfig, ModelConfig
from magister.model.disk import alone
from magister.model.network import Model, build, init_weights, native_products
from magister.model.weights import load, save_native
from magister.tasks import phrasebook
from magister.text.formats import detect_format
from magister.text.tokenizer import TekkenPlan, Tokenizer, load_tokenizer, make_tokenizer
from magister.train import checkpoint, history
from magister.train.conversations import Conversation, ConversationSource, Mixture
from magister.train.drills import Drills, drillable, held_out_words, letter_pieces
from magister.train.encode import Encoder
from magister.train.optimizer import OptimizerConfig
from magister.train.packing import Sequence
from magister.train.sft import Identity, SftConfig, train
from magister.train.shards import ShardSpec
from magister.train.vocabulary import choose_tokens, plain_words, real_ranks, small_tekken
from magister.types import Text

SPECIAL_SLOTS = 64
VOCABULARY = 4096

DECODER = DecoderConfig(
    dim=256,
    n_layers=6,
    head_dim=64,
    hidden_dim=640,
    n_heads=4,
    n_kv_heads=2,
    norm_eps=1e-5,
    vocab_size=VOCABULARY,
    rope_theta=10_000.0,
    max_position_embeddings=2048,
)

MIXTURE = Mixture(
    families=(
        ("arithmetic", 0.15),
        ("word_problems", 0.14),
        ("equations", 0.10),
        ("fractions", 0.07),
        ("numbers", 0.07),
        ("sequences", 0.05),
        ("dates", 0.06),
        ("units", 0.05),
        ("letters", 0.08),
        ("logic", 0.09),
        ("countdown", 0.06),
        ("geometry", 0.02),
        ("greeting", 0.02),
        ("other", 0.04),
    ),
    drills=0.16,
    openings=0.36,
    readings=0.12,
)

CARD = {
    "name": "nano",
    "system_prompt": "",
    "context": 1024,
    "temperature": 0.0,
    "top_p": 1.0,
    "description": "A very small reasoning model of Magister's own, trained on procedurally generated problems.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoRun:
    """What a person may change of the recipe."""

    seed: int = 0
    tokens: int = 80_000_000
    """To train on, padding included."""
    row_length: int = 1024
    rows_per_batch: int = 4
    shard: int = 4096
    """Conversations a shard."""
    device: str = "cpu"
    compile: bool = False
    rate_scale: float = 1.0
    """Of all peak learning rates; below 1 for a warm start."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Builds seed -> training sequence in whatever process needs it."""

    tokenizer: str
    """Path of the Tekken file."""
    mixture: Mixture

    def __call__(self) -> Callable[[int], Sequence]:
        tokenizer = load_tokenizer(Path(self.tokenizer))
        words = plain_words(real_ranks())
        encoder, drills = make_encoder(tokenizer), make_drills(tokenizer, words)
        source, mixture = ConversationSource(self.mixture, words), self.mixture
        drilled, read, opened = accumulate((mixture.drills, mixture.readings, mixture.openings))

        def draw(seed: int) -> Sequence:
            rng = random.Random(f"drill/{seed}")
            place = rng.random()
            if place < drilled:
                return drills.draw(rng)
            if place < read:
                return encoder.encode_reading(source.reading(seed))
            return encoder.encode(source.opening(seed) if place < opened else source.draw(seed))

        return draw


def run(config: NanoRun, folder: Path, warm: Path | None = None, typed: str = "") -> None:
    """Train nano in `folder`, going on where it stopped; the result is a native checkpoint in `folder`/nano.

    `warm`: a native checkpoint whose weights (and vocabulary) to begin with, without its optimiser's state.
    `typed`: how a person named it, for the history. Raises `ValueError` where `folder` holds another run, another
    process trains in it, or `warm` cannot be trained.
    """
    with alone(folder):
        _run(config, folder, warm, typed or (str(warm) if warm else ""))


def _run(config: NanoRun, folder: Path, warm: Path | None, typed: str) -> None:
    model = warmed(warm) if warm else fresh(config.seed)
    out = folder / "nano"
    tokenizer_path = out / "tekken.json"
    if not tokenizer_path.exists() or not (folder / checkpoint.NAME).exists():
        begin(out, warm)
    spec = ShardSpec(
        make=Draw(str(tokenizer_path), MIXTURE),
        seed=config.seed,
        size=config.shard,
        row_length=config.row_length,
        pad=load_tokenizer(tokenizer_path).id("<pad>"),
    )
    base = OptimizerConfig()
    scale = config.rate_scale
    optimizer = OptimizerConfig(
        matrix_rate=base.matrix_rate * scale,
        embedding_rate=base.embedding_rate * scale,
        norm_rate=base.norm_rate * scale,
    )
    sft = SftConfig(
        rows_per_batch=config.rows_per_batch,
        total_steps=max(1, config.tokens // (config.rows_per_batch * config.row_length)),
        optimizer=optimizer,
        compile=config.compile,
        device=config.device,
    )
    train(model, spec, sft, folder, identity(config, tokenizer_path, warm))
    save_native(model, out, torch.bfloat16)
    (out / "magister.json").write_text(json.dumps(CARD, indent=2) + "\n", encoding="utf-8")
    history.add(out, warm, folder, command(config, typed), config.device)


def begin(out: Path, warm: Path | None) -> None:
    """What a run without a checkpoint begins with: the vocabulary, and the history of the weights it takes."""
    out.mkdir(parents=True, exist_ok=True)
    text = (warm / "tekken.json").read_text("utf-8") if warm else json.dumps(vocabulary(), ensure_ascii=False)
    (out / "tekken.json").write_text(text, encoding="utf-8")
    history.begin(out, warm)


def identity(config: NanoRun, tokenizer: Path, warm: Path | None) -> Identity:
    """What the data and the first weights depend on; a checkpoint is gone on from only with all of it the same."""
    weights = sorted(warm.glob("*.safetensors")) if warm else []
    return {
        "seed": config.seed,
        "shard size": config.shard,
        "row_length": config.row_length,
        "mixture": hashlib.sha256(repr(MIXTURE).encode()).hexdigest()[:16],
        "phrasings": phrasebook.digest(),
        "tokenizer": _digest([tokenizer]),
        "warm weights": _digest(weights) if warm else "none",
    }


def command(config: NanoRun, warm: str) -> str:
    """The command that asks for this run: the recipe, the weights it begins with, every option that is not the default.

    The folder is left out; it changes nothing of the result.
    """
    plain = NanoRun()
    words = ["magister", "train", "sft", "nano"]
    if warm:
        words += ["--warm", warm]
    for flag, value, default in (
        ("--tokens", config.tokens, plain.tokens),
        ("--seed", config.seed, plain.seed),
        ("--rows", config.rows_per_batch, plain.rows_per_batch),
        ("--rate-scale", config.rate_scale, plain.rate_scale),
        ("--device", config.device, plain.device),
    ):
        if value != default:
            words += [flag, str(value)]
    if config.compile:
        words.append("--compile")
    return shlex.join(words)


def _digest(paths: list[Path]) -> str:
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]


def warmed(path: Path) -> Model:
    """The network to go on from. `ValueError` where its weights are no floats, or its tokenizer is not beside them."""
    if not (path / "tekken.json").is_file():
        raise ValueError(f"warm: {path} must be a folder with weights and their tekken.json")
    model = load(path, dtype=torch.float32)
    if any(native_products(model)):
        raise ValueError(f"warm: {path} is quantised; train the original and quantise what comes of it")
    return model


def fresh(seed: int) -> Model:
    """Nano with random weights."""
    model = build(ModelConfig(DECODER, None))
    init_weights(model, seed)
    return model


def vocabulary(conversations: int = 20_000, general: int = 1000) -> dict[str, object]:
    """The content of nano's Tekken file: the real tokens that this recipe's conversations use most."""
    real = make_tokenizer(TekkenPlan(vision=False))
    ranks = real_ranks()
    source = ConversationSource(MIXTURE, ())
    texts = (text for seed in range(conversations) for text in _texts(source.draw(seed)))
    used = ([real.token_bytes(token) for token in real.encode_text(text)] for text in texts)
    tokens = choose_tokens(used, ranks, VOCABULARY - SPECIAL_SLOTS, general)
    return small_tekken(tokens, SPECIAL_SLOTS)


def make_encoder(tokenizer: Tokenizer) -> Encoder:
    """The training encoder of a tokenizer, with the official instruction of its format."""
    official: list[int] = []
    *parts, last = detect_format(tokenizer).instruction
    for part in parts:
        ids = list(tokenizer.encode_text(part.text))
        official += ids if isinstance(part, Text) else [tokenizer.id("[THINK]"), *ids, tokenizer.id("[/THINK]")]
    return Encoder(
        text=lambda text: list(tokenizer.encode_text(text)),
        begin=tokenizer.id("<s>"),
        end=tokenizer.id("</s>"),
        user_open=tokenizer.id("[INST]"),
        user_close=tokenizer.id("[/INST]"),
        system_open=tokenizer.id("[SYSTEM_PROMPT]"),
        system_close=tokenizer.id("[/SYSTEM_PROMPT]"),
        think_open=tokenizer.id("[THINK]"),
        think_close=tokenizer.id("[/THINK]"),
        official=tuple(official),
        official_end=last.text,
    )


def make_drills(tokenizer: Tokenizer, words: tuple[str, ...]) -> Drills:
    """The drills of a tokenizer; `words` are spelled, the held-out ones among them dropped."""
    without = held_out_words()
    ordinary = drillable(tokenizer.vocabulary, tokenizer.is_special, without)
    return Drills(
        text=lambda text: list(tokenizer.encode_text(text)),
        begin=tokenizer.id("<s>"),
        ordinary=ordinary,
        words=tuple(word for word in words if word.casefold() not in without),
        pieces=letter_pieces(tokenizer.vocabulary, ordinary),
        without=without,
        allowed=frozenset(ordinary),
    )


def _texts(conversation: Conversation) -> Iterator[str]:
    for turn in conversation.turns:
        yield turn.user
        yield turn.thinking
        yield turn.reply
