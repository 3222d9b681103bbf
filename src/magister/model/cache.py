"""Keys and values of past tokens, and the `Attend` that adds to them and reads them.

A slot is one token's place in every layer. This module is told, per sequence, which slots are its own and which of its
tokens are new (a span); who may have which slot, and when it is free again, is the engine's affair. A decode is a span
of one token, a chunk of a prompt is a span that stops early: there is no other difference between the two.

Shapes: t new tokens of all spans end to end, s tokens of one sequence, b sequences, h query heads, g key/value heads, k
head dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"start is {self.start} and stop is {self.stop}, must be 0 <= start < stop")
        if len(self.slots) < self.stop:
            raise ValueError(f"slots has {len(self.slots)} entries, stop is {self.stop}")


class KVCache:
    """The tensors. All zeros at first: slots never written hold finite numbers."""

    def __init__(self, k: Tensor, v: Tensor) -> None:
        """Both [n_layers, num_slots, g, k]."""
        self.k = k
        self.v = v

    @classmethod
    def allocate(
        cls,
        config: DecoderConfig,
        num_slots: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "KVCache":
        """Room for `num_slots` tokens of this network, of all sequences together."""
        shape = (config.n_layers, num_slots, config.n_kv_heads, config.head_dim)
        return cls(torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype))


class _Reach(NamedTuple):
    """Where the keys and values of one sequence are: a run of neighbouring slots, else each slot by itself."""

    run: slice | None
    slots: Tensor | None

    def read(self, cache_sgk: Tensor) -> Tensor:
        if self.run is not None:
            return cache_sgk[self.run]
        assert self.slots is not None
        return cache_sgk.index_select(0, self.slots)


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
        self.k = cache.k.unbind(0)
        self.v = cache.v.unbind(0)
        device, dtype = cache.k.device, cache.k.dtype
        self.n_tokens = sum(span.stop - span.start for span in spans)
        self.written_t = torch.cat([span.slots[span.start : span.stop] for span in spans]).to(device)
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
        k_cache, v_cache = self.k[layer], self.v[layer]
        k_cache.index_copy_(0, self.written_t, k_tgk)
        v_cache.index_copy_(0, self.written_t, v_tgk)
        if len(self.parts) == 1:
            return _attend(self.parts[0], q_thk, k_cache, v_cache)
        out_thk = torch.empty_like(q_thk)
        for part in self.parts:
            match part:
                case _Chunk(rows=rows):
                    out_thk[rows] = _attend(part, q_thk[rows], k_cache, v_cache)
                case _Ones(rows=indices):
                    out_thk[indices] = _attend(part, q_thk[indices], k_cache, v_cache)
                case _One(row=row):
                    out_thk[row : row + 1] = _attend(part, q_thk[row : row + 1], k_cache, v_cache)
        return out_thk


def span_positions(spans: Sequence[Span], device: torch.device | str = "cpu") -> Tensor:
    """The positions of the new tokens of all spans, end to end: [t] int64."""
    return torch.cat([torch.arange(span.start, span.stop) for span in spans]).to(device)


def _attend(part: "_Chunk | _Ones | _One", q_thk: Tensor, k_cache: Tensor, v_cache: Tensor) -> Tensor:
    match part:
        case _Chunk(reach=reach, start=start, mask=mask):
            return _attend_chunk(q_thk, reach.read(k_cache), reach.read(v_cache), start, mask)
        case _Ones(slots_bs=slots_bs, mask_bs=mask_bs):
            k_bsgk, v_bsgk = _gather(k_cache, slots_bs), _gather(v_cache, slots_bs)
            return reference.attention_one(q_thk, k_bsgk, v_bsgk, mask_bs)
        case _One(reach=reach):
            return reference.attention_one(q_thk, reach.read(k_cache)[None], reach.read(v_cache)[None])


def _gather(cache_sgk: Tensor, slots_bs: Tensor) -> Tensor:
    # index_select is several times quicker than indexing with a matrix.
    return cache_sgk.index_select(0, slots_bs.view(-1)).view(*slots_bs.shape, *cache_sgk.shape[1:])


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
    lengths_b = torch.tensor([span.stop for _, span in group])
    longest = int(lengths_b.max())
    # Padding repeats a sequence's own first slot: another's might hold what is not finite, and 0 * nan is nan.
    slots_bs = torch.stack([_padded(span, longest) for _, span in group])
    mask_bs = None
    if int(lengths_b.min()) < longest:
        mask_bs = torch.zeros(slots_bs.shape, dtype=dtype)
        mask_bs = mask_bs.masked_fill(torch.arange(longest) >= lengths_b[:, None], float("-inf")).to(device)
    return _Ones([row for row, _ in group], slots_bs.to(device), mask_bs)


def _padded(span: Span, length: int) -> Tensor:
    slots = span.slots[: span.stop]
    if span.stop == length:
        return slots
    return torch.cat((slots, slots[:1].expand(length - span.stop)))
