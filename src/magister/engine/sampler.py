"""Logits -> tokens: one pass over the rows of a step.

Order, for each row: (1) ids never sampled, banned ones and those not allowed out, bias added, penalties subtracted; (2)
division by the temperature; (3) top_k; (4) top_p on what top_k left; (5) min_p, against the likeliest token
(`truncation`); (6) one draw by inverse distribution function. Temperature 0 takes the likeliest token after (1) and has
nothing to truncate.

Knows rows, not sequences: what a row may draw and how lucky it is are told to it (`Row`).

Shapes: b rows of the step, r rows of a subset, v vocabulary, w bytes of a mask, n values of a byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from magister.engine.truncation import truncate
from magister.types import Sampling, TokenLogprob

_COLDEST = 1e-30
"""The smallest temperature that float32 can divide by; at and below it only exact ties are random."""

_HOTTEST = 1e30
"""The largest that leaves a ruled-out token ruled out: 1 / temperature must not become 0 in float32."""

_MANY = 1 << 15
_STRIPE = 128
"""Numbers from which on, and stripes in which, the largest is looked for before its place (a quarter of the time)."""

_FEW = 64
"""Biases of a request that are added one by one in each step; more are laid out once, as a number for each token."""

_KEPT_MASKS = 32
"""Masks that are kept as numbers to add: half a megabyte each for the largest vocabulary."""


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
    allowed: bytes | None = None
    """The only tokens to draw: eight ids a byte, the lowest in the lowest bit. None is all."""


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
    forced: bool = False
    report: Report | None = None
    """None unless the row asked for logprobs."""


class _Draw(NamedTuple):
    """All rows' tokens before reports: None where there was nothing to draw from."""

    ids: list[int | None]
    sampled_logprobs: list[float]


class _Edits(NamedTuple):
    """Numbers to add to logits, side by side."""

    rows: list[int]
    ids: list[int]
    values: list[float]


