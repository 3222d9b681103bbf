"""Checkpoints: a model from any that `sources` reads, and folders of safetensors and a JSON description in both
published layouts from a model.

Tensors are read one at a time, so that loading takes little more memory than the model. Every tensor must be there,
have its shape, and be expected. Knows no downloads, no tokenizer, and of quantisation only what is quantised already.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magister.kernels import dispatch
from magister.kernels.quantized import Quantized, dequantize
from magister.model import atomic, expected, names, permute, sources
from magister.model.config import ModelConfig
from magister.model.config_files import config_json, params_json
from magister.model.network import (
    Model,
    build,
    native_parameters,
    native_products,
    set_parameter,
    set_product,
    takes_product,
)


def read_config(path: Path | str) -> ModelConfig:
    """The shape of the checkpoint at `path`. Errors as `load`, weights aside."""
    return sources.read_config(Path(path))


def stream(path: Path | str) -> Iterator[tuple[str, Tensor | Quantized]]:
    """Every tensor of the checkpoint at `path` under its native name, one at a time; see `sources.stream`."""
    return sources.stream(Path(path))


def load(path: Path | str, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Model:
    """The model of the checkpoint at `path`, on `device`, in evaluation mode. What is not quantised comes in `dtype`
    (None: as stored, or in the embeddings' where that is another); what is stays as it is, but for embeddings and other
    tensors that are looked up: those are restored.

    Errors: ValueError for what is no checkpoint, an unfinished one, a missing, truncated or corrupt file, a description
    this network does not compute, a tensor of the wrong shape or of a type that is not float32, bfloat16 or float16,
    and missing or unexpected tensors, all listed. OSError where the system refuses.
    """
    folder = Path(path)
    expected.check_dtype(dtype)
    model = build(read_config(folder))
    missing = {name: parameter.shape for name, parameter in native_parameters(model)}
    unexpected: list[str] = []
    for name, stored in stream(folder):
        shape = missing.pop(name, None)
        if shape is None:
            unexpected.append(name)
            continue
        expected.check(name, stored, shape)
        # Copies, never views: what the reader gives may be the file itself, mapped.
        if isinstance(stored, Quantized) and takes_product(model, name):
            set_product(model, name, dispatch.place(dispatch.moved(stored, device, copy=True), device))
            continue
        if isinstance(stored, Quantized):
            stored = dequantize(stored, dtype or torch.bfloat16)
        value = torch.empty(shape, dtype=dtype or stored.dtype, device=device)
        set_parameter(model, name, value.copy_(stored))
    if missing or unexpected:
        raise ValueError(
            f"{folder}: {expected.listed('missing', missing)}; {expected.listed('unexpected', unexpected)}"
        )
    if dtype is None:
        _even_out(model)
    return model.eval()


def save_native(model: Model, path: Path | str, dtype: torch.dtype | None = None) -> None:
    """Writes `params.json` and `consolidated.safetensors` into folder `path`, made if need be, in `dtype` (None: as
    held).

    Each file appears whole or not at all: it is written under another name, flushed to disk, and renamed; where one
    cannot be, both stay as they were. ValueError for a model with quantised matrices. OSError where the system refuses.
    """
    tensors = {name: _stored(parameter, dtype) for name, parameter in _plain_parameters(model)}
    _write(Path(path), "consolidated", "params.json", params_json(model.config), tensors)


def save_hf(model: Model, path: Path | str, dtype: torch.dtype | None = None) -> None:
    """Writes `config.json` and `model.safetensors` into folder `path`, named and ordered as published Hugging Face
    files.

    Otherwise as `save_native`. ValueError for a vision block that `config.json` cannot describe.
    """
    config = model.config
    tensors: dict[str, Tensor] = {}
    for name, parameter in _plain_parameters(model):
        value = _stored(parameter, dtype)
        if names.is_query_or_key(name):
            value = permute.native_to_hf(value, names.head_dim(name, config))
        tensors[names.to_hf(name, multimodal=config.vision is not None)] = value.contiguous()
    kept = dtype or next(model.parameters()).dtype
    _write(Path(path), "model", "config.json", config_json(config, expected.FLOATS[kept]), tensors)


def _even_out(model: Model) -> None:
    """Gives every parameter the embeddings' dtype, for torch multiplies no two: a GGUF holds its norms in float32, and
    may hold its head in float16 beside embeddings that were quantised."""
    kept = model.decoder.tok_embeddings.weight.dtype
    for name, parameter in list(native_parameters(model)):
        if parameter.dtype is not kept:
            set_parameter(model, name, parameter.detach().to(kept))


def _plain_parameters(model: Model) -> Iterator[tuple[str, Tensor]]:
    for name, _ in native_products(model):
        raise ValueError(f"{name} is quantised, and this layout holds no such matrices")
    return native_parameters(model)


def _stored(parameter: Tensor, dtype: torch.dtype | None) -> Tensor:
    return parameter.detach().to(device="cpu", dtype=dtype or parameter.dtype).contiguous()


def _write(folder: Path, stem: str, described_in: str, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # In the order of their names, as safetensors' own writer has them.
    made = atomic.Safetensors(dict(sorted(tensors.items())))
    weights = atomic.File(folder / f"{stem}.safetensors", made.write, made.size)
    atomic.replace(weights, atomic.json_file(folder / described_in, description))
