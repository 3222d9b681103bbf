"""Logits -> tokens: one pass over the rows of a step.

Order, for each row: (1) ids never sampled and banned ones out, bias added, penalties subtracted; (2) division by the
temperature; (3) top_k; (4) top_p on what top_k left; (5) min_p, against the likeliest token; (6) one draw by inverse
distribution function. Tokens exactly as likely as the last one kept are kept too, so that no choice depends on the
order of a sort. Temperature 0 takes the likeliest token after (1) and has nothing left to truncate.

Knows rows, not sequences: what a row may draw and how lucky it is are told to it (`Row`).

Shapes: b rows of the step, r rows of a subset, v vocabulary, s the s likeliest tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from magister.types import Sampling, TokenLogprob

_HEAD = 256
"""How many of the likeliest tokens are sorted at first; truncation seldom looks past them."""

_COLDEST = 1e-30
"""The smallest temperature that float32 can divide by; at and below it only exact ties are random."""


class Row(NamedTuple):
    """What one row of logits is drawn under."""

    sampling: Sampling
    uniform: float = 0.0
    """The row's luck, in [0, 1); not read at temperature 0."""
    counts: Mapping[int, int] = {}
    """How often each token was generated before; read by the penalties only."""
    forced: int | None = None
    """The token to take whatever the logits say."""
    banned: int | None = None
    """A token not to draw."""


class Report(NamedTuple):
    """What `logprobs` asks for."""

    logprob: float
    """Under the untouched distribution."""
    sampled_logprob: float
    """Under the one drawn from; 0 for a token that was forced or greedy, which are certain."""
    entropy: float
    """Of the untouched distribution, in nats."""
    top: tuple[TokenLogprob, ...]
    """The likeliest under the untouched distribution."""


class Drawn(NamedTuple):
    """The outcome of one row."""

    id: int
    forced: bool
    report: Report | None
    """None unless the row asked for logprobs."""


class _Draw(NamedTuple):
    """All rows' tokens before reports: None where there was nothing to draw from."""

    ids: list[int | None]
    sampled_logprobs: list[float]


class Sampler:
    """Draws one token a row."""

    def __init__(self, vocab_size: int, never: Iterable[int], device: torch.device) -> None:
        """`never`: ids out of reach for every row."""
        ids = sorted(never)
        self._never_v: Tensor | None = None
        if ids:
            self._never_v = torch.zeros(vocab_size, device=device)
            self._never_v[ids] = -math.inf

    def draw(self, logits_bv: Tensor, rows: Sequence[Row]) -> list[Drawn | None]:
        """One token for each row; None for a row whose logits have a NaN, an infinity, or nothing left to draw."""
        assert logits_bv.shape[0] == len(rows)
        if not rows:
            return []
        raw_bv = logits_bv.float()
        draw = _draw(self._edit(raw_bv, rows), rows)
        ids = [
            id_ if row.forced is None or id_ is None else row.forced for id_, row in zip(draw.ids, rows, strict=True)
        ]
        reports = _reports(raw_bv, rows, ids, draw.sampled_logprobs)
        return [
            None if id_ is None else Drawn(id_, row.forced is not None, report)
            for id_, row, report in zip(ids, rows, reports, strict=True)
        ]

    def _edit(self, raw_bv: Tensor, rows: Sequence[Row]) -> Tensor:
        """Step (1): a new tensor unless there is nothing to do."""
        edits: dict[tuple[int, int], float] = {}
        for index, row in enumerate(rows):
            _collect_edits(edits, index, row)
        x_bv = raw_bv if self._never_v is None else raw_bv + self._never_v
        if not edits:
            return x_bv
        index_2e = torch.tensor(list(edits), device=raw_bv.device).t()
        values_e = torch.tensor(list(edits.values()), dtype=torch.float32, device=raw_bv.device)
        return x_bv.index_put((index_2e[0], index_2e[1]), values_e, accumulate=True)


def _collect_edits(edits: dict[tuple[int, int], float], index: int, row: Row) -> None:
    """What is added to which logits of one row; bias, penalties and a ban of the same token add up."""
    sampling = row.sampling
    for id_, bias in sampling.logit_bias.items():
        edits[index, id_] = bias
    if sampling.frequency_penalty or sampling.presence_penalty:
        for id_, count in row.counts.items():
            penalty = sampling.presence_penalty + sampling.frequency_penalty * count
            edits[index, id_] = edits.get((index, id_), 0.0) - penalty
    if row.banned is not None:
        edits[index, row.banned] = -math.inf


def _draw(x_bv: Tensor, rows: Sequence[Row]) -> _Draw:
    best_b, best_ids_b = x_bv.max(dim=-1)
    # The largest logit is NaN where any is; it is -inf where nothing is left.
    usable = [math.isfinite(best) for best in best_b.tolist()]
    greedy_ids = best_ids_b.tolist()
    if all(row.sampling.temperature == 0 for row in rows):
        return _Draw([id_ if ok else None for id_, ok in zip(greedy_ids, usable, strict=True)], [0.0] * len(rows))
    temperatures_b = torch.tensor([max(row.sampling.temperature, _COLDEST) for row in rows], device=x_bv.device)
    # The likeliest token has weight 1: min_p needs no division, and no temperature overflows.
    weights_bv = ((x_bv - best_b[:, None]) / temperatures_b[:, None]).exp()
    _truncate(weights_bv, rows)
    masses_bv = weights_bv.cumsum(dim=-1, dtype=torch.float64)
    totals_b1 = masses_bv[:, -1:]
    luck_b1 = torch.tensor([[row.uniform] for row in rows], dtype=torch.float64, device=x_bv.device)
    drawn_b1 = torch.searchsorted(masses_bv, luck_b1 * totals_b1, right=True)
    # Rows without a total (NaN) find nothing; they are dropped below, but must not break the gather.
    drawn_b1.clamp_(max=x_bv.shape[1] - 1)
    logprobs = [0.0] * len(rows)
    if any(row.sampling.logprobs for row in rows):
        logprobs = (weights_bv.gather(1, drawn_b1).double() / totals_b1).log_().flatten().tolist()
    ids: list[int | None] = []
    for index, (row, drawn) in enumerate(zip(rows, drawn_b1.flatten().tolist(), strict=True)):
        greedy = row.sampling.temperature == 0
        ids.append((greedy_ids[index] if greedy else drawn) if usable[index] else None)
        if greedy:
            logprobs[index] = 0.0
    return _Draw(ids, logprobs)


