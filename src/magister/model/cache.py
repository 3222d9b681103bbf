"""Keys and values of past tokens, and the `Attend` that adds to them and reads them.

A slot is one token's place in every layer. This module is told, per sequence, which slots are its own and which of its
tokens are new (a span); who may have which slot, and when it is free again, is the engine's affair. A decode is a span
of one token, a chunk of a prompt is a span that stops early: there is no other difference between the two.

Shapes: t new tokens of all spans end to end, s tokens of one sequence, b sequences, h query heads, g key/value heads, k
head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from magister.kernels import reference
from magister.model.config import DecoderConfig

_BATCH_LENGTH = 1024
"""Tokens up to which one-token spans are gathered and padded into one call. Beyond, copying the keys costs more than
the calls saved (measured on one CPU core with 2 key/value heads of 32: equal at 1024, half the speed at 4096).
"""
_BATCH_RATIO = 1.5
"""How much longer than the shortest the longest sequence of one padded call may be..."""
_BATCH_FLOOR = 128
"""...unless it is no longer than this."""
_MASK_ELEMENTS = 1 << 24
"""Elements a causal mask may have before the queries are cut into blocks: 64 MiB of float32."""


@dataclass(frozen=True)
class Span:
    """The new tokens of one sequence in one pass."""

    slots: Tensor
    """Slots of the sequence's tokens from its first, int64 [at least stop], best on the CPU. Those from `start` to
    `stop` are written, all below `stop` are read.
    """
    start: int
    """Position of the first new token; everything before is in the cache."""
    stop: int
    """Position after the last new token."""
    first: int | None = None
    """`slots[0]`, by whoever knows that the slots are neighbours and has not this module find out for each pass."""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"start is {self.start} and stop is {self.stop}, must be 0 <= start < stop")
        if len(self.slots) < self.stop:
            raise ValueError(f"slots has {len(self.slots)} entries, stop is {self.stop}")


class KVFormat(StrEnum):
    """How keys and values are held."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"
    """Whole numbers -127..127, with a float32 scale per token and head for keys and one for values."""


_STORED = {KVFormat.FP32: torch.float32, KVFormat.BF16: torch.bfloat16, KVFormat.INT8: torch.int8}


class _Layer:
    """Keys and values of one layer, in the dtype that attention computes in."""

    def __init__(self, k_sgk: Tensor, v_sgk: Tensor, dtype: torch.dtype) -> None:
        self._k_sgk = k_sgk
        self._v_sgk = v_sgk
        self._dtype = dtype

    def write(self, slots_t: Tensor, k_tgk: Tensor, v_tgk: Tensor) -> None:
        self._k_sgk.index_copy_(0, slots_t, k_tgk.to(self._k_sgk.dtype))
        self._v_sgk.index_copy_(0, slots_t, v_tgk.to(self._v_sgk.dtype))

    def run(self, where: slice) -> tuple[Tensor, Tensor]:
        """Of neighbouring slots, without a copy where nothing has to be converted."""
        return self._k_sgk[where].to(self._dtype), self._v_sgk[where].to(self._dtype)

    def gather(self, slots_s: Tensor) -> tuple[Tensor, Tensor]:
        # index_select is several times quicker than indexing with a matrix.
        k_sgk, v_sgk = self._k_sgk.index_select(0, slots_s), self._v_sgk.index_select(0, slots_s)
        return k_sgk.to(self._dtype), v_sgk.to(self._dtype)


