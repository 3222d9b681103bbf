"""What is asked of the tensors of a checkpoint: their shapes and types, and what is missing or too many, in words.

Knows no files and no networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from magister.kernels.quantized import Quantized

FLOATS: Mapping[torch.dtype, str] = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
"""The types of numbers that are not quantised, and their names in a `config.json`."""

_SHOWN = 20


def check(name: str, stored: Tensor | Quantized, shape: Sequence[int]) -> None:
    """ValueError unless the tensor has this shape, and a type of `FLOATS` where it is not quantised."""
    found = [stored.outputs, stored.inputs] if isinstance(stored, Quantized) else list(stored.shape)
    if found != list(shape):
        raise ValueError(f"{name} has shape {found}, the description asks for {list(shape)}")
    if isinstance(stored, Tensor) and stored.dtype not in FLOATS:
        raise ValueError(f"{name} is stored as {stored.dtype}, must be one of {_types()}")


def check_dtype(dtype: torch.dtype | None) -> None:
    """ValueError for a type that nothing is loaded in; None asks for none."""
    if dtype is not None and dtype not in FLOATS:
        raise ValueError(f"dtype is {dtype}, must be one of {_types()}")


def listed(what: str, items: Iterable[str]) -> str:
    """How many `items` of `what` there are, and the first twenty of them, in words."""
    every = list(items)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return f"{len(every)} {what}" + (f": {', '.join(every[:_SHOWN])}{more}" if every else "")


def _types() -> str:
    return ", ".join(map(str, FLOATS))
