"""Attention over a paged cache of keys and values, as Triton kernels: reading, merging what was read in parts, writing.

One kernel reads for decoding and for chunks of a prompt. A tile of it holds a few tokens of one sequence times all
query heads that share a key head, so that each key is read once for them all. Knows no engine and no owners of blocks:
`attention` has the Python side.

Shapes: t tokens of a pass, m rows of a tile (tokens x heads of a group), s keys read at once, k head dim, g key/value
heads, h query heads, w pieces of work.
"""

from __future__ import annotations

import triton.language as tl

from magister.kernels.cuda.jit import jit, jit_any, multiply, narrow


@jit
def read_tile(
    cache: tl.tensor,
    scales: tl.tensor,
    slot_s: tl.tensor,
    ok_s: tl.tensor,
    g: tl.tensor,
    groups: tl.tensor,
    head_dim: tl.constexpr,
    quantized: tl.constexpr,
    dtype: tl.constexpr,
    widen: tl.constexpr,
) -> tl.tensor:
    """Keys or values of one head, [s, k] in `dtype`, and the scale of each, [s] (1 where the cache is not int8)."""
    row_s = slot_s * groups + g
    x_sk = tl.load(cache + row_s[:, None] * head_dim + tl.arange(0, head_dim)[None, :], mask=ok_s[:, None], other=0)
    if quantized:
        scale_s = tl.load(scales + row_s, mask=ok_s, other=0.0).to(tl.float32)
        x_sk = narrow(x_sk.to(tl.float32), dtype, widen)
    else:
        scale_s = ok_s.to(tl.float32)
    return x_sk, scale_s


@jit
def see_block(
    q_mk: tl.tensor,
    caches: tl.tensor,
    scales: tl.tensor,
    slot_s: tl.tensor,
    ok_ms: tl.tensor,
    ok_s: tl.tensor,
    g: tl.tensor,
    so_far: tl.tensor,
    log2_scale: tl.tensor,
    groups: tl.constexpr,
    quantized: tl.constexpr,
    widen: tl.constexpr,
) -> tl.tensor:
    """One block of keys and values on top of `so_far`: the largest score [m], sum [m] and weighted values [m, k].

    Running maximum and sum: Milakov and Gimelshein (2018), tiled as by Dao et al. (2022).
    """
    k_cache, v_cache = caches
    k_scales, v_scales = scales
    peak_m, sum_m, o_mk = so_far
    head_dim: tl.constexpr = q_mk.shape[1]
    dtype: tl.constexpr = q_mk.dtype
    k_sk, scale_s = read_tile(k_cache, k_scales, slot_s, ok_s, g, groups, head_dim, quantized, dtype, widen)
    score_ms = multiply(q_mk, tl.trans(k_sk), tl.zeros(ok_ms.shape, tl.float32), widen)
    score_ms = tl.where(ok_ms, score_ms * (scale_s * log2_scale)[None, :], -float("inf"))
    higher_m = tl.maximum(peak_m, tl.max(score_ms, 1))
    # A row that has seen no key yet keeps -inf: subtracting it from itself would be nan.
    level_m = tl.where(higher_m == -float("inf"), 0.0, higher_m)
    p_ms = tl.exp2(score_ms - level_m[:, None])
    fade_m = tl.exp2(peak_m - level_m)
    sum_m = sum_m * fade_m + tl.sum(p_ms, 1)
    v_sk, scale_s = read_tile(v_cache, v_scales, slot_s, ok_s, g, groups, head_dim, quantized, dtype, widen)
    o_mk = multiply(narrow(p_ms * scale_s[None, :], dtype, widen), v_sk, o_mk * fade_m[:, None], widen)
    return higher_m, sum_m, o_mk


@jit
def piece_of(work: tl.tensor, work_size: tl.tensor, item: tl.tensor) -> tl.tensor:
    """Sequence, first row, tokens and position of the first."""
    return (
        tl.load(work + item),
        tl.load(work + work_size + item),
        tl.load(work + 2 * work_size + item),
        tl.load(work + 3 * work_size + item),
    )


