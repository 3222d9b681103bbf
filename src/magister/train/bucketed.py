"""Attention over many short sequences laid end to end, for training on a CPU with fast bfloat16 products.

Sequences of about one length are padded to it and computed together, as a few large products; scores are held whole,
which only short sequences allow. To a compiler it is one operator, whatever the lengths are. The arithmetic is
`kernels.reference.attention`'s, causal within each sequence; knows nothing of layers or weights.

Shapes: t tokens laid end to end, h query heads, g key/value heads, k head dim; n sequences of one bucket, l tokens of
each, padding included, i = n * g independent attentions, j * l rows of queries that share one key/value head.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


def _padded(length: int) -> int:
    """The length a sequence is padded to: a multiple of a power of two about an eighth of it, and of 32 at least."""
    grain = 1 << max(5, length.bit_length() - 3)
    return -(-length // grain) * grain


class BucketedAttention:
    """An `Attend` over a flat row [t] of whole sequences, with `CausalAttention`'s result."""

    def __init__(self, lengths: list[int]) -> None:
        """`lengths`: tokens of each sequence, in order."""
        self.tokens = sum(lengths)
        self.lengths_s = torch.tensor(lengths)

    def __call__(self, layer: int, q_thk: Tensor, k_tgk: Tensor, v_tgk: Tensor) -> Tensor:
        """[t, h, k], [t, g, k], [t, g, k] -> [t, h, k]. ValueError if the lengths do not add up to t."""
        if self.tokens != q_thk.shape[0]:
            raise ValueError(f"lengths add up to {self.tokens} tokens, the row has {q_thk.shape[0]}")
        attended_thk: Tensor = attend(q_thk, k_tgk, v_tgk, self.lengths_s)
        return attended_thk


@torch.library.custom_op("magister::bucketed_attention", mutates_args=())
def attend(q_thk: Tensor, k_tgk: Tensor, v_tgk: Tensor, lengths_s: Tensor) -> Tensor:
    """Causal attention within each of the sequences whose lengths are given."""
    q, kv = _rows_of(q_thk, k_tgk, lengths_s)
    parts = []
    for q_ijk, k_ilk, v_ilk in zip(q.gather(q_thk), kv.gather(k_tgk), kv.gather(v_tgk), strict=True):
        parts.append(torch.bmm(_weights(q_ijk, k_ilk), v_ilk))
    return q.scatter(parts)


