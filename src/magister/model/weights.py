"""Checkpoints: folders of safetensors shards and a JSON description, read and written in both published layouts.

Native: `params.json` and `consolidated*.safetensors`. Hugging Face: `config.json` and `model*.safetensors`. A folder
that holds both is read as native. Tensors are read one at a time, so that loading takes little more memory than the
model. Every tensor must be there, have its shape, and be expected. Knows no downloads, no tokenizer and no
quantisation.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from magister.model import names, permute
from magister.model.config import ModelConfig
from magister.model.config_files import config_json, params_json, read_config_json, read_params_json
from magister.model.disk import flush
from magister.model.network import Model, build, native_parameters, set_parameter

_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
_SHARD_NUMBER = re.compile(r"-(\d+)-of-(\d+)\.safetensors$")


class _Layout(NamedTuple):
    """One of the two ways to lay out a checkpoint."""

    description: str
    stem: str
    read: Callable[[Path], ModelConfig]


_NATIVE = _Layout("params.json", "consolidated", read_params_json)
_HF = _Layout("config.json", "model", read_config_json)


def read_config(path: Path | str) -> ModelConfig:
    """The shape of the checkpoint in folder `path`. Errors as `load`, weights aside."""
    layout = _find_layout(Path(path))
    return layout.read(Path(path) / layout.description)


def load(path: Path | str, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Model:
    """The model of the checkpoint in folder `path`, on `device`, in `dtype` (None: as stored), in evaluation mode.

    Errors: ValueError for a folder that is no checkpoint, a missing or truncated shard, a description this network does
    not compute, a tensor of the wrong shape or of a type that is not float32, bfloat16 or float16, and missing or
    unexpected tensors, all listed. OSError where the system refuses.
    """
    folder = Path(path)
    if dtype is not None and dtype not in _DTYPES:
        raise ValueError(f"dtype is {dtype}, must be one of {', '.join(map(str, _DTYPES))}")
    layout = _find_layout(folder)
    config = layout.read(folder / layout.description)
    model = build(config)
    missing = {name: parameter.shape for name, parameter in native_parameters(model)}
    spelling = {names.plain_hf(names.to_hf(name, True)): name for name in missing} if layout is _HF else {}
    unexpected: list[str] = []
    for stored_name, stored in _tensors(_shards(folder, layout)):
        name = spelling.get(names.plain_hf(stored_name), "") if layout is _HF else stored_name
        shape = missing.pop(name, None)
        if shape is None:
            unexpected.append(stored_name)
            continue
        _check(stored_name, stored, shape)
        if layout is _HF and names.is_query_or_key(name):
            stored = permute.hf_to_native(stored, _head_dim(name, config))
        # A copy, never a view: what the reader gives may be the file itself, mapped.
        value = torch.empty(shape, dtype=dtype or stored.dtype, device=device)
        set_parameter(model, name, value.copy_(stored))
    if missing or unexpected:
        raise ValueError(f"{folder}: {_listed('missing', list(missing))}; {_listed('unexpected', unexpected)}")
    return model.eval()


def save_native(model: Model, path: Path | str, dtype: torch.dtype | None = None) -> None:
    """Writes `params.json` and `consolidated.safetensors` into folder `path`, made if need be, in `dtype` (None: as
    held).

    Each file appears whole or not at all: it is written under another name, flushed to disk, and renamed.
    """
    tensors = {name: _stored(parameter, dtype) for name, parameter in native_parameters(model)}
    _write(Path(path), _NATIVE, params_json(model.config), tensors)


def save_hf(model: Model, path: Path | str, dtype: torch.dtype | None = None) -> None:
    """Writes `config.json` and `model.safetensors` into folder `path`, named and ordered as published Hugging Face
    files.

    Otherwise as `save_native`. ValueError for a vision block that `config.json` cannot describe.
    """
    config = model.config
    tensors: dict[str, Tensor] = {}
    for name, parameter in native_parameters(model):
        value = _stored(parameter, dtype)
        if names.is_query_or_key(name):
            value = permute.native_to_hf(value, _head_dim(name, config))
        tensors[names.to_hf(name, multimodal=config.vision is not None)] = value.contiguous()
    kept = dtype or next(model.parameters()).dtype
    _write(Path(path), _HF, config_json(config, _DTYPES[kept]), tensors)


def _find_layout(folder: Path) -> _Layout:
    for layout in (_NATIVE, _HF):
        if (folder / layout.description).is_file() and any(folder.glob(f"{layout.stem}*.safetensors*")):
            return layout
    raise ValueError(
        f"{folder} is no checkpoint: it must be a folder with params.json and consolidated*.safetensors, "
        "or with config.json and model*.safetensors"
    )


def _shards(folder: Path, layout: _Layout) -> list[Path]:
    index = folder / f"{layout.stem}.safetensors.index.json"
    if index.is_file():
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = [folder / name for name in sorted(set(weight_map.values()))]
        absent = [shard.name for shard in shards if not shard.is_file()]
    else:
        shards = sorted(folder.glob(f"{layout.stem}*.safetensors"))
        absent = _absent_numbers(shards)
    if absent:
        raise ValueError(f"{folder}: {_listed('missing shards', absent)}")
    return shards


def _absent_numbers(shards: list[Path]) -> list[str]:
    """Numbers that a set of files called NAME-00001-of-00003.safetensors says it has and has not."""
    numbers = [match.groups() for shard in shards if (match := _SHARD_NUMBER.search(shard.name))]
    present = {int(number) for number, _ in numbers}
    claimed = range(1, max((int(total) for _, total in numbers), default=0) + 1)
    return [f"number {number} of {len(claimed)}" for number in claimed if number not in present]


def _tensors(shards: list[Path]) -> Iterator[tuple[str, Tensor]]:
    for shard in shards:
        try:
            with safe_open(shard, framework="pt", device="cpu") as opened:
                stored_names = list(opened.keys())
            for name in stored_names:
                # Opened anew for each tensor: a shard is mapped while open, and pages read from it count as ours.
                with safe_open(shard, framework="pt", device="cpu") as opened:
                    yield name, opened.get_tensor(name)
        except SafetensorError as error:
            raise ValueError(f"{shard} is not a whole safetensors file: {error}") from error


def _check(stored_name: str, stored: Tensor, shape: torch.Size) -> None:
    if stored.shape != shape:
        raise ValueError(f"{stored_name} has shape {list(stored.shape)}, the description asks for {list(shape)}")
    if stored.dtype not in _DTYPES:
        raise ValueError(f"{stored_name} is stored as {stored.dtype}, must be one of {', '.join(map(str, _DTYPES))}")


def _head_dim(native: str, config: ModelConfig) -> int:
    if native.startswith("vision_encoder."):
        assert config.vision is not None
        return config.vision.head_dim
    return config.decoder.head_dim


def _listed(what: str, items: list[str]) -> str:
    shown = ", ".join(items[:20]) + (f" and {len(items) - 20} more" if len(items) > 20 else "")
    return f"{len(items)} {what}" + (f": {shown}" if items else "")


def _stored(parameter: Tensor, dtype: torch.dtype | None) -> Tensor:
    return parameter.detach().to(device="cpu", dtype=dtype or parameter.dtype).contiguous()


def _write(folder: Path, layout: _Layout, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights, text = folder / f"{layout.stem}.safetensors", folder / layout.description
    weights_new, text_new = (target.with_name(f".{target.name}.{os.getpid()}.tmp") for target in (weights, text))
    try:
        save_file(tensors, weights_new, metadata={"format": "pt"})
        text_new.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        # safetensors makes files that only their owner may read, whatever the umask.
        weights_new.chmod(text_new.stat().st_mode)
        for new in (weights_new, text_new):
            flush(new)
        weights_new.replace(weights)
        text_new.replace(text)
        flush(folder)
    finally:
        for new in (weights_new, text_new):
            new.unlink(missing_ok=True)