class _Int8Layer(_Layer):
    """The same, as whole numbers and scales: x = q * scale, scale = max |x| of the head / 127."""

    def __init__(self, k_sgk: Tensor, v_sgk: Tensor, dtype: torch.dtype) -> None:
        super().__init__(k_sgk, v_sgk, dtype)
        self._k_scales_sg1 = torch.zeros(*k_sgk.shape[:2], 1, device=k_sgk.device)
        self._v_scales_sg1 = torch.zeros(*v_sgk.shape[:2], 1, device=v_sgk.device)

    def write(self, slots_t: Tensor, k_tgk: Tensor, v_tgk: Tensor) -> None:
        for x_tgk, q_sgk, scales_sg1 in (
            (k_tgk, self._k_sgk, self._k_scales_sg1),
            (v_tgk, self._v_sgk, self._v_scales_sg1),
        ):
            q_tgk, scales_tg1 = quantize_heads(x_tgk)
            q_sgk.index_copy_(0, slots_t, q_tgk)
            scales_sg1.index_copy_(0, slots_t, scales_tg1)

    def run(self, where: slice) -> tuple[Tensor, Tensor]:
        k_sgk = self._k_sgk[where] * self._k_scales_sg1[where]
        v_sgk = self._v_sgk[where] * self._v_scales_sg1[where]
        return k_sgk.to(self._dtype), v_sgk.to(self._dtype)

    def gather(self, slots_s: Tensor) -> tuple[Tensor, Tensor]:
        k_sgk = self._k_sgk.index_select(0, slots_s) * self._k_scales_sg1.index_select(0, slots_s)
        v_sgk = self._v_sgk.index_select(0, slots_s) * self._v_scales_sg1.index_select(0, slots_s)
        return k_sgk.to(self._dtype), v_sgk.to(self._dtype)