class Sampler:
    """Draws one token a row."""

    def __init__(self, vocab_size: int, never: Iterable[int], device: torch.device) -> None:
        """`never`: ids out of reach for every row."""
        self._never = frozenset(never)
        self._never_v: Tensor | None = None
        if self._never:
            self._never_v = torch.zeros(vocab_size, device=device)
            self._never_v[sorted(self._never)] = -math.inf
        self._bits_n8 = _bits(device)
        self._bans: dict[bytes, Tensor] = {}
        self._biases: dict[int, tuple[Sampling, Tensor]] = {}
        self._x_bv = torch.empty(0, vocab_size, device=device)
        self._masses_bv = torch.empty(0, vocab_size, dtype=torch.float64, device=device)
        self._views: dict[int, tuple[Tensor, Tensor]] = {}

    def draw(self, logits_bv: Tensor, rows: Sequence[Row]) -> list[Drawn | None]:
        """One token for each row; None for a row whose logits have a NaN, an infinity, or nothing left to draw."""
        assert logits_bv.shape[0] == len(rows)
        if not rows:
            return []
        raw_bv = logits_bv.float()
        if all(map(_is_plain, rows)):
            ids = self._likeliest(raw_bv, rows)
            if ids is not None:
                return [None if id_ is None else Drawn(id_) for id_ in ids]
        draw = self._draw(raw_bv, rows)
        ids = [
            id_ if row.forced is None or id_ is None else row.forced for id_, row in zip(draw.ids, rows, strict=True)
        ]
        reports = _reports(raw_bv, rows, ids, draw.sampled_logprobs)
        return [
            None if id_ is None else Drawn(id_, row.forced is not None, report)
            for id_, row, report in zip(ids, rows, reports, strict=True)
        ]

    def _likeliest(self, raw_bv: Tensor, rows: Sequence[Row]) -> list[int | None] | None:
        """Each row's likeliest token; None where one of them must not be drawn and the second best has to be found."""
        best_b1, ids_b1 = _largest(raw_bv)
        ids: list[int] = [id_ for (id_,) in ids_b1.tolist()]
        if not self._never.isdisjoint(ids) or not all(map(_allows, rows, ids)):
            return None
        return [id_ if math.isfinite(best) else None for id_, (best,) in zip(ids, best_b1.tolist(), strict=True)]

    def _draw(self, raw_bv: Tensor, rows: Sequence[Row]) -> _Draw:
        x_bv, masses_bv = self._memory(raw_bv)
        self._edit(raw_bv, rows, x_bv)
        greedy = [row.sampling.temperature == 0 for row in rows]
        best_ids: list[int] = []
        if any(greedy):
            best_b1, ids_b1 = _largest(x_bv)
            best_ids = [id_ for (id_,) in ids_b1.tolist()]
        else:
            best_b1 = x_bv.amax(dim=-1, keepdim=True)
        # The largest logit is NaN where any is; it is -inf where nothing is left.
        usable = [math.isfinite(best) for (best,) in best_b1.tolist()]
        if all(greedy):
            return _Draw([id_ if ok else None for id_, ok in zip(best_ids, usable, strict=True)], [0.0] * len(rows))
        drawn, logprobs = _draw_by_luck(x_bv.sub_(best_b1), masses_bv, rows)
        for index, id_ in enumerate(best_ids):
            if greedy[index]:
                drawn[index], logprobs[index] = id_, 0.0
        return _Draw([id_ if ok else None for id_, ok in zip(drawn, usable, strict=True)], logprobs)

    def _edit(self, raw_bv: Tensor, rows: Sequence[Row], x_bv: Tensor) -> None:
        """Step (1), from `raw_bv` to `x_bv`."""
        if self._never_v is None:
            x_bv.copy_(raw_bv)
        else:
            torch.add(raw_bv, self._never_v, out=x_bv)
        edits = _Edits([], [], [])
        for index, row in enumerate(rows):
            _collect_edits(edits, index, row)
        if edits.ids:
            rows_e = torch.tensor(edits.rows, device=raw_bv.device)
            ids_e = torch.tensor(edits.ids, device=raw_bv.device)
            values_e = torch.tensor(edits.values, dtype=torch.float32, device=raw_bv.device)
            x_bv.index_put_((rows_e, ids_e), values_e, accumulate=True)
        self._lean(x_bv, rows)
        self._rule_out(x_bv, rows)

    def _lean(self, x_bv: Tensor, rows: Sequence[Row]) -> None:
        """Adds what requests add to many tokens: laid out in a request's first step, kept while each step uses it."""
        kept, self._biases = self._biases, {}
        for index, row in enumerate(rows):
            sampling = row.sampling
            if len(sampling.logit_bias) > _FEW:
                # Kept together with the request, so that no other can be where it was.
                known = self._biases.get(id(sampling)) or kept.get(id(sampling))
                self._biases[id(sampling)] = known = known or (sampling, self._laid_out(sampling.logit_bias))
                x_bv[index].add_(known[1])

    def _laid_out(self, biases: Mapping[int, float]) -> Tensor:
        """What is added to each token, [v]."""
        device = self._x_bv.device
        biases_v = torch.zeros(self._x_bv.shape[1], device=device)
        ids_e = torch.tensor(list(biases), device=device)
        biases_v[ids_e] = torch.tensor(list(biases.values()), dtype=torch.float32, device=device)
        return biases_v

    def _rule_out(self, x_bv: Tensor, rows: Sequence[Row]) -> None:
        """Leaves rows that have a mask what it allows."""
        for index, row in enumerate(rows):
            if row.allowed is not None:
                x_bv[index].add_(self._bans_of(row.allowed))

    def _bans_of(self, allowed: bytes) -> Tensor:
        """What a mask adds to logits, [v]: nothing, or minus infinity. Kept, since masks come again: all through a
        string, say, there are two or three.
        """
        bans_v = self._bans.pop(allowed, None)
        if bans_v is None:
            # Eight ids at a time, by far the fastest way to unpack bits: as an embedding of bytes.
            bytes_w = torch.frombuffer(bytearray(allowed), dtype=torch.uint8).to(self._bits_n8.device).int()
            bans_v = torch.full((self._x_bv.shape[1],), -math.inf, device=bytes_w.device)
            known = functional.embedding(bytes_w, self._bits_n8).flatten()[: len(bans_v)]
            bans_v[: len(known)] = known
        # The last one used comes last.
        self._bans[allowed] = bans_v
        if len(self._bans) > _KEPT_MASKS:
            del self._bans[next(iter(self._bans))]
        return bans_v

    def _memory(self, raw_bv: Tensor) -> tuple[Tensor, Tensor]:
        """Room for a step's logits and masses, float32 and float64 [b, v], the same for each step of as many rows."""
        rows = len(raw_bv)
        if rows > len(self._x_bv):
            self._x_bv = torch.empty(raw_bv.shape, device=raw_bv.device)
            self._masses_bv = torch.empty(raw_bv.shape, dtype=torch.float64, device=raw_bv.device)
            self._views.clear()
        if rows not in self._views:
            self._views[rows] = self._x_bv[:rows], self._masses_bv[:rows]
        return self._views[rows]


def _bits(device: torch.device) -> Tensor:
    """What each byte of a mask adds to the logits of its eight ids, [256, 8]: nothing, or minus infinity."""
    bits_n8 = torch.arange(256, device=device)[:, None] >> torch.arange(8, device=device) & 1
    return torch.where(bits_n8 == 1, 0.0, -math.inf)


