"""Which product serves a quantised matrix on which device: chosen once, when a matrix is put where it will work.

Knows no layers. A product equals `quantized.linear_weight_only` but for the order of its sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from magister.kernels import cuda
from magister.kernels.quantized import Format, Quantized, dequantize

CHUNK = 1 << 22
"""Numbers restored at a time: a whole output head in float32 would take gigabytes."""


class Product(Protocol):
    """A quantised matrix [o, i] in its place, ready to be multiplied with."""

    @property
    def outputs(self) -> int:
        """Rows of the matrix."""
        ...

    @property
    def inputs(self) -> int:
        """Columns of the matrix."""
        ...

    @property
    def format(self) -> Format:
        """How its numbers are held."""
        ...

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """`x W^T`, [..., i] -> [..., o] in x's dtype."""
        ...


def place(matrix: Quantized, device: torch.device | str = "cpu") -> Product:
    """The product with `matrix` on `device`; keeps no more of the matrix than it needs."""
    if torch.device(device).type == "cuda" and cuda.missing() is None:
        from magister.kernels.cuda import linear

        return linear.place(matrix, device)
    return PlainProduct(moved(matrix, device))


@dataclass(frozen=True, eq=False)
class PlainProduct:
    """In torch, on any device: restores a few rows at a time and multiplies with them. Correct, not fast."""

    matrix: Quantized

    @property
    def outputs(self) -> int:
        """Rows of the matrix."""
        return self.matrix.outputs

    @property
    def inputs(self) -> int:
        """Columns of the matrix."""
        return self.matrix.inputs

    @property
    def format(self) -> Format:
        """How its numbers are held."""
        return self.matrix.format

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        return self.matrix.bytes

    def __call__(self, x: Tensor) -> Tensor:
        """`x W^T`, [..., i] -> [..., o] in x's dtype."""
        step = max(1, CHUNK // self.inputs)
        if step >= self.outputs:
            return F.linear(x, dequantize(self.matrix, x.dtype))
        out = torch.empty(*x.shape[:-1], self.outputs, dtype=x.dtype, device=x.device)
        for first in range(0, self.outputs, step):
            out[..., first : first + step] = F.linear(x, dequantize(rows(self.matrix, first, step), x.dtype))
        return out


def rows(matrix: Quantized, first: int, count: int) -> Quantized:
    """Rows [first, first + count) of a matrix, sharing its memory."""
    part = slice(first, first + count)
    mins = None if matrix.mins is None else matrix.mins[part]
    return Quantized(matrix.format, matrix.values[part], matrix.scales[part], matrix.group, mins)


def moved(matrix: Quantized, device: torch.device | str, copy: bool = False) -> Quantized:
    """The matrix on `device`; with `copy` in memory of its own even if it is there already."""
    values, scales = (part.to(device, copy=copy) for part in (matrix.values, matrix.scales))
    mins = None if matrix.mins is None else matrix.mins.to(device, copy=copy)
    return Quantized(matrix.format, values, scales, matrix.group, mins)