@torch.library.custom_op("magister::bucketed_attention_backward", mutates_args=())
def attend_backward(
    grad_thk: Tensor, q_thk: Tensor, k_tgk: Tensor, v_tgk: Tensor, lengths_s: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; the weights are computed once more rather than kept."""
    q, kv = _rows_of(q_thk, k_tgk, lengths_s)
    grads_q, grads_k, grads_v = [], [], []
    gathered = (q.gather(grad_thk), q.gather(q_thk), kv.gather(k_tgk), kv.gather(v_tgk))
    for grad_ijk, q_ijk, k_ilk, v_ilk in zip(*gathered, strict=True):
        p_ijl = _weights(q_ijk, k_ilk)
        grads_v.append(torch.bmm(p_ijl.mT, grad_ijk))
        grad_p_ijl = torch.bmm(grad_ijk, v_ilk.mT)
        grad_s_ijl = torch._softmax_backward_data(grad_p_ijl, p_ijl, -1, p_ijl.dtype)
        scale = q_ijk.shape[-1] ** -0.5
        grads_q.append(torch.bmm(grad_s_ijl, k_ilk).mul_(scale))
        grads_k.append(torch.bmm(grad_s_ijl.mT, q_ijk).mul_(scale))
    return q.scatter(grads_q), kv.scatter(grads_k), kv.scatter(grads_v)


@attend.register_fake
def _(q_thk: Tensor, k_tgk: Tensor, v_tgk: Tensor, lengths_s: Tensor) -> Tensor:
    return torch.empty_like(q_thk, memory_format=torch.contiguous_format)


@attend_backward.register_fake
def _(
    grad_thk: Tensor, q_thk: Tensor, k_tgk: Tensor, v_tgk: Tensor, lengths_s: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q_thk, k_tgk, v_tgk))
    return q, k, v


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_thk: Tensor) -> tuple[Tensor | None, ...]:
    return (*attend_backward(grad_thk, *ctx.saved_tensors), None)


attend.register_autograd(_backward, setup_context=_keep)


def _weights(q_ijk: Tensor, k_ilk: Tensor) -> Tensor:
    """What each query takes of each key of its sequence, [i, j * l, l]. Padding stands last, so nobody sees it."""
    length = k_ilk.shape[1]
    mask_ll = torch.full((length, length), float("-inf"), dtype=q_ijk.dtype).triu_(1)
    mask_jl = mask_ll.repeat(q_ijk.shape[1] // length, 1)
    scores_ijl = torch.baddbmm(mask_jl, q_ijk, k_ilk.mT, alpha=q_ijk.shape[-1] ** -0.5)
    return torch.softmax(scores_ijl, -1)


class _Bucket(NamedTuple):
    """Sequences computed together."""

    length: int
    """All are padded to it."""
    members: list[int]
    """Which they are; a power of two of them."""


def _buckets(lengths: tuple[int, ...]) -> Iterator[_Bucket]:
    """Sequences of one padded length, a power of two at a time.

    For each shape of a product a library compiles a kernel and keeps it; of few lengths and numbers there are few.
    """
    alike: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        alike.setdefault(_padded(length), []).append(place)
    for length, members in sorted(alike.items()):
        while members:
            size = 1 << (len(members).bit_length() - 1)
            yield _Bucket(length, members[:size])
            members = members[size:]


def _rows_of(q_thk: Tensor, k_tgk: Tensor, lengths_s: Tensor) -> tuple[_Rows, _Rows]:
    """Where the heads of queries, and those of keys and values, are in the buckets."""
    lengths, heads, groups = tuple(lengths_s.tolist()), q_thk.shape[1], k_tgk.shape[1]
    return _rows(lengths, heads, groups), _rows(lengths, groups, groups)


@lru_cache(maxsize=2)
def _rows(lengths: tuple[int, ...], heads: int, groups: int) -> _Rows:
    """The same in every layer of a step: kept until the next batch comes."""
    return _Rows(lengths, heads, groups)


class _Rows:
    """Where the heads of each token are in the buckets, and back."""

    def __init__(self, sizes: tuple[int, ...], heads: int, groups: int) -> None:
        lengths = np.array(sizes, dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        self._tokens, self._heads = int(lengths.sum()), heads
        self._shapes: list[tuple[int, int]] = []
        self._sources: list[Tensor] = []
        back = np.empty(self._tokens * heads, dtype=np.int64)
        # Heads of one key/value head one below the other: its keys are then read once for all of them.
        head_gj = np.arange(heads).reshape(groups, heads // groups)
        taken = 0
        for length, members in _buckets(sizes):
            place_l = np.arange(length)
            token_nl = np.where(place_l < lengths[members, None], starts[members, None] + place_l, self._tokens)
            source = (token_nl[:, None, None, :] * heads + head_gj[None, :, :, None]).reshape(-1)
            real = source < self._tokens * heads
            back[source[real]] = taken + np.flatnonzero(real)
            taken += len(source)
            self._sources.append(torch.from_numpy(source))
            self._shapes.append((len(members) * groups, heads // groups * length))
        self._back = torch.from_numpy(back)

    def gather(self, x_thk: Tensor) -> Iterator[Tensor]:
        """Each bucket's rows [i, j * l, k]; those of padding are zero."""
        dim = x_thk.shape[-1]
        rows = torch.cat((x_thk.reshape(-1, dim), x_thk.new_zeros(self._heads, dim)))
        for source, shape in zip(self._sources, self._shapes, strict=True):
            yield rows.index_select(0, source).view(*shape, dim)

    def scatter(self, parts: list[Tensor]) -> Tensor:
        """[t, h, k] again, padding dropped."""
        dim = parts[0].shape[-1]
        rows = torch.cat([part.view(-1, dim) for part in parts])
        return rows.index_select(0, self._back).view(self._tokens, self._heads, dim)
