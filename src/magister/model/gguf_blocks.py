"""The blocks in which GGUF tensors hold their numbers, and the same numbers as a `Quantized`: nothing is rounded.

| kind | stands for | becomes |
|---|---|---|
| Q4_0 | (q - 8) d | int4, groups of 32 |
| Q4_1 | q d + m | int4 with mins, groups of 32 |
| Q5_0 | (q - 16) d | int8, groups of 32 |
| Q8_0 | q d | int8, groups of 32 |
| Q4_K | q (d s) - (e m) | int4 with mins, groups of 32, float32 scales |
| Q6_K | (q - 32) (d s) | int8, groups of 16, float32 scales |
| F32, F16, BF16 | x | a tensor |

Source: ggml's ggml-common.h (the structs) and ggml-quants.c (what they stand for). Knows no files and no names.

Shapes: r rows, b blocks of a row, o outputs, i inputs, n groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from magister.kernels.quantized import Format, Quantized, pack_int4, unpack_int4
from magister.model.gguf_container import KINDS

_BLOCKS = {kind.name: kind for kind in KINDS.values()}
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_CHUNK = 1 << 24
"""Bytes of blocks unpacked at a time: what is needed on the way stays small beside a large matrix."""


class Parts(NamedTuple):
    """Some rows of a matrix."""

    format: Format
    group: int
    values: Tensor
    scales: Tensor
    mins: Tensor | None = None


def unpack(kind: str, raw: Tensor, shape: tuple[int, ...]) -> Tensor | Quantized:
    """The tensor in bytes uint8 [r, bytes of a row], as it is: floats in their own type, else quantised.

    ValueError for a kind that is not in the table above.
    """
    if kind in _FLOATS:
        return raw.view(_FLOATS[kind]).view(shape)
    if kind not in _UNPACK:
        raise ValueError(f"{kind} is not read; {', '.join(READABLE)} are")
    blocks_rbx = raw.view(raw.shape[0], -1, _BLOCKS[kind].bytes)
    # Into their place at once: all pieces and then their sum would be the matrix twice.
    whole: Parts | None = None
    first = 0
    for rows_rbx in torch.split(blocks_rbx, max(1, _CHUNK // raw.shape[1])):
        part = _UNPACK[kind](rows_rbx)
        whole = whole or _room(part, len(raw))
        for place, some in zip(whole[2:], part[2:], strict=True):
            if place is not None and some is not None:
                place[first : first + len(rows_rbx)] = some
        first += len(rows_rbx)
    assert whole is not None, "split gives one piece even of nothing"
    return Quantized(whole.format, whole.values, whole.scales, whole.group, whole.mins)


def fits(matrix: Quantized) -> str | None:
    """The kind that holds exactly the numbers of `matrix`, or None where there is none here.

    Groups must be whole multiples of 32 inputs, and scales and mins numbers that float16 has.
    """
    kind = {(Format.INT4, False): "Q4_0", (Format.INT4, True): "Q4_1", (Format.INT8, False): "Q8_0"}.get(
        (matrix.format, matrix.mins is not None)
    )
    if kind is None or matrix.group % 32 or not _in_float16(matrix.scales):
        return None
    if matrix.mins is not None and not _in_float16(matrix.mins):
        return None
    return kind


def pack(kind: str, value: Tensor | Quantized) -> Tensor:
    """The bytes of `value`, uint8 [r, bytes of a row] or flat: of a tensor in F32, F16 or BF16 (rounded to it where it
    is wider), or of a matrix in the kind that `fits` names."""
    if isinstance(value, Tensor):
        return value.detach().to(_FLOATS[kind]).contiguous().flatten().view(torch.uint8)
    assert kind == fits(value), (kind, value.format, value.group)
    packed = torch.empty(value.outputs, value.inputs // 32 * _BLOCKS[kind].bytes, dtype=torch.uint8)
    repeats = value.group // 32
    count = max(1, _CHUNK // packed.shape[1])
    for first in range(0, value.outputs, count):
        rows = slice(first, min(first + count, value.outputs))
        heads = [part[rows] for part in (value.scales, value.mins) if part is not None]
        heads_rb = [_bytes(head.half().repeat_interleave(repeats, dim=1)) for head in heads]
        if value.format is Format.INT4:
            q_rbx = unpack_int4(value.values[rows]).view(len(heads[0]), -1, 2, 16)
            body_rbx = q_rbx[..., 0, :] | (q_rbx[..., 1, :] << 4)
        else:
            body_rbx = value.values[rows].contiguous().view(torch.uint8).view(len(heads[0]), -1, 32)
        packed[rows] = torch.cat((*heads_rb, body_rbx), dim=-1).flatten(1)
    return packed


def _room(part: Parts, rows: int) -> Parts:
    """Memory for so many rows like those of `part`, with nothing in it yet."""
    values, scales, mins = (None if some is None else some.new_empty(rows, *some.shape[1:]) for some in part[2:])
    assert values is not None
    assert scales is not None
    return Parts(part.format, part.group, values, scales, mins)


def _in_float16(numbers: Tensor) -> bool:
    wide = numbers.float()
    return torch.equal(wide.half().float(), wide)


def _bytes(numbers_rb: Tensor) -> Tensor:
    return numbers_rb.contiguous().view(torch.uint8).view(*numbers_rb.shape, -1)


def _half(blocks_rbx: Tensor, start: int) -> Tensor:
    """The float16 at byte `start` of every block, [r, b]."""
    return blocks_rbx[..., start : start + 2].contiguous().view(torch.float16)[..., 0]


def _halves(bytes_rbx: Tensor) -> Tensor:
    """Low halves of all bytes, then their high halves."""
    return torch.cat((bytes_rbx & 15, bytes_rbx >> 4), dim=-1)


def _q4_0(blocks_rbx: Tensor) -> Parts:
    q_rbi = _halves(blocks_rbx[..., 2:])
    return Parts(Format.INT4, 32, pack_int4(q_rbi.flatten(1)), _half(blocks_rbx, 0))


def _q4_1(blocks_rbx: Tensor) -> Parts:
    q_rbi = _halves(blocks_rbx[..., 4:])
    return Parts(Format.INT4, 32, pack_int4(q_rbi.flatten(1)), _half(blocks_rbx, 0), _half(blocks_rbx, 2))


def _q5_0(blocks_rbx: Tensor) -> Parts:
    places = torch.arange(8, dtype=torch.uint8)
    fifth_rbi = ((blocks_rbx[..., 2:6, None] >> places) & 1).flatten(2)
    q_rbi = (_halves(blocks_rbx[..., 6:]) | (fifth_rbi << 4)).to(torch.int8) - 16
    return Parts(Format.INT8, 32, q_rbi.flatten(1), _half(blocks_rbx, 0))


def _q8_0(blocks_rbx: Tensor) -> Parts:
    return Parts(Format.INT8, 32, blocks_rbx[..., 2:].contiguous().view(torch.int8).flatten(1), _half(blocks_rbx, 0))


def _q4_k(blocks_rbx: Tensor) -> Parts:
    """Eight groups of 32: six bits of scale and six of minimum each, in 12 bytes; halves of 32 bytes are two groups."""
    low, mid, high = torch.split(blocks_rbx[..., 4:16], 4, dim=-1)
    scale_rbn = torch.cat((low & 63, (high & 15) | ((low >> 6) << 4)), dim=-1)
    minimum_rbn = torch.cat((mid & 63, (high >> 4) | ((mid >> 6) << 4)), dim=-1)
    scales = _half(blocks_rbx, 0).float()[..., None] * scale_rbn
    mins = -(_half(blocks_rbx, 2).float()[..., None] * minimum_rbn)
    q_rbi = _halves(blocks_rbx[..., 16:].reshape(*blocks_rbx.shape[:2], 4, 32))
    return Parts(Format.INT4, 32, pack_int4(q_rbi.flatten(1)), scales.flatten(1), mins.flatten(1))


def _q6_k(blocks_rbx: Tensor) -> Parts:
    """Sixteen groups of 16: four low bits of 128 numbers in 64 bytes, their two high bits in 32."""
    low_rbi = _halves(blocks_rbx[..., :128].reshape(*blocks_rbx.shape[:2], 2, 64)).flatten(2)
    places = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None]
    high_rbi = ((blocks_rbx[..., 128:192].reshape(*blocks_rbx.shape[:2], 2, 1, 32) >> places) & 3).flatten(2)
    q_rbi = (low_rbi | (high_rbi << 4)).to(torch.int8) - 32
    scales = _half(blocks_rbx, 208).float()[..., None] * blocks_rbx[..., 192:208].contiguous().view(torch.int8)
    return Parts(Format.INT8, 16, q_rbi.flatten(1), scales.flatten(1))


_UNPACK: Mapping[str, Callable[[Tensor], Parts]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q6_K": _q6_k,
}

READABLE = (*_FLOATS, *_UNPACK)
"""The kinds that `unpack` takes."""
