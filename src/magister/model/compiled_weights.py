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
    config = weights.read_config(path)
    model = build(config)
    decoder = CompiledDecoder.allocate(config.decoder, library, threads=threads)
    text = shapes(config.decoder)
    images = {name: parameter.shape for name, parameter in native_parameters(model) if name not in text}
    unexpected: list[str] = []
    for name, stored in weights.stream(path):
        if name in text:
            decoder.put(name, stored if dtype is None or isinstance(stored, Quantized) else stored.to(dtype))
        elif name in images:
            _put_image(model, name, stored, images.pop(name), dtype)
        else:
            unexpected.append(name)
    missing = [*decoder.missing, *images]
    if missing or unexpected:
        decoder.close()
        listed = weights.listed("missing", missing), weights.listed("unexpected", unexpected)
        raise ValueError(f"{path}: {'; '.join(listed)}")
    vision = None if model.vision is None else model.vision.eval()
    return Compiled(config, decoder, vision)


def _put_image(
    model: Model, name: str, stored: Tensor | Quantized, shape: torch.Size, dtype: torch.dtype | None
) -> None:
    given = (stored.outputs, stored.inputs) if isinstance(stored, Quantized) else tuple(stored.shape)
    if given != tuple(shape):
        raise ValueError(f"{name} has shape {list(given)}, the description asks for {list(shape)}")
    if isinstance(stored, Quantized):
        stored = dequantize(stored, dtype or torch.bfloat16)
    # A copy, never a view: what the reader gives may be the file itself, mapped.
    set_parameter(model, name, torch.empty(shape, dtype=dtype or stored.dtype).copy_(stored))
