"""The product of rows with a quantised matrix, as one Triton kernel for every format and any number of rows.

A program computes a tile of outputs x rows: it reads numbers of the matrix as they lie in memory, turns them into the
rows' dtype in registers, and multiplies with float32 sums. The matrix is the left operand (out^T = W x^T), since the
left one may stay in registers on every generation of tensor cores. Knows no tensors' owners and no choice of tiles:
that is `linear`.

int4 lies as `linear.place` puts it: byte 8b + r of a row holds input 16b + r in its low half and 16b + 8 + r in its
high half, so that the rows are read in runs of eight inputs and no shuffle is needed.

Shapes: o outputs of a tile, m rows of a tile, c columns of values read at once (a byte of int4 holds two inputs), n
groups within a tile.
"""

from __future__ import annotations

import triton.language as tl

from magister.kernels.cuda.jit import jit, jit_any, multiply, narrow


@jit
def whole_to_float(u: tl.tensor, zero: tl.constexpr) -> tl.tensor:
    """Whole numbers 0..255 minus `zero`, as float32, without the conversion unit (a quarter of the rate, or less).

    2^23 + u has u in its lowest bits; both subtractions are exact.
    """
    return (u.to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True) - (8388608.0 + zero)


@jit
def fp8_to_float(bits: tl.tensor) -> tl.tensor:
    """float8_e4m3fn bits (uint8, no NaN) / 256, as float32. By hand: GPUs before Ada cannot load the type.

    Sign, exponent and mantissa moved to the places of a float16 mean 2^(7 - 15) times the number; subnormals too.
    """
    wide = bits.to(tl.int16)
    return (((wide & 0x80) << 8) | ((wide & 0x7F) << 7)).to(tl.float16, bitcast=True).to(tl.float32)


@jit
def per_column(
    table: tl.tensor,
    o: tl.tensor,
    o_ok: tl.tensor,
    column: tl.tensor,
    outputs: tl.tensor,
    groups: tl.tensor,
    group_columns: tl.constexpr,
    block_o: tl.constexpr,
    block_c: tl.constexpr,
    spread: tl.constexpr,
) -> tl.tensor:
    """Scales or mins of columns `column`...`column + block_c` of outputs `o`: float32, [o, c] or [o, 1].

    `table` is [groups, outputs]. `spread` says how groups lie in the tile: "one" covers it all, "several" divide it,
    "each" column asks for itself.
    """
    if spread == "one":
        part = tl.load(table + (column // group_columns) * outputs + o, mask=o_ok, other=0.0)
        wide = part[:, None]
    elif spread == "several":
        n: tl.constexpr = block_c // group_columns
        group = (column // group_columns + tl.arange(0, n))[None, :]
        part = tl.load(table + group * outputs + o[:, None], mask=o_ok[:, None] & (group < groups), other=0.0)
        wide = tl.reshape(tl.broadcast_to(part[:, :, None], [block_o, n, group_columns]), [block_o, block_c])
    else:
        group = ((column + tl.arange(0, block_c)) // group_columns)[None, :]
        wide = tl.load(table + group * outputs + o[:, None], mask=o_ok[:, None] & (group < groups), other=0.0)
    return wide.to(tl.float32)


@jit
def decode(v: tl.tensor, half: tl.constexpr, layout: tl.constexpr, has_mins: tl.constexpr) -> tl.tensor:
    """The numbers in the low (0) or high (1) half of the bytes `v`, int4, or in the whole bytes; fp8 / 256. float32."""
    if layout == "int4":
        q = whole_to_float((v >> (4 * half)) & 15, 0 if has_mins else 8)
    elif layout == "int8":
        # The sign bit flipped: -128..127 become 0..255.
        q = whole_to_float(v ^ 0x80, 128)
    else:
        q = fp8_to_float(v)
    return q


@jit_any("rows", "chunk")
def linear_tiles(
    x: tl.tensor,
    values: tl.tensor,
    scales: tl.tensor,
    mins: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    chunk: tl.tensor,
    outputs: tl.tensor,
    columns: tl.tensor,
    groups: tl.tensor,
    layout: tl.constexpr,
    has_mins: tl.constexpr,
    group_columns: tl.constexpr,
    spread: tl.constexpr,
    even: tl.constexpr,
    block_o: tl.constexpr,
    block_m: tl.constexpr,
    block_c: tl.constexpr,
    widen: tl.constexpr,
) -> None:
    """out [splits, rows, outputs] of x [rows, inputs]. Grid: tiles of outputs x tiles of rows x splits.

    A split is `chunk` blocks of columns: counted so, the compiler sees that a block begins where wide loads may.
    `even`: `block_c` divides the columns, so none are masked.
    """
    o = tl.program_id(0) * block_o + tl.arange(0, block_o)
    m = tl.program_id(1) * block_m + tl.arange(0, block_m)
    c = tl.arange(0, block_c)
    o_ok, m_ok = o < outputs, m < rows
    per: tl.constexpr = 2 if layout == "int4" else 1
    values_oc = values + o.to(tl.int64)[:, None] * columns + c[None, :]
    inputs_c = c // 8 * 16 + c % 8 if layout == "int4" else c
    x_cm = x + m.to(tl.int64)[None, :] * (columns * per) + inputs_c[:, None]
    sums_om = tl.zeros([block_o, block_m], tl.float32)
    dtype: tl.constexpr = x.dtype.element_ty
    first = tl.program_id(2) * chunk
    for block in range(first, tl.minimum(first + chunk, tl.cdiv(columns, block_c))):
        column = block * block_c
        w_ok, x_ok = o_ok[:, None], m_ok[None, :]
        if not even:
            w_ok = w_ok & (column + c < columns)[None, :]
            x_ok = x_ok & (column + c < columns)[:, None]
        v = tl.load(values_oc + column, mask=w_ok, other=0)
        scale = per_column(scales, o, o_ok, column, outputs, groups, group_columns, block_o, block_c, spread)
        if layout == "fp8":
            scale = scale * 256.0
        least = scale
        if has_mins:
            least = per_column(mins, o, o_ok, column, outputs, groups, group_columns, block_o, block_c, spread)
        for half in tl.static_range(per):
            q = decode(v, half, layout, has_mins) * scale
            if has_mins:
                q += least
            x_half = tl.load(x_cm + column * per + 8 * half, mask=x_ok, other=0.0)
            sums_om = multiply(narrow(q, dtype, widen), x_half, sums_om, widen)
    m_out = tl.program_id(2).to(tl.int64) * rows + m
    result_om = narrow(sums_om, out.dtype.element_ty, widen)
    tl.store(out + m_out[None, :] * outputs + o[:, None], result_om, mask=o_ok[:, None] & m_ok[None, :])


@jit
def add_splits(
    parts: tl.tensor,
    out: tl.tensor,
    elements: tl.tensor,
    splits: tl.constexpr,
    block: tl.constexpr,
    widen: tl.constexpr,
) -> None:
    """out [elements] = the sum of parts [splits, elements] float32, first to last: no atomics, one order always."""
    e = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    ok = e < elements
    sum_e = tl.load(parts + e, mask=ok, other=0.0)
    for split in tl.static_range(1, splits):
        sum_e += tl.load(parts + split * elements + e, mask=ok, other=0.0)
    tl.store(out + e, narrow(sum_e, out.dtype.element_ty, widen), mask=ok)