def _draw_by_luck(x_bv: Tensor, masses_bv: Tensor, rows: Sequence[Row]) -> tuple[list[int], list[float]]:
    """Tokens, and their log-probabilities where any row wants them, from logits less their row's largest."""
    device = x_bv.device
    warmth = [1.0 / min(max(row.sampling.temperature, _COLDEST), _HOTTEST) for row in rows]
    if min(warmth) == max(warmth):
        x_bv.mul_(warmth[0])
    else:
        x_bv.mul_(torch.tensor(warmth, device=device)[:, None])
    # The likeliest token has weight 1: min_p needs no division, and no temperature overflows.
    weights_bv = x_bv.exp_()
    samplings = [row.sampling for row in rows]
    if all(one.top_p < 1 and one.temperature > 0 and not one.logprobs for one in samplings):
        totals = weights_bv.sum(dim=-1, dtype=torch.float64).tolist()
        # As most of the time in a thought: of each row top_p keeps the likeliest token alone, which no other equals.
        if all(total < 2.0 and one.top_p * total <= 1.0 for one, total in zip(samplings, totals, strict=True)):
            return weights_bv.argmax(dim=-1).tolist(), [0.0] * len(rows)
    truncate(weights_bv, samplings)
    torch.cumsum(weights_bv, dim=-1, dtype=torch.float64, out=masses_bv)
    totals_b1 = masses_bv[:, -1:]
    if len(rows) == 1:
        luck_b1 = totals_b1 * rows[0].uniform
    else:
        luck_b1 = totals_b1 * torch.tensor([[row.uniform] for row in rows], dtype=torch.float64, device=device)
    drawn_b1 = torch.searchsorted(masses_bv, luck_b1, right=True)
    logprobs = [0.0] * len(rows)
    if any(row.sampling.logprobs for row in rows):
        # Rows without a total (NaN) find nothing; they are dropped later, but must not break the gather.
        safe_b1 = drawn_b1.clamp(max=x_bv.shape[1] - 1)
        logprobs = (weights_bv.gather(1, safe_b1).double() / totals_b1).log_().flatten().tolist()
    return [id_ for (id_,) in drawn_b1.tolist()], logprobs


def _largest(x_bv: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's largest number and where it is first, [b, 1] both."""
    rows, width = x_bv.shape
    if x_bv.is_cuda or x_bv.numel() < _MANY or width % _STRIPE:
        return x_bv.max(dim=-1, keepdim=True)
    # A CPU finds the largest number several times faster than the place of it.
    x_bns = x_bv.view(rows, -1, _STRIPE)
    best_b1, stripes_b1 = x_bns.amax(dim=-1).max(dim=-1, keepdim=True)
    x_bs = x_bns[torch.arange(rows), stripes_b1[:, 0]]
    return best_b1, stripes_b1 * _STRIPE + x_bs.max(dim=-1, keepdim=True).indices


def _allows(row: Row, id_: int) -> bool:
    """Whether a row's mask, if it has one, has an id of the vocabulary."""
    return row.allowed is None or bool(row.allowed[id_ // 8] >> id_ % 8 & 1)


def _is_plain(row: Row) -> bool:
    """Whether a row's token is the likeliest one that may be sampled at all, as far as its mask allows."""
    s = row.sampling
    return (
        s.temperature == 0
        and row.forced is None
        and row.banned is None
        and not (s.logprobs or s.logit_bias or s.frequency_penalty or s.presence_penalty)
    )


def _collect_edits(edits: _Edits, index: int, row: Row) -> None:
    """What is added to which logits of one row, many biases aside; all that is added to the same token adds up."""
    sampling = row.sampling
    if len(sampling.logit_bias) <= _FEW:
        edits.ids.extend(sampling.logit_bias)
        edits.values.extend(sampling.logit_bias.values())
    if sampling.frequency_penalty or sampling.presence_penalty:
        frequency, presence = sampling.frequency_penalty, sampling.presence_penalty
        edits.ids.extend(row.counts)
        edits.values.extend([-presence - frequency * count for count in row.counts.values()])
    if row.banned is not None:
        edits.ids.append(row.banned)
        edits.values.append(-math.inf)
    edits.rows.extend([index] * (len(edits.ids) - len(edits.rows)))


def score(logits_bv: Tensor, ids: Sequence[int], alternatives: int) -> list[Report]:
    """How likely each row makes the token that follows it, which is known; not finite where the logits are not."""
    row = Row(Sampling(temperature=0.0, logprobs=True, top_logprobs=alternatives), forced=0)
    found = _reports(logits_bv.float(), [row] * len(ids), ids, [0.0] * len(ids))
    return [report for report in found if report is not None]


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
