"""Writes a checkpoint as others read it: the Hugging Face and the native layout in safetensors, and GGUF.

Tensors come one at a time under their native names, as every reader of this house gives them, and are written as they
come: memory is that of the largest. What is quantised already is never quantised again: into safetensors it goes as
plain numbers, into a GGUF exactly as it is, where a kind there holds the same numbers. Knows no tokenizers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor

from magister.kernels.quantized import Format, Quantized, dequantize
from magister.model import expected, gguf_blocks, gguf_files, names, permute, shards
from magister.model.config import ModelConfig
from magister.model.config_files import config_json, params_json
from magister.model.disk import flush
from magister.model.gguf_container import Value
from magister.model.gguf_container import Writer as GgufWriter
from magister.model.network import build, native_parameters
from magister.model.quantize import Rule, quantize


class Layout(StrEnum):
    """How a checkpoint is laid out."""

    HF = "hf"
    """`config.json` and `model.safetensors`."""
    NATIVE = "native"
    """`params.json` and `consolidated.safetensors`."""
    GGUF = "gguf"
    """One file, the decoder alone."""


class Type(StrEnum):
    """In what numbers."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"
    """GGUF only: whole numbers of 8 bits in groups of 32."""
    Q4_0 = "q4_0"
    """GGUF only: 4 bits for the layers' matrices, Q8_0 for embeddings and output head."""


FLOATS: Mapping[Type, torch.dtype] = {Type.F32: torch.float32, Type.F16: torch.float16, Type.BF16: torch.bfloat16}

Tick = Callable[[], None]
"""Called after every tensor."""

_EDGES = ("tok_embeddings.weight", "output.weight")
_CHUNK = 1 << 22
"""Numbers restored at a time: what is needed on the way stays small beside a large matrix."""


def bytes_needed(config: ModelConfig, layout: Layout, asked: Type | None, source: int) -> int:
    """About what the tensors will take; `source` is what they take now, the answer where they are written as they are
    into a GGUF. Plain numbers without an `asked` type are taken for bfloat16 or the source's own, whichever is more."""
    total = 0
    for name, parameter in native_parameters(build(config)):
        if layout is Layout.GGUF and name not in _decoder_names(config):
            continue
        bits = {Type.F32: 32, Type.Q8_0: 8.5, Type.Q4_0: 8.5 if name in _EDGES else 4.5}.get(asked or Type.BF16, 16)
        total += int(parameter.numel() * (32 if parameter.dim() == 1 else bits)) // 8
    if asked is None:
        return source if layout is Layout.GGUF else max(source, total)
    return total


def write_folder(
    folder: Path,
    layout: Layout,
    config: ModelConfig,
    tensors: Iterable[tuple[str, Tensor | Quantized]],
    asked: Type | None,
    tick: Tick,
) -> Counter[str]:
    """Writes description and weights into the folder, which must be there. Returns how many tensors are in which type.

    Without `asked`, floats stay in their type and quantised matrices become bfloat16. ValueError for a type that
    safetensors have not, and a vision block that `config.json` cannot describe.
    """
    if asked is not None and asked not in FLOATS:
        raise ValueError(f"type: {asked} is for GGUF; for {layout} it is one of {', '.join(FLOATS)}")
    hf, multimodal = layout is Layout.HF, config.vision is not None
    description = {} if not hf else config_json(config, "bfloat16")
    spelled = {
        name: (names.to_hf(name, multimodal) if hf else name, tuple(parameter.shape))
        for name, parameter in native_parameters(build(config))
    }
    counts: Counter[str] = Counter()
    with shards.Writer(folder / f"{'model' if hf else 'consolidated'}.safetensors", dict(spelled.values())) as writer:
        for name, value in _checked(tensors, config):
            dense = _dense(value, FLOATS[asked] if asked else None)
            if hf and names.is_query_or_key(name):
                dense = permute.native_to_hf(dense, names.head_dim(name, config))
            if dense.dim() > 1:
                counts[expected.FLOATS[dense.dtype]] += 1
            writer.add(spelled[name][0], dense)
            tick()
        writer.finish()
    if hf:
        _write_json(folder / "config.json", {**description, "torch_dtype": counts.most_common(1)[0][0]})
    else:
        _write_json(folder / "params.json", params_json(config))
    return counts


