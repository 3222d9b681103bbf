"""A checkpoint -> a compiled decoder, and the image network in torch where there is one.

Tensors are read one at a time and packed at once, so that loading takes little more memory than what is kept. Knows no
caches and no sequences.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from magister.kernels.cpu import Library
from magister.kernels.quantized import Quantized, dequantize
from magister.model import weights
from magister.model.compiled import CompiledDecoder, shapes
from magister.model.config import ModelConfig
from magister.model.expected import check, check_dtype, listed
from magister.model.network import Model, build, native_parameters, set_parameter
from magister.model.vision import Vision


class Compiled(NamedTuple):
    """A checkpoint in memory."""

    config: ModelConfig
    decoder: CompiledDecoder
    vision: Vision | None


def load_compiled(path: Path | str, library: Library, *, threads: int, dtype: torch.dtype | None = None) -> Compiled:
    """The checkpoint at `path` in compiled form, to be computed on `threads` threads. Matrices that are not quantised
    are kept in `dtype` (None: as stored).

    Errors as `weights.load`.
    """
    check_dtype(dtype)
    config = weights.read_config(path)
    model = build(config)
    decoder = CompiledDecoder.allocate(config.decoder, library, threads=threads)
    text = shapes(config.decoder)
    missing = {name: parameter.shape for name, parameter in native_parameters(model)}
    unexpected: list[str] = []
    for name, stored in weights.stream(path):
        shape = missing.pop(name, None)
        if shape is None:
            unexpected.append(name)
            continue
        check(name, stored, shape)
        if name not in text:
            _put_image(model, name, stored, dtype)
        else:
            decoder.put(name, stored if dtype is None or isinstance(stored, Quantized) else stored.to(dtype))
    if missing or unexpected:
        decoder.close()
        raise ValueError(f"{path}: {listed('missing', missing)}; {listed('unexpected', unexpected)}")
    vision = None if model.vision is None else model.vision.eval()
    return Compiled(config, decoder, vision)


def _put_image(model: Model, name: str, stored: Tensor | Quantized, dtype: torch.dtype | None) -> None:
    if isinstance(stored, Quantized):
        stored = dequantize(stored, dtype or torch.bfloat16)
    # A copy, never a view: what the reader gives may be the file itself, mapped.
    set_parameter(model, name, torch.empty(stored.shape, dtype=dtype or stored.dtype).copy_(stored))
