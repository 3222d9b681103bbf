"""Drawing tokens from rows of logits, as Triton kernels: three passes over the row, no sort and no copy of it.

A row is cut into chunks. `chunk_peaks` finds the likeliest token of each, `chunk_masses` adds up the weights of each
against the row's likeliest, `pick` finds the chunk and then the token where the sum of weights passes the luck.
Weights are float32, sums float64, as in `engine.sampler`. Knows of a request nothing but its temperature and min_p.

Shapes: v vocabulary, c tokens of a chunk, n chunks of a row.
"""

from __future__ import annotations

import triton.language as tl

from magister.kernels.cuda.jit import jit


@jit
def weights_of(logit_c: tl.tensor, best: tl.tensor, warmth: tl.tensor, floor: tl.tensor, ok_c: tl.tensor) -> tl.tensor:
    """exp((logit - best) * warmth), float32; 0 below `floor`, which the likeliest token, at 1, never is."""
    # Greedy rows, at 0, have no use for weights; -inf times 0 would be nan.
    weight_c = tl.exp((logit_c - best) * tl.where(warmth > 0, warmth, 1.0))
    return tl.where(ok_c & (weight_c >= floor), weight_c, 0.0)


@jit
def chunk_peaks(
    logits: tl.tensor, peaks: tl.tensor, places: tl.tensor, vocab: tl.tensor, chunks: tl.tensor, block: tl.constexpr
) -> None:
    """The largest logit of each chunk, nan if any is, and its place, the first of equals. Grid: rows x chunks."""
    row, chunk = tl.program_id(0), tl.program_id(1)
    at_c = chunk * block + tl.arange(0, block)
    logit_c = tl.load(logits + row.to(tl.int64) * vocab + at_c, mask=at_c < vocab, other=-float("inf")).to(tl.float32)
    peak = tl.max(logit_c, 0)
    place = tl.min(tl.where(logit_c == peak, at_c, vocab), 0)
    broken = tl.max((logit_c != logit_c).to(tl.int32), 0) > 0
    tl.store(peaks + row * chunks + chunk, tl.where(broken, float("nan"), peak))
    tl.store(places + row * chunks + chunk, place)


@jit
def row_peak(
    peaks: tl.tensor, places: tl.tensor, row: tl.tensor, chunks: tl.tensor, vocab: tl.tensor, wide: tl.constexpr
) -> tl.tensor:
    """The largest logit of a row and its place; whether it can be drawn from: no nan, not +inf, not all -inf."""
    n = tl.arange(0, wide)
    ok_n = n < chunks
    peak_n = tl.load(peaks + row * chunks + n, mask=ok_n, other=-float("inf"))
    best = tl.max(peak_n, 0)
    place = tl.min(tl.where(peak_n == best, tl.load(places + row * chunks + n, mask=ok_n, other=vocab), vocab), 0)
    broken = tl.max((peak_n != peak_n).to(tl.int32), 0)
    usable = (tl.abs(best) < float("inf")) & (broken == 0)
    return tl.where(usable, best, 0.0), place, usable


@jit
def chunk_masses(
    logits: tl.tensor,
    warmths: tl.tensor,
    floors: tl.tensor,
    peaks: tl.tensor,
    places: tl.tensor,
    masses: tl.tensor,
    vocab: tl.tensor,
    chunks: tl.tensor,
    block: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    """The sum of weights of each chunk, float64. Grid: rows x chunks."""
    row, chunk = tl.program_id(0), tl.program_id(1)
    best, _place, usable = row_peak(peaks, places, row, chunks, vocab, wide)
    at_c = chunk * block + tl.arange(0, block)
    ok_c = at_c < tl.where(usable, vocab, 0)
    logit_c = tl.load(logits + row.to(tl.int64) * vocab + at_c, mask=ok_c, other=0.0).to(tl.float32)
    weight_c = weights_of(logit_c, best, tl.load(warmths + row), tl.load(floors + row), ok_c)
    tl.store(masses + row * chunks + chunk, tl.sum(weight_c.to(tl.float64), 0))


@jit
def pick(
    logits: tl.tensor,
    warmths: tl.tensor,
    luck: tl.tensor,
    floors: tl.tensor,
    peaks: tl.tensor,
    places: tl.tensor,
    masses: tl.tensor,
    ids: tl.tensor,
    shares: tl.tensor,
    vocab: tl.tensor,
    chunks: tl.tensor,
    block: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    """The first token whose running sum of weights passes luck x total, and its share of the total. Grid: rows.

    The likeliest token, and share 1, where the warmth (1 / temperature) is 0; -1 where nothing can be drawn.
    """
    row = tl.program_id(0)
    best, place, usable = row_peak(peaks, places, row, chunks, vocab, wide)
    warmth, floor = tl.load(warmths + row), tl.load(floors + row)
    n = tl.arange(0, wide)
    mass_n = tl.load(masses + row * chunks + n, mask=n < chunks, other=0.0)
    total = tl.sum(mass_n, 0)
    target = tl.load(luck + row) * total
    passed_n = tl.cumsum(mass_n, 0) <= target
    # Rounding may let no chunk pass: then it is the last that has any mass.
    last = tl.max(tl.where(mass_n > 0, n, 0), 0)
    chunk = tl.minimum(tl.sum(passed_n.to(tl.int32), 0), last)
    before = tl.sum(tl.where(n < chunk, mass_n, 0.0), 0)
    at_c = chunk * block + tl.arange(0, block)
    ok_c = at_c < tl.where(usable, vocab, 0)
    logit_c = tl.load(logits + row.to(tl.int64) * vocab + at_c, mask=ok_c, other=0.0).to(tl.float32)
    weight_c = weights_of(logit_c, best, warmth, floor, ok_c)
    passed_c = before + tl.cumsum(weight_c.to(tl.float64), 0) <= target
    last = tl.max(tl.where(weight_c > 0, at_c, 0), 0)
    drawn = tl.minimum(chunk * block + tl.sum(passed_c.to(tl.int32), 0), last)
    weight = tl.sum(tl.where(at_c == drawn, weight_c, 0.0), 0).to(tl.float64)
    greedy = warmth == 0
    tl.store(ids + row, tl.where(usable, tl.where(greedy, place, drawn), -1).to(tl.int64))
    tl.store(shares + row, tl.where(greedy, 1.0, weight / tl.where(usable, total, 1.0)))