def quantize_heads(x_tgk: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors [..., k] -> int8 [..., k] in -127..127 and a float32 scale for each, [..., 1]; zeros have scale 0.

    A vector with a NaN or an infinity has a scale that is not finite either, so that it still spoils what reads it.
    """
    wide_tgk = x_tgk.float()
    largest_tg1 = wide_tgk.abs().amax(dim=-1, keepdim=True)
    # A number over a tensor is its reciprocal times the number in torch: rounded twice, where the kernels round once.
    inverse_tg1 = torch.where(largest_tg1 > 0, torch.full_like(largest_tg1, 127.0) / largest_tg1, 0.0)
    q_tgk = (wide_tgk * inverse_tg1).round_().nan_to_num_(nan=1.0).clamp_(-127, 127).to(torch.int8)
    return q_tgk, largest_tg1 / 127.0


class KVCache:
    """The tensors. All zeros at first: slots never written hold finite numbers."""

    def __init__(self, k: Tensor, v: Tensor, dtype: torch.dtype | None = None) -> None:
        """Both [n_layers, num_slots, g, k], float or int8; `dtype` is what they are read as, None says theirs."""
        self.k = k
        self.v = v
        kind = _Int8Layer if k.dtype is torch.int8 else _Layer
        pairs = zip(k.unbind(0), v.unbind(0), strict=True)
        self.dtype = k.dtype if dtype is None else dtype
        self.layers = [kind(k_sgk, v_sgk, self.dtype) for k_sgk, v_sgk in pairs]

    @classmethod
    def allocate(
        cls,
        config: DecoderConfig,
        num_slots: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        kv: KVFormat | None = None,
    ) -> KVCache:
        """Room for `num_slots` tokens of this network, of all sequences together. Without `kv` they are held in
        `dtype`, the network's own.
        """
        shape = (config.n_layers, num_slots, config.n_kv_heads, config.head_dim)
        stored = dtype if kv is None else _STORED[kv]
        k, v = (torch.zeros(shape, device=device, dtype=stored) for _ in range(2))
        return cls(k, v, dtype)


class _Reach(NamedTuple):
    """Where the keys and values of one sequence are: a run of neighbouring slots, else each slot by itself."""

    run: slice | None
    slots: Tensor | None

    def read(self, layer: _Layer) -> tuple[Tensor, Tensor]:
        if self.run is not None:
            return layer.run(self.run)
        assert self.slots is not None
        return layer.gather(self.slots)


class _Chunk(NamedTuple):
    """A span of several tokens, attended to on its own."""

    rows: slice
    reach: _Reach
    start: int
    mask: Tensor | None


class _Ones(NamedTuple):
    """Spans of one token each, attended to in one call."""

    rows: list[int]
    slots_bs: Tensor
    mask_bs: Tensor | None


class _One(NamedTuple):
    """A span of one token, attended to on its own."""

    row: int
    reach: _Reach


class CachedAttention:
    """Attention of new tokens to themselves and to their sequence's past. Made for one pass and used by all its layers.

    Each call writes the new keys and values of its layer into the cache, then reads. The result of a sequence does not
    depend on what runs beside it, beyond the rounding of a differently shaped call.
    """

    def __init__(self, cache: KVCache, spans: Sequence[Span]) -> None:
        """`spans`: one per sequence, in the order in which their new tokens stand in the row [t]."""
        self.layers = cache.layers
        device, dtype = cache.k.device, cache.dtype
        self.n_tokens = sum(span.stop - span.start for span in spans)
        written = [span.slots[span.start : span.stop] for span in spans]
        self.written_t = (written[0] if len(written) == 1 else torch.cat(written)).to(device)
        self.parts: list[_Chunk | _Ones | _One] = []
        ones: list[tuple[int, Span]] = []
        row = 0
        for span in spans:
            n = span.stop - span.start
            if n == 1:
                ones.append((row, span))
            else:
                mask = _band_mask(span.start, span.stop, device, dtype)
                self.parts.append(_Chunk(slice(row, row + n), _reach(span, device), span.start, mask))
            row += n
        self.parts.extend(_group(group, device, dtype) for group in _groups(ones))

    def __call__(self, layer: int, q_thk: Tensor, k_tgk: Tensor, v_tgk: Tensor) -> Tensor:
        """[t, h, k], [t, g, k], [t, g, k] -> [t, h, k]. ValueError if the row is not as long as the spans together."""
        if q_thk.shape[0] != self.n_tokens:
            raise ValueError(f"the spans have {self.n_tokens} new tokens, the row has {q_thk.shape[0]}")
        cache = self.layers[layer]
        cache.write(self.written_t, k_tgk, v_tgk)
        if len(self.parts) == 1:
            return _attend(self.parts[0], q_thk, cache)
        out_thk = torch.empty_like(q_thk)
        for part in self.parts:
            match part:
                case _Chunk(rows=rows):
                    out_thk[rows] = _attend(part, q_thk[rows], cache)
                case _Ones(rows=indices):
                    out_thk[indices] = _attend(part, q_thk[indices], cache)
                case _One(row=row):
                    out_thk[row : row + 1] = _attend(part, q_thk[row : row + 1], cache)
        return out_thk


def _attend(part: _Chunk | _Ones | _One, q_thk: Tensor, cache: _Layer) -> Tensor:
    match part:
        case _Chunk(reach=reach, start=start, mask=mask):
            return _attend_chunk(q_thk, *reach.read(cache), start, mask)
        case _Ones(slots_bs=slots_bs, mask_bs=mask_bs):
            k_ngk, v_ngk = cache.gather(slots_bs.view(-1))
            shape = (*slots_bs.shape, *k_ngk.shape[1:])
            return reference.attention_one(q_thk, k_ngk.view(shape), v_ngk.view(shape), mask_bs)
        case _One(reach=reach):
            k_sgk, v_sgk = reach.read(cache)
            return reference.attention_one(q_thk, k_sgk[None], v_sgk[None])


def _attend_chunk(q_thk: Tensor, k_sgk: Tensor, v_sgk: Tensor, start: int, mask: Tensor | None) -> Tensor:
    if mask is None:
        return reference.attention(q_thk[None], k_sgk[None], v_sgk[None], causal=True)[0]
    block, width = mask.shape
    out_thk = torch.empty_like(q_thk)
    for first in range(0, len(q_thk), block):
        n = min(block, len(q_thk) - first)
        seen = start + first + n
        # The hidden triangle is at the mask's right end; this slides it onto the block's diagonal.
        shift = width - block - (start + first)
        out_thk[first : first + n] = reference.attention(
            q_thk[None, first : first + n],
            k_sgk[None, :seen],
            v_sgk[None, :seen],
            mask=mask[:n, shift : shift + seen],
        )[0]
    return out_thk


def _band_mask(start: int, stop: int, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    """One additive mask for all blocks of queries of a chunk, [block, at most stop + block]; None if plain causality
    does.

    Worked example: start 2, stop 7, blocks of 2. The last block holds token 6 alone and starts at 6, so the mask is [2,
    8]: six zeros, then [[0, -inf], [0, 0]]. The first block (tokens 2, 3) sees keys 0..3 and uses columns 4..7: [[0, 0,
    0, -inf], [0, 0, 0, 0]].
    """
    if start == 0:
        return None
    block = min(stop - start, max(32, _MASK_ELEMENTS // stop))
    last = start + (stop - start - 1) // block * block
    mask = torch.zeros(block, last + block, device=device, dtype=dtype)
    mask[:, last:] = torch.full((block, block), float("-inf"), device=device, dtype=dtype).triu(1)
    return mask


def _reach(span: Span, device: torch.device) -> _Reach:
    if span.first is not None:
        return _Reach(slice(span.first, span.first + span.stop), None)
    slots = span.slots[: span.stop]
    first, last = int(slots[0]), int(slots[-1])
    neighbours = last - first == span.stop - 1
    if neighbours and torch.equal(slots, torch.arange(first, last + 1, device=slots.device)):
        return _Reach(slice(first, last + 1), None)
    return _Reach(None, slots.to(device))


def _groups(ones: list[tuple[int, Span]]) -> list[list[tuple[int, Span]]]:
    """One-token spans of like length together, long ones alone."""
    if len(ones) < 2:
        return [ones] if ones else []
    groups: list[list[tuple[int, Span]]] = []
    limit = 0
    for row, span in sorted(ones, key=lambda one: one[1].stop):
        if span.stop > limit:
            groups.append([])
            limit = min(max(int(span.stop * _BATCH_RATIO), _BATCH_FLOOR), _BATCH_LENGTH)
        groups[-1].append((row, span))
    # In row order, so that a group of all rows needs no gathering of queries and no scattering of results.
    return [sorted(group, key=lambda one: one[0]) for group in groups]


def _group(group: list[tuple[int, Span]], device: torch.device, dtype: torch.dtype) -> _Ones | _One:
    if len(group) == 1:
        row, span = group[0]
        return _One(row, _reach(span, device))
    lengths_b1 = torch.tensor([[span.stop] for _, span in group])
    longest = max(span.stop for _, span in group)
    inside_bs = torch.arange(longest) < lengths_b1
    slots_bs = _slots([span for _, span in group], inside_bs)
    mask_bs = None
    if min(span.stop for _, span in group) < longest:
        mask_bs = torch.zeros(slots_bs.shape, dtype=dtype).masked_fill_(~inside_bs, float("-inf")).to(device)
    return _Ones([row for row, _ in group], slots_bs.to(device), mask_bs)


def _slots(spans: Sequence[Span], inside_bs: Tensor) -> Tensor:
    """Slots of each sequence [b, s], where `inside_bs`; elsewhere its own first one: another's might hold what is not
    finite, and 0 * nan is nan.
    """
    firsts_b1 = torch.tensor([[span.first if span.first is not None else int(span.slots[0])] for span in spans])
    longest = inside_bs.shape[1]
    slots_bs = torch.where(inside_bs, firsts_b1 + torch.arange(longest), firsts_b1)
    for row, span in enumerate(spans):
        if span.first is None:
            slots_bs[row, : span.stop] = span.slots[: span.stop]
    return slots_bs