def write_gguf(
    path: Path,
    config: ModelConfig,
    tensors: Iterable[tuple[str, Tensor | Quantized]],
    metadata: Mapping[str, Value],
    asked: Type | None,
    tick: Tick,
) -> Counter[str]:
    """Writes a GGUF of the decoder; `metadata` is what the file says. Returns how many matrices are in which kind.

    Without `asked` everything stays as it is. Norms are float32, as llama.cpp wants them. ValueError for a quantised
    matrix that no kind holds exactly, for one where `asked` would quantise it again, and for rows that are no multiple
    of 32 where blocks are.
    """
    names_here = _decoder_names(config)
    shapes = {
        gguf_files.to_gguf(name): tuple(parameter.shape)
        for name, parameter in native_parameters(build(config))
        if name in names_here
    }
    counts: Counter[str] = Counter()
    with GgufWriter(path, metadata, shapes) as writer:
        for name, value in _checked(tensors, config):
            if name in names_here:
                kind, kept = _kept(name, value, asked)
                if len(shapes[gguf_files.to_gguf(name)]) > 1:
                    counts[kind] += 1
                writer.add(gguf_files.to_gguf(name), kind, gguf_blocks.pack(kind, kept))
            tick()
        writer.finish()
    return counts


def _checked(
    tensors: Iterable[tuple[str, Tensor | Quantized]], config: ModelConfig
) -> Iterator[tuple[str, Tensor | Quantized]]:
    """The same tensors; ValueError for one that the network has not, or not in this shape, and for missing ones."""
    missing = {name: tuple(parameter.shape) for name, parameter in native_parameters(build(config))}
    for name, value in tensors:
        shape = missing.pop(name, None)
        if shape is None:
            raise ValueError(f"{name}: the network has no such tensor, or it came twice")
        expected.check(name, value, shape)
        yield name, value
    if missing:
        raise ValueError(expected.listed("tensors missing", missing))


def _kept(name: str, value: Tensor | Quantized, asked: Type | None) -> tuple[str, Tensor | Quantized]:
    """The kind in which a tensor goes into a GGUF, and the tensor ready for it."""
    if asked is not None and asked in FLOATS and isinstance(value, Quantized):
        return str(asked).upper(), _dense(value, FLOATS[asked])
    if isinstance(value, Quantized):
        if asked is not None:
            raise ValueError(
                f"{name} is quantised already and is not quantised twice: leave out --type to keep it, or --type bf16"
            )
        kind = gguf_blocks.fits(value)
        if kind is None:
            what = f"{value.format} in groups of {value.group}{' with mins' if value.mins is not None else ''}"
            raise ValueError(f"{name} is {what}, which no GGUF kind holds exactly: --type bf16 writes plain numbers")
        return kind, value
    if value.dim() == 1:
        return "F32", value
    if asked is None:
        return {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[value.dtype], value
    if asked in FLOATS:
        return str(asked).upper(), value
    if value.shape[1] % 32:
        raise ValueError(
            f"{name} has rows of {value.shape[1]}, {asked} asks for a multiple of 32: --type bf16 has none"
        )
    wide = asked is Type.Q8_0 or name in _EDGES
    rule = Rule(Format.INT8 if wide else Format.INT4, 32, False)
    try:
        return "Q8_0" if wide else "Q4_0", quantize(value, rule, torch.get_num_threads())
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _dense(value: Tensor | Quantized, dtype: torch.dtype | None) -> Tensor:
    """Plain numbers in `dtype`; None: as they are, and bfloat16 for quantised ones."""
    if isinstance(value, Tensor):
        return value if dtype is None else value.to(dtype)
    dense = torch.empty(value.outputs, value.inputs, dtype=dtype or torch.bfloat16)
    count = max(1, _CHUNK // value.inputs)
    for first in range(0, value.outputs, count):
        rows = slice(first, first + count)
        mins = None if value.mins is None else value.mins[rows]
        part = Quantized(value.format, value.values[rows], value.scales[rows], value.group, mins)
        dense[rows] = dequantize(part, dense.dtype)
    return dense


def _decoder_names(config: ModelConfig) -> set[str]:
    return {name for name, _ in build(config).decoder.named_parameters()}


def _write_json(path: Path, what: Mapping[str, object]) -> None:
    path.write_text(json.dumps(what, indent=2) + "\n", encoding="utf-8")
    flush(path)
