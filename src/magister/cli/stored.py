"""What the weights of a checkpoint will take in memory, found out from the headers of its files: no weight is read.

Floats take what they are stored in or cast to; quantised matrices what they become (see `gguf_blocks` for GGUF).
Embeddings are looked up and never multiplied with, unless they are the output head too. Sizes are bytes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from magister.cli.fit import Precision
from magister.model import gguf_container, quantized_files
from magister.model.config import ModelConfig

_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_KINDS = {"I32": "packed integers", "I8": "int8", "F8_E4M3": "fp8"}
_SCALES = (".scales", ".mins", "_scale", "_scale_inv", "qscale_weight", "zero_point")
_PACKED = 8
"""Numbers of 4 bits in a word."""
_IMAGES = ("vision_", "patch_merger", "multi_modal_projector", "pre_mm_projector")
_EMBEDDINGS = ("tok_embeddings", "embed_tokens", "token_embd")
_GGUF = {"Q4_0": 18 / 32, "Q4_1": 20 / 32, "Q5_0": 34 / 32, "Q8_0": 34 / 32, "Q4_K": 192 / 256, "Q6_K": 320 / 256}
"""Bytes a number of what a kind of block becomes."""

_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf")


class Part(NamedTuple):
    """One stored tensor: a weight, or the values or scales of one."""

    name: str
    numbers: int
    """That it stands for; none for scales."""
    bytes: int
    """On disk, or what it becomes: a block of GGUF, scales that are spread."""
    dtype: torch.dtype | None
    """Of plain floats; None for what is quantised."""
    kind: str
    """For people: how its numbers are held."""


def stored(path: Path, config: ModelConfig, dtype: torch.dtype | None, *, compiled: bool) -> Precision:
    """The checkpoint at `path` in memory, its floats cast to `dtype` (None: as stored); `compiled`: for the compiled
    kernels, which know no float16 and hold a tied head beside the embeddings.

    ValueError for damaged headers.
    """
    held = read = 0
    kinds: Counter[str] = Counter()
    for part in _parts(path):
        size, kind = part.bytes, part.kind
        if part.dtype is not None:
            kept = dtype or part.dtype
            if compiled and kept is torch.float16 and not _is(part.name, _IMAGES):
                kept = torch.float32
            size, kind = part.numbers * kept.itemsize, _NAMES[kept]
        kinds[kind] += size
        if _is(part.name, _EMBEDDINGS):
            # Rows that are looked up are restored.
            rows = size if part.dtype is not None else part.numbers * (dtype or torch.bfloat16).itemsize
            tied = config.decoder.tied_embeddings
            held += rows + (size if tied and compiled else 0)
            read += size if tied else 0
        elif _is(part.name, _IMAGES):
            # Beside the compiled decoder the image network is plain torch's, restored.
            restored = compiled and part.dtype is None
            held += part.numbers * (dtype or torch.bfloat16).itemsize if restored else size
        else:
            held += size
            read += size
    return Precision(_name(path, kinds), held, read)


def looked_up(path: Path) -> torch.dtype:
    """What the embeddings of the checkpoint at `path` are loaded as where nobody asks for a type, and with them what
    goes from layer to layer in torch: as stored, or restored to bfloat16. ValueError for damaged headers."""
    floats = (part.dtype for part in _parts(path) if _is(part.name, _EMBEDDINGS) and part.dtype is not None)
    return next(floats, torch.bfloat16)


def _is(name: str, stems: tuple[str, ...]) -> bool:
    return any(stem in name for stem in stems)


def _name(path: Path, kinds: Counter[str]) -> str:
    """What most bytes are."""
    if quantized_files.is_quantized(path):
        return f"int{quantized_files.read_index(path)['plan']['bits']}"
    return kinds.most_common(1)[0][0] if kinds else "nothing"


def _parts(path: Path) -> Iterator[Part]:
    """Every tensor of the checkpoint that a loader would read."""
    for file in _split(path) if path.is_file() else _files(path):
        yield from _gguf(file) if file.suffix == gguf_container.SUFFIX else _safetensors(file)


def _files(folder: Path) -> list[Path]:
    """As `sources` picks them: quantised, native, Hugging Face, GGUF."""
    for described, pattern in (
        (quantized_files.INDEX, "quantized-*.safetensors"),
        ("params.json", "consolidated*.safetensors"),
        ("config.json", "model*.safetensors"),
    ):
        if (folder / described).is_file() and (found := sorted(folder.glob(pattern))):
            return found
    return [file for file in sorted(folder.glob(f"*{gguf_container.SUFFIX}")) if "mmproj" not in file.name]


def _split(path: Path) -> list[Path]:
    """All parts of a file that is one of several."""
    if (part := _PART.fullmatch(path.name)) is None:
        return [path]
    same = re.compile(rf"{re.escape(part[1])}-\d{{5}}-of-{part[2]}\.gguf")
    return sorted(file for file in path.parent.iterdir() if same.fullmatch(file.name))


def _safetensors(path: Path) -> Iterator[Part]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError(f"{path} is not a whole safetensors file")
        header = json.loads(file.read(length))
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = entry["data_offsets"]
            scales = name.endswith(_SCALES)
            plain = None if scales else _FLOATS.get(entry["dtype"])
            kind = _KINDS.get(entry["dtype"], entry["dtype"])
            numbers = 0 if scales else _product(entry["shape"]) * (_PACKED if name.endswith(".weight_packed") else 1)
            spread = _spread(name, header)
            yield Part(name, numbers, stop - start if spread is None else spread, plain, kind)


def _spread(name: str, header: dict[str, Any]) -> int | None:
    """Bytes that a scale or zero point becomes, read by `model.compressed_tensors`; None for every other tensor.

    Each row gets its own scales: whole numbers one for 128 inputs at least, float32 and a minimum beside each where
    there are zero points.
    """
    stem, _, part = name.rpartition(".")
    packed = header.get(f"{stem}.weight_packed")
    matrix = packed or header.get(f"{stem}.weight")
    if matrix is None or len(matrix["shape"]) != 2:
        return None
    if part == "weight_zero_point":
        return 0
    kept = _FLOATS.get(header[name]["dtype"])
    if kept is None or part not in ("weight_scale", "weight_scale_inv", "qscale_weight"):
        return None
    outputs, columns = matrix["shape"]
    shape = header[name]["shape"]
    groups = shape[1] if len(shape) == 2 else 1
    if matrix["dtype"] != "F8_E4M3":
        # With 8 bits a word holds four: then a channel's scales are counted twice, which is very little.
        groups = max(groups, columns * (_PACKED if packed else 1) // 128)
    minima = f"{stem}.weight_zero_point" in header
    return int(outputs * groups * (8 if minima else kept.itemsize))


def _gguf(path: Path) -> Iterator[Part]:
    for record in gguf_container.read(path).tensors.values():
        numbers = _product(record.shape)
        if record.kind in _FLOATS:
            dtype = _FLOATS[record.kind]
            yield Part(record.name, numbers, numbers * dtype.itemsize, dtype, _NAMES[dtype])
        else:
            yield Part(record.name, numbers, int(numbers * _GGUF.get(record.kind, 2.0)), None, record.kind)


def _product(shape: tuple[int, ...] | list[int]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total
