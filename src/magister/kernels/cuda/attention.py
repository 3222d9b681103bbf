"""Attention over a paged cache on a GPU: what a pass must compute, as small tensors, and the launches.

Equals `reference.attention` over each sequence's own keys, but for the order of sums. Sequences with few new tokens
(decoding, checking guesses) have their keys split among many programs; a split depends on the sequence's own length
alone, so its bits do not depend on what runs beside it, nor on how many of the few tokens come in one pass. Longer
chunks go by tiles of tokens without splitting.

Shapes: t tokens of a pass, b sequences, n blocks of the longest table, w pieces of work, g key/value heads, h query
heads, k head dim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from magister.kernels.cuda.attention_kernel import attend_tiles, merge_splits, write_slots
from magister.kernels.cuda.jit import interpreted

_FEW_ROWS, _MANY_ROWS = 16, 64
"""Rows (tokens x query heads of a key head) of a tile, for few new tokens and for chunks of a prompt."""
_KEYS = 64
"""Keys read at once; a quarter of it for tiles of float32, which has no tensor cores and fills the registers."""
_SPLITS = 32
"""Programs among which the keys of a sequence with few new tokens are dealt."""
_WRITE_TOKENS = 8
"""Tokens that one program writes."""


class Pages(NamedTuple):
    """Keys and values of one layer: all blocks, end to end."""

    k: Tensor
    """[slots, g, k] in the queries' dtype, or int8."""
    v: Tensor
    """Likewise."""
    k_scales: Tensor | None
    """[slots, g], of int8; else None."""
    v_scales: Tensor | None
    """Likewise."""
    page: int
    """Slots a block."""


class Work(NamedTuple):
    """What a pass attends to, on the device; the same for all layers."""

    tables: Tensor
    """int32 [b, n]: the blocks of each sequence in order."""
    few: Tensor
    """int32 [4, w]: sequence, first row, tokens, position of the first; for the split kernel."""
    many: Tensor
    """int32 [4, w]: the same for tiles of longer chunks."""
    deep: int
    """The most tokens that a piece of `few` has."""


class Fresh(NamedTuple):
    """The new tokens of one sequence."""

    row: int
    """Where they begin among the tokens of the pass."""
    start: int
    """Position of the first."""
    stop: int
    """Position after the last."""


def few_tokens(heads: int) -> int:
    """How many new tokens of one sequence count as few, at `heads` query heads a key head."""
    return max(1, _FEW_ROWS // heads)


def cut_work(fresh: Sequence[Fresh], heads: int) -> tuple[list[list[int]], list[list[int]]]:
    """`Work.few` and `Work.many` as plain numbers: columns (sequence, first row, tokens, position)."""
    few: list[list[int]] = []
    many: list[list[int]] = []
    step = max(1, _MANY_ROWS // heads)
    for sequence, (row, start, stop) in enumerate(fresh):
        if stop - start <= few_tokens(heads):
            few.append([sequence, row, stop - start, start])
            continue
        for first in range(start, stop, step):
            many.append([sequence, row + first - start, min(step, stop - first), first])
    return few, many


def write(new_tgk: Tensor, slots_t: Tensor, cache: Tensor, scales: Tensor | None) -> None:
    """Puts new keys or values [t, g, k] into slots `slots_t` of a layer's cache, rounded to int8 where it is."""
    tokens, groups, head_dim = new_tgk.shape
    _check_dims(new_tgk)
    write_slots[-(-tokens // _WRITE_TOKENS), groups](
        new_tgk,
        slots_t,
        cache,
        cache if scales is None else scales,
        tokens,
        new_tgk.stride(0),
        groups=groups,
        head_dim=head_dim,
        block_t=_WRITE_TOKENS,
        quantized=scales is not None,
        widen=interpreted(),
        enable_fp_fusion=False,
    )


def attend(q_thk: Tensor, pages: Pages, work: Work) -> Tensor:
    """[t, h, k] -> [t, h, k] in q's dtype. Every token must be in one piece of work. ValueError for a head dim that is
    no power of two from 16 to 256, or more than 16 query heads a key head.
    """
    _check_dims(q_thk)
    if q_thk.shape[1] > _FEW_ROWS * pages.k.shape[1]:
        heads = q_thk.shape[1] // pages.k.shape[1]
        raise ValueError(f"{heads} query heads share a key head, the kernels take at most {_FEW_ROWS}")
    out_thk = torch.empty(q_thk.shape, dtype=q_thk.dtype, device=q_thk.device)
    if work.few.shape[1]:
        _, all_heads, head_dim = q_thk.shape
        shape = (work.few.shape[1], work.deep, _SPLITS, all_heads)
        parts = torch.empty(*shape, head_dim, dtype=torch.float32, device=q_thk.device)
        marks = torch.empty(*shape, 2, dtype=torch.float32, device=q_thk.device)
        _launch(q_thk, pages, work, work.few, parts, marks, _FEW_ROWS, _SPLITS)
        merge_splits[work.few.shape[1], work.deep, all_heads](
            parts,
            marks,
            work.few,
            out_thk,
            work.few.shape[1],
            work.deep,
            all_heads,
            head_dim=head_dim,
            splits=_SPLITS,
            widen=interpreted(),
            enable_fp_fusion=False,
        )
    if work.many.shape[1]:
        _launch(q_thk, pages, work, work.many, out_thk, out_thk, _MANY_ROWS, 1)
    return out_thk


def _launch(
    q_thk: Tensor, pages: Pages, work: Work, pieces: Tensor, out: Tensor, marks: Tensor, rows: int, splits: int
) -> None:
    _, all_heads, head_dim = q_thk.shape
    groups = pages.k.shape[1]
    heads = all_heads // groups
    attend_tiles[pieces.shape[1], groups, splits](
        q_thk,
        pages.k,
        pages.v,
        pages.k if pages.k_scales is None else pages.k_scales,
        pages.v if pages.v_scales is None else pages.v_scales,
        work.tables,
        pieces,
        out,
        marks,
        work.tables.shape[1],
        pieces.shape[1],
        work.deep,
        q_thk.stride(0),
        math.log2(math.e) / math.sqrt(head_dim),
        groups=groups,
        heads=heads,
        head_dim=head_dim,
        page=pages.page,
        block_m=rows,
        block_s=max(16, _KEYS // 4) if splits == 1 and q_thk.dtype is torch.float32 else _KEYS,
        splits=splits,
        quantized=pages.k_scales is not None,
        widen=interpreted(),
        num_warps=8 if splits == 1 and q_thk.dtype is torch.float32 else 4,
        num_stages=2,
        enable_fp_fusion=False,
    )


def _check_dims(x_thk: Tensor) -> None:
    """The kernels read heads side by side; only tokens may be apart."""
    head_dim = x_thk.shape[-1]
    if head_dim != _power_of_two(head_dim) or not 16 <= head_dim <= 256:
        raise ValueError(f"head_dim is {head_dim}, must be a power of two from 16 to 256")
    assert x_thk.stride()[1:] == (head_dim, 1), x_thk.stride()


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()
