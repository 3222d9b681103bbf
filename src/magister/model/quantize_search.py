"""From a matrix of floats to whole numbers and scales: the searches themselves.

A group is judged by the angle between its numbers and the whole numbers for them, not by the squared error. The scale
of least error is always a little too short: what it leaves out is at right angles to what it keeps, and a network of
such matrices is one whose every product is shrunk. So the whole numbers of the smallest angle are found first, and
then comes the scale that keeps the group's length along itself: scale <w, q> = <w, w>. With a minimum, the same holds
of what differs from the group's mean.

Knows no names, no plans and no files.

Shapes: o outputs, i inputs, n groups of inputs, g inputs of a group.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from magister.kernels.quantized import Format, Quantized, pack_int4

LEVELS = (8.0, 4.0, 7.0, 6.0, 5.0, 7.5, 8.5, 9.0)
"""Where the search puts a group's number of largest magnitude, on the negative side, before all are rounded into
-8..7. Of equally good ones the first is taken.

Twice as many lower the error by 0.2 %. With 8, 4, 7, 6 and 5 first, a group that is on some grid of 4-bit numbers
already is found exactly, but where its whole numbers have a common factor: there the scale may be rounded anew.
"""

_MARGIN = 1 + 1e-6
"""By which one squared cosine is larger than another beyond rounding."""

SHRINKS = (1.0, 0.97, 0.93, 0.89, 0.85)
"""Shares of a group's range that the search spreads 0..15 over, where there is a minimum."""

_CHUNK = 1 << 17
"""Numbers searched at a time, so that they stay in a core's cache."""

_Part = tuple[Tensor, Tensor, Tensor | None]
"""Whole numbers [n, g], scales [n], minima [n]."""


def search_int4(w_oi: Tensor, group: int, workers: int = 1) -> Quantized:
    """Numbers 0..15 that stand for (q - 8) * scale. Scales are float16 and may be negative.

    ValueError if a number is not finite or a scale has no place in float16. The result does not depend on `workers`.
    """
    return _by_rows(w_oi, group, Format.INT4, _symmetric, workers)


def search_int4_with_minimum(w_oi: Tensor, group: int, workers: int = 1) -> Quantized:
    """Numbers 0..15 that stand for q * scale + min; otherwise as `search_int4`."""
    return _by_rows(w_oi, group, Format.INT4, _with_minimum, workers)


def search_int8(w_oi: Tensor, group: int, workers: int = 1) -> Quantized:
    """Numbers -127..127 that stand for q * scale; otherwise as `search_int4`.

    Nothing is searched: 127 is put on the largest magnitude, and rounding is by the scale as stored. Searching lowers
    the squared error by 1 % and the distance between the networks not at all.
    """
    return _by_rows(w_oi, group, Format.INT8, _eight_bits, workers)


