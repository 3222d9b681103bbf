"""Reading every tensor of a checkpoint once: is it all there and finite, does it agree with a second copy.

Tensors come in groups that are computed together: a decoder layer, the image network, embeddings and head. Nothing is
held longer than its group. A second copy is the folder's other layout, or the original that it was quantised from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from magister.cli.verify.check import Difference
from magister.kernels.quantized import Format, Quantized, dequantize
from magister.model import compressed_tensors, names, permute, quantized_files, shards, sources
from magister.model.config import ModelConfig
from magister.model.expected import listed
from magister.model.network import build, native_parameters

ENDS, VISION = "embeddings and head", "image network"

ROUNDING = {Format.INT4: 0.35, Format.INT8: 0.05, Format.FP8: 0.1}
"""How far a row may be off its original, of itself: between what rounding costs and what two exchanged rows cost."""

PIECE = 1 << 24
"""Numbers restored at once, where not all of a tensor is needed."""

_LAYER = re.compile(r"layers\.(\d+)\.")

Group = dict[str, Tensor | Quantized]
Second = Callable[[str], Tensor]
"""Native name -> the same tensor, rows in native order, from the second copy. ValueError where that lacks it."""


def group_of(name: str) -> str:
    """The group that a tensor with this native name belongs to."""
    if match := _LAYER.match(name):
        return f"layer {match[1]}"
    return ENDS if name.split(".")[0] in ("tok_embeddings", "norm", "output") else VISION


def shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """The shape of every tensor by native name."""
    return {name: parameter.shape for name, parameter in native_parameters(build(config))}


def grouped(
    stream: Iterable[tuple[str, Tensor | Quantized]], wanted: Mapping[str, torch.Size], faults: list[str]
) -> Iterator[tuple[str, Group]]:
    """Groups as they become whole. What is missing, unexpected or of another shape is added to `faults` in words."""
    sizes: dict[str, int] = {}
    for name in wanted:
        sizes[group_of(name)] = sizes.get(group_of(name), 0) + 1
    pending: dict[str, Group] = {}
    missing, unexpected = dict.fromkeys(wanted), []
    for name, tensor in stream:
        if name not in missing:
            unexpected.append(name)
            continue
        del missing[name]
        found = (tensor.outputs, tensor.inputs) if isinstance(tensor, Quantized) else tuple(tensor.shape)
        if found != tuple(wanted[name]):
            faults.append(f"{name} has shape {list(found)}, the description asks for {list(wanted[name])}")
            continue
        group = group_of(name)
        pending.setdefault(group, {})[name] = tensor
        if len(pending[group]) == sizes[group]:
            yield group, pending.pop(group)
    faults += [listed(what, some) for what, some in (("missing", [*missing]), ("unexpected", unexpected)) if some]


def rows(value: Tensor | Quantized, some: slice) -> Tensor:
    """Some rows of a tensor, in float32."""
    if isinstance(value, Tensor):
        return value[some].float()
    mins = None if value.mins is None else value.mins[some]
    return dequantize(Quantized(value.format, value.values[some], value.scales[some], value.group, mins))


def plain(group: Group) -> dict[str, Tensor]:
    """A group's numbers in float32."""
    return {name: rows(value, slice(None)) for name, value in group.items()}


def pieces(value: Tensor | Quantized) -> Iterator[slice]:
    """All rows of a tensor, some at a time, so that little is restored at once."""
    count = value.outputs if isinstance(value, Quantized) else len(value)
    width = value.inputs if isinstance(value, Quantized) else max(1, value.numel() // max(1, count))
    step = max(1, PIECE // width)
    yield from (slice(start, start + step) for start in range(0, count, step))


def not_finite(group: Group) -> list[str]:
    """Names of the tensors that hold something that is no number, or nothing but zeros."""
    found = []
    for name, value in group.items():
        ends = torch.stack([torch.stack(torch.aminmax(rows(value, some))) for some in pieces(value)])
        if not bool(ends.isfinite().all()):
            found.append(f"{name} has numbers that are not finite")
        elif not bool(ends.any()):
            found.append(f"{name} is all zero")
    return found


def second_layout(path: Path, config: ModelConfig) -> Second | None:
    """The Hugging Face half of a folder that is read as native; None where there are not both, in floats."""
    floats = path.is_dir() and sources.read_config(path) == config and not _is_quantized(path)
    if not (floats and any(path.glob("consolidated*.safetensors")) and any(path.glob("model*.safetensors"))):
        return None
    return from_hf(path, config)


def from_hf(path: Path, config: ModelConfig) -> Second:
    """Tensors of the Hugging Face files in a folder, by native name and in native order."""
    files = shards.contents(path, "model")
    stored = {names.plain_hf(name): name for name in files}

    def read(name: str) -> Tensor:
        found = stored.get(names.plain_hf(names.to_hf(name, True)))
        if found is None:
            raise ValueError(f"{path}: the Hugging Face files have no {name}")
        tensor = shards.read(files, found)
        return permute.hf_to_native(tensor, head_dim(name, config)) if names.is_query_or_key(name) else tensor

    return read


def original(path: Path, config: ModelConfig) -> Second:
    """Tensors of an unquantised folder, by native name. ValueError for one that has another shape or another layout."""
    if sources.read_config(path) != config:
        raise ValueError(f"against: {path} describes another network than the one to verify")
    if path.is_file() or _is_quantized(path):
        raise ValueError(f"against: {path} must be a folder of floats in native or Hugging Face layout")
    if not ((path / "params.json").is_file() and any(path.glob("consolidated*.safetensors"))):
        return from_hf(path, config)
    files = shards.contents(path, "consolidated")

    def read(name: str) -> Tensor:
        if name not in files:
            raise ValueError(f"against: {path} has no {name}")
        return shards.read(files, name)

    return read


def _is_quantized(folder: Path) -> bool:
    """Whether stored numbers stand for others, here or in what others quantised."""
    return quantized_files.is_quantized(folder) or compressed_tensors.detect(folder)


def compare(group: Group, second: Second) -> list[Difference]:
    """For each tensor how far the row that is furthest off is from its row in the second copy. A vector is one row."""
    found = []
    for name, value in group.items():
        # bfloat16 keeps eight bits: half a step of it is the most that an unquantised number may have been rounded.
        bound = ROUNDING[value.format] if isinstance(value, Quantized) else 2.0**-8
        wanted, off = second(name), []
        for some in pieces(value):
            mine, theirs = (x.reshape(len(x), -1) for x in (rows(value, some), rows(wanted, some)))
            if wanted.dim() == 1:
                mine, theirs = mine.t(), theirs.t()
            off.append((mine - theirs).norm(dim=1) / theirs.norm(dim=1).clamp_min(1e-30))
        all_off = torch.cat(off).nan_to_num(nan=torch.inf)
        worst = int(all_off.argmax())
        found.append(Difference(name, float(all_off[worst]), bound, f"row {worst}"))
    return found


def head_dim(native: str, config: ModelConfig) -> int:
    """Width of a head in the network that a tensor belongs to."""
    if group_of(native) == VISION:
        assert config.vision is not None
        return config.vision.head_dim
    return config.decoder.head_dim