def _truncate(weights_bv: Tensor, rows: Sequence[Row]) -> None:
    """Steps (3) to (5), in place: weights too small for their row become 0."""
    vocab_size = weights_bv.shape[1]
    floors = [row.sampling.min_p if row.sampling.temperature else 0.0 for row in rows]
    ordered = [index for index, row in enumerate(rows) if _needs_order(row.sampling, vocab_size)]
    if not ordered and not any(floors):
        return
    cut_b = torch.tensor(floors, device=weights_bv.device)
    if len(ordered) == len(rows):
        cut_b = torch.maximum(cut_b, _cut(weights_bv, rows))
    elif ordered:
        cut_r = _cut(weights_bv[ordered], [rows[index] for index in ordered])
        cut_b[ordered] = torch.maximum(cut_b[ordered], cut_r)
    weights_bv.masked_fill_(weights_bv < cut_b[:, None], 0.0)


def _needs_order(sampling: Sampling, vocab_size: int) -> bool:
    return sampling.temperature > 0 and (sampling.top_p < 1 or 0 < sampling.top_k < vocab_size)


def _cut(weights_rv: Tensor, rows: Sequence[Row]) -> Tensor:
    """The smallest weight that top_k and top_p keep, [r]. Looks at the likeliest few first, then at all if need be."""
    vocab_size = weights_rv.shape[1]
    ks = [row.sampling.top_k if 0 < row.sampling.top_k < vocab_size else 0 for row in rows]
    size = vocab_size if max(ks) > _HEAD else min(_HEAD, vocab_size)
    cut_r = _cut_within(weights_rv, rows, ks, size)
    if cut_r is None:
        cut_r = _cut_within(weights_rv, rows, ks, vocab_size)
    assert cut_r is not None
    return cut_r


def _cut_within(weights_rv: Tensor, rows: Sequence[Row], ks: list[int], size: int) -> Tensor | None:
    """`_cut` from the `size` likeliest tokens alone; None where top_p reaches past them."""
    device = weights_rv.device
    head_rs = weights_rv.topk(size, dim=-1).values
    cut_r = torch.zeros(len(rows), device=device)
    left_rv = weights_rv
    if any(ks):
        k_r = torch.tensor(ks, device=device)
        cut_r = head_rs.gather(1, (k_r - 1).clamp_(min=0)[:, None]).squeeze(1).where(k_r > 0, 0.0)
        left_rv = weights_rv.masked_fill(weights_rv < cut_r[:, None], 0.0)
    shares = [row.sampling.top_p for row in rows]
    if all(share == 1 for share in shares):
        return cut_r
    share_r = torch.tensor(shares, dtype=torch.float64, device=device)
    needed_r = share_r * left_rv.sum(dim=-1, dtype=torch.float64)
    before_r = (head_rs.cumsum(dim=-1, dtype=torch.float64) < needed_r[:, None]).sum(dim=-1)
    if size < weights_rv.shape[1] and bool(((before_r == size) & (share_r < 1)).any()):
        return None
    last_r = head_rs.gather(1, before_r.clamp_(max=size - 1)[:, None]).squeeze(1)
    return torch.maximum(cut_r, last_r.where(share_r < 1, 0.0))


def _reports(
    raw_bv: Tensor, rows: Sequence[Row], ids: Sequence[int | None], sampled_logprobs: Sequence[float]
) -> list[Report | None]:
    reports: list[Report | None] = [None] * len(rows)
    asked = [index for index, row in enumerate(rows) if row.sampling.logprobs and ids[index] is not None]
    if not asked:
        return reports
    logprobs_rv = (raw_bv if len(asked) == len(rows) else raw_bv[asked]).log_softmax(dim=-1)
    taken_r1 = torch.tensor([[ids[index]] for index in asked], device=raw_bv.device)
    logprobs = logprobs_rv.gather(1, taken_r1).flatten().tolist()
    entropies = torch.special.entr(logprobs_rv.exp()).sum(dim=-1).tolist()
    widest = max(rows[index].sampling.top_logprobs for index in asked)
    top = logprobs_rv.topk(min(widest, raw_bv.shape[1]), dim=-1)
    alternatives = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    for place, (index, (top_ids, top_logprobs)) in enumerate(zip(asked, alternatives, strict=True)):
        row = rows[index]
        pairs = zip(top_ids[: row.sampling.top_logprobs], top_logprobs, strict=False)
        sampled = sampled_logprobs[index] if row.forced is None else 0.0
        reports[index] = Report(
            logprobs[place], sampled, entropies[place], tuple(TokenLogprob(*pair) for pair in pairs)
        )
    return reports