def _by_rows(w_oi: Tensor, group: int, kind: Format, search: Callable[[Tensor], _Part], workers: int) -> Quantized:
    """Searches a few rows at a time, on `workers` threads; memory beside the result stays near a few chunks."""
    w_oi = w_oi.detach()
    outputs, inputs = w_oi.shape
    rows = max(1, _CHUNK // inputs)
    packed = inputs // 2 if kind is Format.INT4 else inputs
    values = torch.empty(outputs, packed, dtype=torch.uint8 if kind is Format.INT4 else torch.int8)
    scales = torch.empty(outputs, inputs // group, dtype=torch.float16)
    mins = torch.empty_like(scales) if search is _with_minimum else None

    def one(first: int) -> None:
        chunk = slice(first, min(first + rows, outputs))
        w_ng = w_oi[chunk].float().reshape(-1, group)
        if not w_ng.abs().amax().isfinite():
            raise ValueError("the matrix has numbers that are not finite")
        q_ng, scales_n, mins_n = search(w_ng)
        q_oi = q_ng.view(-1, inputs)
        values[chunk] = pack_int4(q_oi) if kind is Format.INT4 else q_oi.to(torch.int8)
        scales[chunk] = scales_n.view(-1, inputs // group)
        if mins is not None and mins_n is not None:
            mins[chunk] = mins_n.view(-1, inputs // group)

    with ThreadPoolExecutor(workers) as threads:
        for _ in threads.map(one, range(0, outputs, rows)):
            pass
    if not bool(scales.isfinite().all()) or (mins is not None and not bool(mins.isfinite().all())):
        raise ValueError("the matrix has numbers too large for scales in float16")
    return Quantized(kind, values, scales, group, mins)


def _symmetric(w_ng: Tensor) -> _Part:
    low_n, high_n = w_ng.amin(-1), w_ng.amax(-1)
    extreme_n = torch.where(high_n >= -low_n, high_n, low_n)
    unit_n = torch.where(extreme_n != 0, -1.0 / extreme_n, 0.0)
    best_n, level_n, along_n = (torch.zeros_like(unit_n) for _ in range(3))
    q_ng, scratch_ng = torch.empty_like(w_ng), torch.empty_like(w_ng)
    for level in LEVELS:
        torch.mul(w_ng, (unit_n * level)[:, None], out=q_ng).round_().clamp_(-8.0, 7.0)
        wq_n, qq_n = _dot(w_ng, q_ng, scratch_ng), _dot(q_ng, q_ng, scratch_ng)
        # <w, w> times the squared cosine; numbers that are all 0 have no angle.
        cosine_n = wq_n.square().div_(qq_n.clamp_min_(1.0))
        better_n = cosine_n > best_n * _MARGIN
        best_n = torch.where(better_n, cosine_n, best_n)
        level_n.masked_fill_(better_n, level)
        along_n = torch.where(better_n, wq_n, along_n)
    scales_n = torch.where(along_n != 0, _dot(w_ng, w_ng, scratch_ng) / along_n, 0.0)
    torch.mul(w_ng, (unit_n * level_n)[:, None], out=q_ng).round_().clamp_(-8.0, 7.0)
    return q_ng.add_(8.0), scales_n.half(), None


def _with_minimum(w_ng: Tensor) -> _Part:
    group = w_ng.shape[1]
    low_n, high_n, mean_n = w_ng.amin(-1), w_ng.amax(-1), w_ng.mean(-1)
    unit_n = torch.where(high_n > low_n, 15.0 / (high_n - low_n), 0.0)
    middle_n = (high_n + low_n) / 2 - mean_n
    w_ng = w_ng - mean_n[:, None]
    best_n, along_n, q_mean_n = (torch.zeros_like(unit_n) for _ in range(3))
    shrink_n = torch.ones_like(unit_n)
    scratch_ng = torch.empty_like(w_ng)
    for shrink in SHRINKS:
        q_ng = _spread(w_ng, middle_n, unit_n / shrink)
        sum_n = q_ng.sum(-1)
        wq_n = _dot(w_ng, q_ng, scratch_ng)
        spread_n = _dot(q_ng, q_ng, scratch_ng) - sum_n.square() / group
        cosine_n = wq_n.square() / spread_n.clamp_min(0.5)
        better_n = cosine_n > best_n * _MARGIN
        best_n = torch.where(better_n, cosine_n, best_n)
        shrink_n.masked_fill_(better_n, shrink)
        along_n, q_mean_n = torch.where(better_n, wq_n, along_n), torch.where(better_n, sum_n / group, q_mean_n)
    scales_n = torch.where(along_n > 0, _dot(w_ng, w_ng, scratch_ng) / along_n, 0.0).half()
    # With the scale as stored, so that its rounding does not move the mean.
    mins_n = (mean_n - scales_n.float() * q_mean_n).half()
    return _spread(w_ng, middle_n, unit_n / shrink_n), scales_n, mins_n


def _spread(w_ng: Tensor, middle_n: Tensor, inverse_n: Tensor) -> Tensor:
    """Whole numbers 0..15 around the group's middle."""
    q_ng = w_ng * inverse_n[:, None]
    return q_ng.add_((7.5 - middle_n * inverse_n)[:, None]).round_().clamp_(0.0, 15.0)


def _eight_bits(w_ng: Tensor) -> _Part:
    scales_n = (w_ng.abs().amax(-1) / 127).half()
    inverse_n = torch.where(scales_n != 0, 1.0 / scales_n.float(), 0.0)
    return (w_ng * inverse_n[:, None]).round_().clamp_(-127.0, 127.0), scales_n, None


def _dot(a_ng: Tensor, b_ng: Tensor, scratch_ng: Tensor) -> Tensor:
    """[n, g], [n, g] -> [n]."""
    # A product with ones adds up the rows twice as fast as `sum` does.
    return torch.mul(a_ng, b_ng, out=scratch_ng) @ a_ng.new_ones(a_ng.shape[1])
