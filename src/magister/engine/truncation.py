"""Which tokens a row keeps: the smallest weight that top_k, top_p and min_p leave it.

Tokens exactly as likely as the last one kept are kept too, so that no choice depends on the order of a sort. Knows rows
of weights, the likeliest of which is 1, and their sampling; draws nothing.

Shapes: b rows of the step, r rows of a subset, v vocabulary, s the s likeliest tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from magister.types import Sampling

_HEADS = (32, 256)
"""How many of the likeliest tokens are sorted at first, and then, before all of them are."""


def truncate(weights_bv: Tensor, samplings: Sequence[Sampling]) -> None:
    """In place: weights too small for their row become 0. A row at temperature 0 is left alone."""
    vocab_size = weights_bv.shape[1]
    floors = [one.min_p if one.temperature else 0.0 for one in samplings]
    ordered = [index for index, one in enumerate(samplings) if _needs_order(one, vocab_size)]
    for index, cut in zip(ordered, _cuts(weights_bv, ordered, samplings), strict=True):
        floors[index] = max(floors[index], cut)
    if not any(floors):
        return
    if min(floors) == max(floors):
        weights_bv.mul_(weights_bv >= floors[0])
    else:
        weights_bv.mul_(weights_bv >= torch.tensor(floors, device=weights_bv.device)[:, None])


def _needs_order(sampling: Sampling, vocab_size: int) -> bool:
    return sampling.temperature > 0 and (sampling.top_p < 1 or 0 < sampling.top_k < vocab_size)


def _cuts(weights_bv: Tensor, ordered: list[int], samplings: Sequence[Sampling]) -> list[float]:
    """The smallest weight that top_k and top_p keep, of each row in `ordered`."""
    if not ordered:
        return []
    totals_r = _rows(weights_bv, ordered).sum(dim=-1, dtype=torch.float64)
    totals = dict(zip(ordered, totals_r.tolist(), strict=True))
    # Of most rows the likeliest token alone is enough: its weight is 1.
    cuts = {index: 1.0 for index, total in totals.items() if samplings[index].top_p * total <= 1.0}
    vocab_size = weights_bv.shape[1]
    for size in (*[head for head in _HEADS if head < vocab_size], vocab_size):
        open_ = [index for index in ordered if index not in cuts]
        trying = [index for index in open_ if size == vocab_size or _may_end(samplings[index], totals[index], size)]
        if trying:
            found = _cuts_within(_rows(weights_bv, trying), [samplings[index] for index in trying], size)
            cuts.update({index: cut for index, cut in zip(trying, found, strict=True) if cut is not None})
    return [cuts[index] for index in ordered]


def _may_end(sampling: Sampling, total: float, size: int) -> bool:
    """Whether the cut may lie among the `size` likeliest tokens, none of which weighs more than 1."""
    return sampling.top_k <= size if sampling.top_k else sampling.top_p * total <= size


def _rows(weights_bv: Tensor, indices: list[int]) -> Tensor:
    return weights_bv if len(indices) == len(weights_bv) else weights_bv[indices]


def _cuts_within(weights_rv: Tensor, samplings: Sequence[Sampling], size: int) -> list[float | None]:
    """`_cuts` from the `size` likeliest tokens alone; None where top_k or top_p reaches past them."""
    vocab_size, device = weights_rv.shape[1], weights_rv.device
    ks = [one.top_k if 0 < one.top_k < vocab_size else 0 for one in samplings]
    if size == vocab_size:
        head_rs = weights_rv.sort(dim=-1, descending=True).values
    else:
        head_rs = weights_rv.topk(size, dim=-1).values
    cut_r = torch.zeros(len(ks), device=device)
    left_rv = weights_rv
    if any(ks):
        k_r = torch.tensor(ks, device=device)
        cut_r = head_rs.gather(1, (k_r - 1).clamp_(min=0, max=size - 1)[:, None]).squeeze(1).where(k_r > 0, 0.0)
        left_rv = weights_rv.masked_fill(weights_rv < cut_r[:, None], 0.0)
    shares = [one.top_p for one in samplings]
    if any(share < 1 for share in shares):
        share_r = torch.tensor(shares, dtype=torch.float64, device=device)
        needed_r = share_r * left_rv.sum(dim=-1, dtype=torch.float64)
        before_r = (head_rs.cumsum(dim=-1, dtype=torch.float64) < needed_r[:, None]).sum(dim=-1)
        last_r = head_rs.gather(1, before_r.clamp(max=size - 1)[:, None]).squeeze(1)
        cut_r = torch.maximum(cut_r, last_r.where(share_r < 1, 0.0))
        befores = before_r.tolist()
    else:
        befores = [0] * len(ks)
    cuts = cut_r.tolist()
    whole = size == vocab_size
    return [
        cut if whole or (k <= size and (share == 1 or before < size)) else None
        for cut, k, share, before in zip(cuts, ks, shares, befores, strict=True)
    ]