@jit_any("width", "work_size", "deep")
def attend_tiles(
    q: tl.tensor,
    k_cache: tl.tensor,
    v_cache: tl.tensor,
    k_scales: tl.tensor,
    v_scales: tl.tensor,
    tables: tl.tensor,
    work: tl.tensor,
    out: tl.tensor,
    marks: tl.tensor,
    width: tl.tensor,
    work_size: tl.tensor,
    deep: tl.tensor,
    q_stride: tl.tensor,
    log2_scale: tl.tensor,
    groups: tl.constexpr,
    heads: tl.constexpr,
    head_dim: tl.constexpr,
    page: tl.constexpr,
    block_m: tl.constexpr,
    block_s: tl.constexpr,
    splits: tl.constexpr,
    quantized: tl.constexpr,
    widen: tl.constexpr,
) -> None:
    """Grid: pieces of work x key heads x splits. `work` [4, w] int32: sequence (row of `tables`), first row of q,
    tokens, position of the first. The last token's own key is the last it sees, one more hides from each before it.

    Blocks of `block_s` keys are dealt to the splits in turn, counted from the sequence's first token. One split
    writes out [t, h, k]; several write float32 parts [w, deep, splits, h, k] and marks [w, deep, splits, h, 2]
    (largest score, sum) for `merge_splits`; no piece has more than `deep` tokens then.
    """
    item, g = tl.program_id(0), tl.program_id(1)
    sequence, first, tokens, position = piece_of(work, work_size, item)
    k = tl.arange(0, head_dim)[None, :]
    token_m, head_m = tl.arange(0, block_m) // heads, g * heads + tl.arange(0, block_m) % heads
    ok_m = token_m < tokens
    row_m = (first + token_m).to(tl.int64)
    q_mk = tl.load(q + (row_m * q_stride + head_m * head_dim)[:, None] + k, mask=ok_m[:, None], other=0.0)
    zero_m = tl.zeros([block_m], tl.float32)
    so_far = (zero_m - float("inf"), zero_m, tl.zeros([block_m, head_dim], tl.float32))
    table = tables + sequence.to(tl.int64) * width
    caches, scales = (k_cache, v_cache), (k_scales, v_scales)
    for block in range(tl.program_id(2), tl.cdiv(position + tokens, block_s), splits):
        at_s = block * block_s + tl.arange(0, block_s)
        ok_s = at_s < position + tokens
        ok_ms = at_s[None, :] <= position + token_m[:, None]
        slot_s = tl.load(table + at_s // page, mask=ok_s, other=0).to(tl.int64) * page + at_s % page
        so_far = see_block(q_mk, caches, scales, slot_s, ok_ms, ok_s, g, so_far, log2_scale, groups, quantized, widen)
    peak_m, sum_m, o_mk = so_far
    if splits == 1:
        out_m = row_m * (groups * heads) + head_m
        o_mk = o_mk / sum_m[:, None]
    else:
        out_m = ((item * deep + token_m).to(tl.int64) * splits + tl.program_id(2)) * (groups * heads) + head_m
        tl.store(marks + 2 * out_m, peak_m, mask=ok_m)
        tl.store(marks + 2 * out_m + 1, sum_m, mask=ok_m)
    tl.store(out + out_m[:, None] * head_dim + k, narrow(o_mk, out.dtype.element_ty, widen), mask=ok_m[:, None])


@jit_any("work_size", "deep")
def merge_splits(
    parts: tl.tensor,
    marks: tl.tensor,
    work: tl.tensor,
    out: tl.tensor,
    work_size: tl.tensor,
    deep: tl.tensor,
    all_heads: tl.tensor,
    head_dim: tl.constexpr,
    splits: tl.constexpr,
    widen: tl.constexpr,
) -> None:
    """out [t, h, k] of what `attend_tiles` left in parts. Grid: w x deep x h. Splits without keys weigh 0."""
    item, token, h = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first, tokens = tl.load(work + work_size + item), tl.load(work + 2 * work_size + item)
    if token < tokens:
        at_n = ((item * deep + token).to(tl.int64) * splits + tl.arange(0, splits)) * all_heads + h
        k = tl.arange(0, head_dim)
        peak_n = tl.load(marks + 2 * at_n)
        weight_n = tl.exp2(peak_n - tl.max(peak_n, 0))
        total = tl.sum(tl.load(marks + 2 * at_n + 1) * weight_n, 0)
        part_nk = tl.load(parts + at_n[:, None] * head_dim + k[None, :])
        o_k = tl.sum(part_nk * weight_n[:, None], 0) / total
        row = (first + token).to(tl.int64) * all_heads + h
        tl.store(out + row * head_dim + k, narrow(o_k, out.dtype.element_ty, widen))


@jit_any("tokens")
def write_slots(
    new: tl.tensor,
    slots: tl.tensor,
    cache: tl.tensor,
    scales: tl.tensor,
    tokens: tl.tensor,
    new_stride: tl.tensor,
    groups: tl.constexpr,
    head_dim: tl.constexpr,
    block_t: tl.constexpr,
    quantized: tl.constexpr,
    widen: tl.constexpr,
) -> None:
    """Puts new keys or values [t, g, k] into their slots. Grid: blocks of tokens x heads.

    int8: scale = max |x| / 127 and q = x * (127 / max |x|), rounded half to even, as in
    `quantized.quantize_activations` with one group a head.
    """
    t = tl.program_id(0) * block_t + tl.arange(0, block_t)
    ok_t, g, k = t < tokens, tl.program_id(1), tl.arange(0, head_dim)[None, :]
    at_tk = (t.to(tl.int64) * new_stride + g * head_dim)[:, None] + k
    x_tk = tl.load(new + at_tk, mask=ok_t[:, None], other=0.0).to(tl.float32)
    row_t = tl.load(slots + t, mask=ok_t, other=0).to(tl.int64) * groups + g
    if quantized:
        largest_t = tl.max(tl.abs(x_tk), 1)
        # What is not finite must spoil what reads it: tl.max passes over a nan, and int8 has neither nan nor inf.
        finite_tk = tl.abs(x_tk) < float("inf")
        largest_t = tl.where(tl.min(finite_tk.to(tl.int32), 1) > 0, largest_t, float("nan"))
        inverse_t = tl.where(largest_t > 0, tl.div_rn(127.0, tl.where(largest_t > 0, largest_t, 1.0)), 0.0)
        # Adding 1.5 * 2^23 leaves no room for a fraction: rounds half to even.
        x_tk = (x_tk * inverse_t[:, None] + 12582912.0) - 12582912.0
        x_tk = tl.where(finite_tk, x_tk, 0.0)
        tl.store(scales + row_t, tl.div_rn(largest_t, 127.0).to(scales.dtype.element_ty), mask=ok_t)
        tl.store(cache + row_t[:, None] * head_dim + k, x_tk.to(tl.int8), mask=ok_t[:, None])
    else:
        tl.store(cache + row_t[:, None] * head_dim + k, narrow(x_tk, cache.dtype.element_ty, widen), mask=ok_t[:, None])
