"""A quantised matrix as the rest of the house sees it, and what its product with rows of activations is.

This is the definition: plain torch, no speed. The compiled and the Triton kernels must equal it. Knows no files, no
layers and no way to choose scales.

Shapes: o outputs, i inputs, n groups of inputs (i / group), `...` any leading dims.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor


class Format(StrEnum):
    """How the numbers of a matrix are held."""

    INT4 = "int4"
    """Whole numbers 0..15, two a byte."""
    INT8 = "int8"
    """Whole numbers -128..127; the quantiser here never writes -128, other people's do."""
    FP8 = "fp8"
    """float8_e4m3fn."""


@dataclass(frozen=True, eq=False)
class Quantized:
    """A matrix [o, i] in few bits. ValueError where its parts do not fit together.

    Row r, input c, in group n = c // group, stands for
    int4 without mins: (q - 8) * scale; int4 with mins: q * scale + min; int8 and fp8: q * scale.
    """

    format: Format
    values: Tensor
    """int4: uint8 [o, i / 2], input 2j in the low half of byte j; int8: int8 [o, i]; fp8: float8_e4m3fn [o, i]."""
    scales: Tensor
    """[o, n] float16, bfloat16 or float32."""
    group: int
    """Inputs that share a scale: a multiple of 16 that divides i; fp8 also i itself."""
    mins: Tensor | None = None
    """[o, n] in the scales' dtype; int4 only."""

    def __post_init__(self) -> None:
        if self.group < 1 or self.inputs % self.group:
            raise ValueError(f"group is {self.group}, must divide the inputs, {self.inputs}")
        if self.format is not Format.FP8 and self.group % 16:
            raise ValueError(f"group is {self.group}, must be a multiple of 16")
        wanted = (self.outputs, self.inputs // self.group)
        for name, part in (("scales", self.scales), ("mins", self.mins)):
            if part is not None and tuple(part.shape) != wanted:
                raise ValueError(f"{name} has shape {tuple(part.shape)}, must have {wanted}")
        if self.values.dtype != _DTYPES[self.format]:
            raise ValueError(f"values is {self.values.dtype}, {self.format} asks for {_DTYPES[self.format]}")
        if self.mins is not None and self.format is not Format.INT4:
            raise ValueError(f"mins are given, {self.format} has none")

    @property
    def outputs(self) -> int:
        """Rows."""
        return self.values.shape[0]

    @property
    def inputs(self) -> int:
        """Columns."""
        return self.values.shape[1] * (2 if self.format is Format.INT4 else 1)

    @property
    def bytes(self) -> int:
        """Memory of values, scales and mins."""
        return sum(part.nbytes for part in (self.values, self.scales, self.mins) if part is not None)


_SLICE = 1 << 20
"""Numbers restored at a time: what float32 takes on the way stays small beside a large matrix."""
_DTYPES = {Format.INT4: torch.uint8, Format.INT8: torch.int8, Format.FP8: torch.float8_e4m3fn}


def pack_int4(q_oi: Tensor) -> Tensor:
    """Whole numbers 0..15 [o, i] -> two a byte, uint8 [o, i / 2]."""
    q_oi = q_oi.to(torch.uint8)
    return q_oi[:, 0::2] | (q_oi[:, 1::2] << 4)


def unpack_int4(values: Tensor) -> Tensor:
    """The opposite of `pack_int4`: uint8 [o, i / 2] -> uint8 [o, i]."""
    return torch.stack((values & 15, values >> 4), dim=-1).flatten(1)


def dequantize(matrix: Quantized, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix that `matrix` stands for, [o, i]; the arithmetic is float32."""
    w_oi = torch.empty(matrix.outputs, matrix.inputs, dtype=dtype, device=matrix.values.device)
    step = max(1, _SLICE // matrix.inputs)
    for first in range(0, matrix.outputs, step):
        rows = slice(first, first + step)
        q_oi = unpack_int4(matrix.values[rows]) if matrix.format is Format.INT4 else matrix.values[rows]
        q_ong = q_oi.float().view(len(q_oi), -1, matrix.group)
        scales_on1 = matrix.scales[rows].float()[..., None]
        if matrix.mins is not None:
            w_ong = q_ong * scales_on1 + matrix.mins[rows].float()[..., None]
        else:
            w_ong = (q_ong - (8 if matrix.format is Format.INT4 else 0)) * scales_on1
        w_oi[rows] = w_ong.flatten(1)
    return w_oi


def linear_weight_only(x: Tensor, matrix: Quantized) -> Tensor:
    """`x W^T` with activations as they are: what the GPU kernels compute. [..., i] -> [..., o] in x's dtype."""
    return F.linear(x, dequantize(matrix, x.dtype))


def quantize_activations(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Rows [..., i] -> int8 [..., i] in -127..127 and float32 scales [..., n].

    scale = max |x| of the group / 127; q = x * (127 / max |x|), rounded half to even. Where 127 / max |x| is not finite
    (zeros, or numbers below 4e-37), q is 0. A NaN or an infinity makes q 0 and the scale NaN, and so all it reaches.
    """
    x_ng = _grouped(x.float(), group)
    largest_n1 = x_ng.abs().amax(dim=-1, keepdim=True)
    # A number over a tensor is its reciprocal times the number in torch: rounded twice, where the kernels round once.
    inverse_n1 = torch.full_like(largest_n1, 127.0) / largest_n1
    usable_n1 = largest_n1.isfinite() & inverse_n1.isfinite()
    q = torch.where(usable_n1, x_ng * inverse_n1, 0.0).round().clamp(-127, 127).to(torch.int8)
    scales_n1 = torch.where(largest_n1.isfinite(), largest_n1 / 127.0, torch.nan)
    return q.flatten(-2), scales_n1.squeeze(-1)


def linear_integer(x: Tensor, matrix: Quantized) -> Tensor:
    """`x W^T` with activations rounded to int8 in the matrix's own groups: what the CPU kernels compute for int4 and
    int8. [..., i] -> [..., o] float32.

    Products within a group are exact whole numbers; groups are added in float32. fp8 keeps its activations in float32.
    """
    if matrix.format is Format.FP8:
        return F.linear(x.float(), dequantize(matrix))
    q, scales_n = quantize_activations(x, matrix.group)
    return F.linear((_grouped(q.float(), matrix.group) * scales_n[..., None]).flatten(-2), dequantize(matrix))


def _grouped(x: Tensor, group: int) -> Tensor:
    return x.reshape(*x.shape[:-1], -1, group)
