"""GGUF files as checkpoints: llama.cpp's names and keys on one side, the network's on the other.

Read are files of the architectures "llama" and "mistral3", whole or split, text only: llama.cpp keeps an image encoder
in a file of its own (mmproj), which is left alone. Queries and keys lie in a GGUF as they do in native checkpoints,
rotary pairs interleaved, so no row moves. The tokenizer inside is not used, its size is compared. Source:
llama.cpp:src/llama-model.cpp and gguf:constants.py. What the blocks mean is `gguf_blocks`'.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from magister.kernels.quantized import Quantized
from magister.model import gguf_blocks
from magister.model.config import DecoderConfig, ModelConfig
from magister.model.expected import listed
from magister.model.gguf_container import SUFFIX, Container, Counted, Record, Value, read, read_tensor
from magister.model.network import build, native_parameters

ARCHITECTURES = ("llama", "mistral3")

_LAYER = {
    "attention_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
}
_TOP = {"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output"}
_NATIVE_LAYER = re.compile(r"layers\.(\d+)\.(.+)")
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_USED = (
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.original_context_length",
    "vocab_size",
)
_REFUSED = ("attention.sliding_window", "attention.temperature_scale", "expert_count", "rope.scaling.attn_factor")


def to_gguf(native: str) -> str:
    """The name in a GGUF of a native tensor of the decoder. KeyError for any other, those of the image network too."""
    stem, _, kind = native.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    layer = _NATIVE_LAYER.fullmatch(stem)
    if layer is None:
        raise KeyError(native)
    return f"blk.{layer[1]}.{_LAYER[layer[2]]}.{kind}"


def detect(path: Path) -> bool:
    """Whether `path` is a GGUF file, or a folder that holds one."""
    return path.suffix == SUFFIX if path.is_file() else path.is_dir() and bool(_candidates(path))


def read_config(path: Path) -> ModelConfig:
    """The shape of the model in the GGUF file (or folder with one) `path`.

    ValueError, naming the file and the key, for what is no whole GGUF, another architecture, missing or impossible
    values and keys that change the arithmetic. Warns once of all keys of the architecture that it does not know.
    """
    return _config(_open(path), path)


def stream(path: Path) -> Iterator[tuple[str, Tensor | Quantized]]:
    """Every tensor of the model under its native name, one at a time, exactly the file's numbers: nothing is rounded.

    ValueError as `read_config`, and, before anything is read, for missing and unexpected tensors, wrong shapes and
    kinds that are not read, each named.
    """
    opened = _open(path)
    shapes = {
        to_gguf(name): (name, tuple(parameter.shape))
        for name, parameter in native_parameters(build(_config(opened, path)))
    }
    missing, unexpected = sorted(shapes.keys() - opened.tensors.keys()), sorted(opened.tensors.keys() - shapes.keys())
    if missing or unexpected:
        raise ValueError(f"{path}: {listed('missing', missing)}; {listed('unexpected', unexpected)}")
    for record in opened.tensors.values():
        _check(record, shapes[record.name][1])
    for record in opened.tensors.values():
        yield shapes[record.name][0], gguf_blocks.unpack(record.kind, read_tensor(record), record.shape)


def metadata(config: ModelConfig, name: str) -> dict[str, Value]:
    """What a GGUF says of the decoder of `config`, tokenizer aside; `name` is for people."""
    d = config.decoder
    return {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": name,
        "llama.block_count": d.n_layers,
        "llama.context_length": d.max_position_embeddings,
        "llama.embedding_length": d.dim,
        "llama.feed_forward_length": d.hidden_dim,
        "llama.attention.head_count": d.n_heads,
        "llama.attention.head_count_kv": d.n_kv_heads,
        "llama.attention.key_length": d.head_dim,
        "llama.attention.value_length": d.head_dim,
        "llama.attention.layer_norm_rms_epsilon": float(d.norm_eps),
        "llama.rope.dimension_count": d.head_dim,
        "llama.rope.freq_base": float(d.rope_theta),
        "llama.vocab_size": d.vocab_size,
        "general.quantization_version": 2,
    }


def _candidates(folder: Path) -> list[Path]:
    """The GGUF files of a folder that are no image encoder; of a split one, its first part."""
    found = [path for path in sorted(folder.glob(f"*{SUFFIX}")) if "mmproj" not in path.name]
    return [path for path in found if (part := _PART.fullmatch(path.name)) is None or int(part[2]) == 1]


def _open(path: Path) -> Container:
    """The header of a file or of all parts of a split one, as one."""
    if path.is_dir():
        found = _candidates(path)
        if len(found) != 1:
            raise ValueError(f"{path} holds {listed('GGUF files', [file.name for file in found])}; name one of them")
        path = found[0]
    part = _PART.fullmatch(path.name)
    if part is None:
        return read(path)
    parts = [path.with_name(f"{part[1]}-{n:05}-of-{part[3]}{SUFFIX}") for n in range(1, int(part[3]) + 1)]
    if absent := [file.name for file in parts if not file.is_file()]:
        raise ValueError(f"{path.parent}: {listed('missing parts', absent)}")
    opened = [read(file) for file in parts]
    tensors: dict[str, Record] = {}
    for one in opened:
        for name, record in one.tensors.items():
            if name in tensors:
                raise ValueError(f"{name} is in {tensors[name].path.name} and in {record.path.name}")
            tensors[name] = record
    return Container(opened[0].metadata, tensors)


def _config(opened: Container, path: Path) -> ModelConfig:
    values = opened.metadata
    architecture = values.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ValueError(f"{path}: general.architecture is {architecture!r}; {' and '.join(ARCHITECTURES)} are read")
    keys = _Keys(values, f"{architecture}.", path)
    keys.refuse()
    embedding = opened.tensors.get("token_embd.weight")
    if embedding is None:
        raise ValueError(f"{path}: token_embd.weight is missing")
    if len(embedding.shape) != 2:
        raise ValueError(f"{path}: token_embd.weight has shape {list(embedding.shape)}, must have two dimensions")
    tokens = values.get("tokenizer.ggml.tokens")
    if isinstance(tokens, Counted) and tokens.length != embedding.shape[0]:
        raise ValueError(
            f"{path}: the tokenizer has {tokens.length} tokens, token_embd.weight {embedding.shape[0]} rows"
        )
    dim, n_heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    if n_heads < 1:
        raise ValueError(f"{path}: {keys.prefix}attention.head_count is {n_heads}, must be greater than 0")
    head_dim = keys.integer("attention.key_length", dim // n_heads)
    for other in ("attention.value_length", "rope.dimension_count"):
        if keys.integer(other, head_dim) != head_dim:
            raise ValueError(
                f"{path}: {keys.prefix}{other} is {keys.integer(other)}, must be the key length, {head_dim}"
            )
    decoder = DecoderConfig(
        dim=dim,
        n_layers=keys.integer("block_count"),
        head_dim=head_dim,
        hidden_dim=keys.integer("feed_forward_length"),
        n_heads=n_heads,
        n_kv_heads=keys.integer("attention.head_count_kv", n_heads),
        norm_eps=keys.number("attention.layer_norm_rms_epsilon"),
        vocab_size=embedding.shape[0],
        rope_theta=keys.number("rope.freq_base", 10000.0),
        max_position_embeddings=keys.integer("context_length"),
        tied_embeddings="output.weight" not in opened.tensors,
    )
    keys.warn_unknown()
    return ModelConfig(decoder)


class _Keys:
    """The keys of one architecture."""

    def __init__(self, values: Mapping[str, Any], prefix: str, path: Path) -> None:
        self.values = values
        self.prefix = prefix
        self.path = path

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._value(key, default)
        if isinstance(value, list) and len(set(value)) == 1:
            # One number a layer: this network has the same in all.
            value = value[0]
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{self.path}: {self.prefix}{key} is {value!r}, must be a whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{self.path}: {self.prefix}{key} is {value!r}, must be a number")
        return _meant(float(value))

    def refuse(self) -> None:
        """Keys that would change the arithmetic."""
        scaling = self.values.get(f"{self.prefix}rope.scaling.type")
        if scaling not in (None, "none"):
            raise ValueError(f"{self.path}: {self.prefix}rope.scaling.type is {scaling!r}; this network computes none")
        # A factor without a type is linear scaling to llama.cpp, under its older name too; 0 and 1 scale nothing.
        for key in ("rope.scaling.factor", "rope.scale_linear"):
            factor = self.values.get(f"{self.prefix}{key}", 0)
            if scaling is None and factor not in (0, 1):
                raise ValueError(
                    f"{self.path}: {self.prefix}{key} is {factor!r}, must be 0 or 1: this network scales no positions"
                )
        for key in _REFUSED:
            if self.values.get(f"{self.prefix}{key}"):
                raise ValueError(
                    f"{self.path}: {self.prefix}{key} is {self.values[f'{self.prefix}{key}']!r}; "
                    "this network does not compute it"
                )

    def warn_unknown(self) -> None:
        own = (key.removeprefix(self.prefix) for key in self.values if key.startswith(self.prefix))
        if unknown := [f"{self.prefix}{key}" for key in own if key not in _USED and key not in _REFUSED]:
            warnings.warn(f"{self.path}: keys not known and not used: {', '.join(unknown)}", UserWarning, stacklevel=4)

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(f"{self.prefix}{key}", default)
        if value is None:
            raise ValueError(f"{self.path}: {self.prefix}{key} is missing")
        return value


def _meant(stored: float) -> float:
    """The shortest decimal that float32 rounds to `stored`: 1e-5, not 9.99999974738e-6."""
    for digits in range(1, 9):
        decimal = float(f"{stored:.{digits}g}")
        if struct.unpack("<f", struct.pack("<f", decimal))[0] == stored:
            return decimal
    return stored


def _check(record: Record, shape: tuple[int, ...]) -> None:
    if record.shape != shape:
        raise ValueError(
            f"{record.path}: {record.name} has shape {list(record.shape)}, the description asks for {list(shape)}"
        )
    if record.kind not in gguf_blocks.READABLE:
        known = ", ".join(gguf_blocks.READABLE)
        raise ValueError(f"{record.path}: {record.name} is of kind {record.kind}, which is not read; {known} are")
