"""The Triton draw = the engine's sampler for the same luck."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("triton")

from magister.engine.sampler import Row, Sampler
from magister.kernels.cuda import sampling
from magister.types import Sampling

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def drawn(logits_bv: torch.Tensor, rows: list[Row]) -> tuple[list[int], list[float]]:
    """By the kernels."""
    draws = sampling.draw(
        logits_bv.to(DEVICE),
        torch.tensor([row.sampling.temperature for row in rows], dtype=torch.float64, device=DEVICE),
        torch.tensor([row.uniform for row in rows], dtype=torch.float64, device=DEVICE),
        torch.tensor([row.sampling.min_p for row in rows], device=DEVICE),
    )
    return draws.ids_b.tolist(), draws.shares_b.tolist()


def row(uniform: float, temperature: float, min_p: float = 0.0) -> Row:
    return Row(Sampling(temperature=temperature, min_p=min_p, logprobs=True), uniform)


@pytest.mark.parametrize(("vocab", "dtype"), [(5, torch.float32), (4096, torch.float16), (9001, torch.float32)])
def test_draws_what_the_sampler_draws(vocab: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(vocab)
    kinds = [(0.0, 0.0), (0.7, 0.0), (1.0, 0.0), (3.0, 0.0), (1.0, 0.1), (1e-30, 0.0), (0.0, 0.5), (50.0, 0.0)]
    uniforms = torch.rand(len(kinds), dtype=torch.float64, generator=generator).tolist()
    rows = [row(u, temperature, min_p) for u, (temperature, min_p) in zip(uniforms, kinds, strict=True)]
    logits_bv = (torch.randn(len(rows), vocab, generator=generator) * 4).to(dtype)
    ids, shares = drawn(logits_bv, rows)
    wanted = Sampler(vocab, (), torch.device("cpu")).draw(logits_bv, rows)
    for id_, share, one in zip(ids, shares, wanted, strict=True):
        assert one is not None
        assert one.report is not None
        assert id_ == one.id
        assert math.log(share) == pytest.approx(one.report.sampled_logprob, abs=1e-5)


def test_the_ends_of_luck_find_tokens_that_can_be_drawn() -> None:
    logits_bv = torch.full((2, 5000), -math.inf)
    logits_bv[:, [7, 4500]] = 0.0
    assert drawn(logits_bv, [row(0.0, 1.0), row(1 - 2.0**-53, 1.0)])[0] == [7, 4500]


def test_the_first_of_equals_is_the_likeliest() -> None:
    logits_bv = torch.zeros(1, 9000)
    logits_bv[0, [4095, 4096, 8000]] = 2.0
    assert drawn(logits_bv, [row(0.5, 0.0)]) == ([4095], [1.0])


def test_at_the_coldest_only_ties_are_random() -> None:
    logits_bv = torch.zeros(2, 5000)
    logits_bv[:, [3, 4999]] = 1e-6
    assert drawn(logits_bv, [row(0.4, 1e-40), row(0.6, 1e-30)]) == ([3, 4999], [0.5, 0.5])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_cannot_be_drawn_from_are_named_and_alone(temperature: float) -> None:
    logits_bv = torch.zeros(5, 5000)
    logits_bv[0, 4999], logits_bv[1, 3], logits_bv[2] = math.nan, math.inf, -math.inf
    logits_bv[4, 10:] = -math.inf
    ids, _ = drawn(logits_bv, [row(0.999, temperature)] * 5)
    assert ids[:3] == [-1, -1, -1]
    assert ids[3:] == ([0, 0] if temperature == 0 else [4995, 9])
