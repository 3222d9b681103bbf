"""Writes GGUF files with the `gguf` package: a native checkpoint in bfloat16, or a random network in Q4_0.

Reads one JSON object: `path` to write, `params` as in a native params.json, and `folder` of the checkpoint, or null for
a random network. Random files have the kinds that llama.cpp's own `quantize` would choose for Q4_0: embeddings and
layers in Q4_0, the output head in Q6_K. There is no vocabulary in them: tokens go in and come out as numbers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter
from numpy.typing import NDArray

LAYER = {
    "attention_norm": "attn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "ffn_norm": "ffn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
}
TOP = {"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output"}
NIBBLE_DEVIATION, SIX_BIT_DEVIATION = 4.6, 18.5 * 74.0
"""Standard deviations of even draws from -8..7, and of the products of draws from -32..31 and from -128..127."""

Bytes = NDArray[np.uint8]


class Entry(NamedTuple):
    """One tensor of the file."""

    name: str
    shape: tuple[int, int] | tuple[int]
    """Rows first."""
    kind: Kind
    file: tuple[Path, int] | None
    """Where its bfloat16 numbers begin in a safetensors file."""


def entries(params: dict[str, Any], folder: Path | None) -> Iterator[Entry]:
    """The tensors of the decoder in the order they are written."""
    found = {} if folder is None else _safetensors(folder / "consolidated.safetensors")
    for native, shape in _shapes(params):
        kind = Kind.F32 if len(shape) == 1 else Kind.BF16
        if folder is None and len(shape) == 2:
            kind = Kind.Q6_K if native == "output" else Kind.Q4_0
        yield Entry(_name(native), shape, kind, found.get(f"{native}.weight"))


def write(path: Path, params: dict[str, Any], folder: Path | None) -> None:
    """The whole file, under another name until it is whole."""
    new = path.with_suffix(".tmp")
    writer = GGUFWriter(new, "llama")
    writer.add_name("magister-bench")
    writer.add_block_count(params["n_layers"])
    writer.add_context_length(params["max_position_embeddings"])
    writer.add_embedding_length(params["dim"])
    writer.add_feed_forward_length(params["hidden_dim"])
    writer.add_head_count(params["n_heads"])
    writer.add_head_count_kv(params["n_kv_heads"])
    writer.add_key_length(params["head_dim"])
    writer.add_value_length(params["head_dim"])
    writer.add_layer_norm_rms_eps(params["norm_eps"])
    writer.add_rope_dimension_count(params["head_dim"])
    writer.add_rope_freq_base(params["rope_theta"])
    writer.add_vocab_size(params["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    listed = list(entries(params, folder))
    for entry in listed:
        size = int(np.prod(entry.shape))
        bytes_ = {Kind.F32: size * 4, Kind.BF16: size * 2, Kind.Q4_0: size // 32 * 18, Kind.Q6_K: size // 256 * 210}
        # The package works the shape in numbers out of the shape in bytes, where numbers are kept in blocks.
        row = (*entry.shape[:-1], bytes_[entry.kind] // (int(np.prod(entry.shape[:-1])) or 1))
        shape = entry.shape if entry.kind is Kind.F32 else row
        dtype = np.dtype(np.float32 if entry.kind is Kind.F32 else np.uint8)
        writer.add_tensor_info(entry.name, shape, dtype, bytes_[entry.kind], raw_dtype=entry.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(0)
    for entry in listed:
        writer.write_tensor_data(_numbers(entry, random))
    writer.close()
    new.replace(path)


def _numbers(entry: Entry, random: np.random.Generator) -> NDArray[Any]:
    size = int(np.prod(entry.shape))
    if entry.file is not None:
        path, start = entry.file
        bits = np.fromfile(path, np.uint16, size, offset=start)
        if entry.kind is Kind.F32:
            return (bits.astype(np.uint32) << 16).view(np.float32)
        return bits.view(np.uint8)
    if entry.kind is Kind.F32:
        return np.ones(size, np.float32)
    deviation = entry.shape[-1] ** -0.5
    if entry.kind is Kind.Q4_0:
        blocks = _bytes(random, size // 32, 18)
        blocks[:, :2] = _half(deviation / NIBBLE_DEVIATION)
        return blocks.reshape(-1)
    blocks = _bytes(random, size // 256, 210)
    blocks[:, -2:] = _half(deviation / SIX_BIT_DEVIATION)
    return blocks.reshape(-1)


def _bytes(random: np.random.Generator, rows: int, row: int) -> Bytes:
    return np.frombuffer(bytearray(random.bytes(rows * row)), np.uint8).reshape(rows, row)


def _half(value: float) -> Bytes:
    return np.array([value], np.float16).view(np.uint8)


def _shapes(params: dict[str, Any]) -> Iterator[tuple[str, tuple[int, int] | tuple[int]]]:
    dim, hidden, vocab = params["dim"], params["hidden_dim"], params["vocab_size"]
    queries, keys = params["n_heads"] * params["head_dim"], params["n_kv_heads"] * params["head_dim"]
    yield "tok_embeddings", (vocab, dim)
    for layer in range(params["n_layers"]):
        at = f"layers.{layer}."
        yield at + "attention_norm", (dim,)
        yield at + "attention.wq", (queries, dim)
        yield at + "attention.wk", (keys, dim)
        yield at + "attention.wv", (keys, dim)
        yield at + "attention.wo", (dim, queries)
        yield at + "ffn_norm", (dim,)
        yield at + "feed_forward.w1", (hidden, dim)
        yield at + "feed_forward.w2", (dim, hidden)
        yield at + "feed_forward.w3", (hidden, dim)
    yield "norm", (dim,)
    yield "output", (vocab, dim)


def _name(native: str) -> str:
    if native in TOP:
        return f"{TOP[native]}.weight"
    _, layer, part = native.split(".", 2)
    return f"blk.{layer}.{LAYER[part]}.weight"


def _safetensors(path: Path) -> dict[str, tuple[Path, int]]:
    """Where each tensor's numbers begin. ValueError unless all are bfloat16."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    if others := {entry["dtype"] for entry in header.values()} - {"BF16"}:
        raise ValueError(f"{path} holds {', '.join(sorted(others))}, must be BF16")
    return {name: (path, 8 + length + entry["data_offsets"][0]) for name, entry in header.items()}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    write(Path(asked["path"]), asked["params"], Path(asked["folder"]) if asked["folder"] else None)
