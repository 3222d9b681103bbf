"""Rows times a quantised matrix on a GPU: the matrix laid out for it, and the choice of tiles.

`linear` equals `quantized.linear_weight_only` but for the order of its sums. That order depends on the matrix, on the
device and on which of three ranges the number of rows is in (up to 16, up to 64, more), and on nothing else: within a
range the same row gives the same bits whatever runs beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from magister.kernels.cuda.jit import interpreted
from magister.kernels.cuda.linear_kernel import add_splits, linear_tiles
from magister.kernels.quantized import Format, Quantized, unpack_int4

_ADD_BLOCK = 1024
_RUN = 8
"""Inputs of int4 that lie in one half of neighbouring bytes; see `linear_kernel`."""


class Tiling(NamedTuple):
    """How the work is cut for the programs of a GPU."""

    block_o: int
    """Outputs of a tile: a power of two, at least 16."""
    block_m: int
    """Rows of a tile: likewise."""
    block_c: int
    """Columns read at once: likewise; int4 has two inputs a column."""
    warps: int
    """Of 32 threads, a program."""
    stages: int
    """Loads in flight at once."""
    programs: int
    """Up to how many the inputs are split to make, where tiles of outputs alone are fewer."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A quantised matrix where a GPU reads it best: made by `place`, never on disk."""

    format: Format
    values: Tensor
    """uint8: int4 [o, i / 2] in runs of eight, int8 and fp8 [o, i] as their bits."""
    scales: Tensor
    """[n, o]: a tile reads neighbours."""
    mins: Tensor | None
    """[n, o] or None."""
    group: int
    """Inputs that share a scale."""

    @property
    def outputs(self) -> int:
        """Rows of the matrix."""
        return self.values.shape[0]

    @property
    def per_column(self) -> int:
        """Inputs that a column of `values` holds."""
        return 2 if self.format is Format.INT4 else 1

    @property
    def inputs(self) -> int:
        """Columns of the matrix."""
        return self.values.shape[1] * self.per_column

    @property
    def bytes(self) -> int:
        """Memory of values, scales and mins: what one row must read."""
        return sum(part.nbytes for part in (self.values, self.scales, self.mins) if part is not None)

    def __call__(self, x: Tensor) -> Tensor:
        """`linear`: a placed matrix is a `dispatch.Product`."""
        return linear(x, self)


def place(matrix: Quantized, device: torch.device | str) -> Placed:
    """`matrix` on `device`, laid out for `linear`. ValueError where an fp8 value is not a number: the kernel's decoding
    has no such value.
    """
    values = matrix.values.to(device)
    values = _runs_of_eight(values) if matrix.format is Format.INT4 else values.view(torch.uint8).contiguous()
    if matrix.format is Format.FP8 and bool(((values & 0x7F) == 0x7F).any()):
        raise ValueError("values has an fp8 number that is NaN, must have none")
    mins = None if matrix.mins is None else matrix.mins.to(device).t().contiguous()
    return Placed(matrix.format, values, matrix.scales.to(device).t().contiguous(), mins, matrix.group)


def linear(x: Tensor, matrix: Placed, tiling: Tiling | None = None) -> Tensor:
    """`x W^T`, [..., i] -> [..., o] in x's dtype (bfloat16, float16 or float32), summed in float32.

    `tiling`: another one than `default_tiling`'s, to measure. ValueError if x has not the matrix's inputs.
    """
    if x.shape[-1] != matrix.inputs:
        raise ValueError(f"x has {x.shape[-1]} inputs, the matrix has {matrix.inputs}")
    x_mi = x.reshape(-1, matrix.inputs).contiguous()
    rows, outputs = len(x_mi), matrix.outputs
    out_mo = torch.empty(rows, outputs, device=x.device, dtype=x.dtype)
    if not rows:
        return out_mo.view(*x.shape[:-1], outputs)
    tiling = tiling or default_tiling(matrix, rows, x.dtype)
    columns = matrix.values.shape[1]
    chunk, splits = split_columns(columns, outputs, rows, tiling)
    parts = out_mo if splits == 1 else torch.empty(splits, rows, outputs, device=x.device, dtype=torch.float32)
    group_columns = matrix.group // matrix.per_column
    linear_tiles[-(-outputs // tiling.block_o), -(-rows // tiling.block_m), splits](
        x_mi,
        matrix.values,
        matrix.scales,
        matrix.scales if matrix.mins is None else matrix.mins,
        parts,
        rows,
        chunk,
        outputs,
        columns,
        len(matrix.scales),
        layout=str(matrix.format),
        has_mins=matrix.mins is not None,
        group_columns=group_columns,
        spread=_spread(matrix, tiling.block_c),
        even=columns % tiling.block_c == 0,
        block_o=tiling.block_o,
        block_m=tiling.block_m,
        block_c=tiling.block_c,
        widen=interpreted(),
        num_warps=tiling.warps,
        num_stages=tiling.stages,
        enable_fp_fusion=False,
    )
    if splits > 1:
        blocks = -(-out_mo.numel() // _ADD_BLOCK)
        add_splits[(blocks,)](
            parts,
            out_mo,
            out_mo.numel(),
            splits=splits,
            block=_ADD_BLOCK,
            widen=interpreted(),
            enable_fp_fusion=False,
        )
    return out_mo.view(*x.shape[:-1], outputs)


def default_tiling(matrix: Placed, rows: int, dtype: torch.dtype) -> Tiling:
    """Tiles reasoned for Ampere, Ada and Hopper, measured on none: see docs/gpu.md for the reasons.

    All fit the 99 KiB of shared memory of the smallest of them.
    """
    wide = dtype.itemsize == 4
    half = matrix.format is Format.INT4
    if rows <= 16:
        return Tiling(64, 16, 64 if half else 128, warps=4, stages=4, programs=512)
    if rows <= 64 or wide:
        # float32 has no tensor cores: a large tile would not fit the registers.
        return Tiling(64, 64, 32, warps=8 if wide else 4, stages=2 if wide else 4, programs=256 if rows <= 64 else 1)
    return Tiling(128, 128, 32 if half else 64, warps=8, stages=3, programs=1)


def split_columns(columns: int, outputs: int, rows: int, tiling: Tiling) -> tuple[int, int]:
    """Blocks of columns a split, and the number of splits.

    A split has at least four blocks of columns. The rows within a tile do not change it: up to `block_m` rows all
    numbers are the same. More rows count as one tile too, so that a range of rows has one order of sums.
    """
    blocks = -(-columns // tiling.block_c)
    tiles = -(-outputs // tiling.block_o)
    wanted = max(1, min(tiling.programs // tiles, blocks // 4))
    chunk = -(-blocks // wanted)
    return chunk, -(-blocks // chunk)


def _spread(matrix: Placed, block_c: int) -> str:
    group_columns = matrix.group // matrix.per_column
    if len(matrix.scales) == 1 or group_columns % block_c == 0:
        return "one"
    return "several" if block_c % group_columns == 0 else "each"


def _runs_of_eight(values: Tensor) -> Tensor:
    """int4 in neighbouring pairs, uint8 [o, i / 2] -> the same numbers in runs of eight."""
    q_ohr = unpack_int4(values).view(len(values), -1, 2, _RUN)
    return (q_ohr[:, :, 0] | (q_ohr[:, :, 1] << 4)).flatten(1)
