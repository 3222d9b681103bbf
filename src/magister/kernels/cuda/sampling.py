"""Drawing one token for each row of logits on a GPU, without waiting for it.

`draw` takes the token that `engine.sampler` takes for the same luck, for rows with a temperature and min_p, or greedy.
Rows with top_k, top_p or penalties are the sampler's own affair. The order of the float64 sums is another one, and a
GPU's exp may differ from a CPU's in the last places: a luck within about 1e-6 of the border between two tokens may give
the one beside.

Shapes: b rows, v vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from magister.kernels.cuda.sampling_kernel import chunk_masses, chunk_peaks, pick

_CHUNK = 4096
"""Tokens a program looks at: 32 programs a row at 131,072."""
_COLDEST = 1e-30
"""The smallest temperature above 0 whose inverse float32 has; below it only exact ties are random."""


class Draws(NamedTuple):
    """On the device; reading any of it waits for the GPU once."""

    ids_b: Tensor
    """int64; -1 for a row that has a NaN or an infinity, or nothing left to draw."""
    shares_b: Tensor
    """float64: the probability of the token under the distribution drawn from; 1 at temperature 0."""


def draw(logits_bv: Tensor, temperatures_b: Tensor, luck_b: Tensor, min_p_b: Tensor) -> Draws:
    """One token a row.

    Logits are float32 or 16-bit, temperatures and luck (in [0, 1)) float64, min_p float32; all on one device. A
    temperature of 0 takes the likeliest token, the first of equals.
    """
    logits_bv = logits_bv.contiguous()
    rows, vocab = logits_bv.shape
    device = logits_bv.device
    chunks = -(-vocab // _CHUNK)
    wide = 1 << (chunks - 1).bit_length()
    warmths_b = (1.0 / temperatures_b.double().clamp(min=_COLDEST)).float().where(temperatures_b > 0, 0.0)
    peaks = torch.empty(rows, chunks, device=device)
    places = torch.empty(rows, chunks, device=device, dtype=torch.int32)
    masses = torch.empty(rows, chunks, device=device, dtype=torch.float64)
    ids_b = torch.empty(rows, device=device, dtype=torch.int64)
    shares_b = torch.empty(rows, device=device, dtype=torch.float64)
    if not rows:
        return Draws(ids_b, shares_b)
    options = {"block": _CHUNK, "enable_fp_fusion": False}
    chunk_peaks[rows, chunks](logits_bv, peaks, places, vocab, chunks, **options)
    chunk_masses[rows, chunks](
        logits_bv, warmths_b, min_p_b, peaks, places, masses, vocab, chunks, wide=wide, **options
    )
    pick[(rows,)](
        logits_bv,
        warmths_b,
        luck_b,
        min_p_b,
        peaks,
        places,
        masses,
        ids_b,
        shares_b,
        vocab,
        chunks,
        wide=wide,
        **options,
    )
    return Draws(ids_b, shares_b)
