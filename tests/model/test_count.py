"""The published sizes of Magistral Small, from its shape alone."""

from dataclasses import replace

from magister.model.config import MAGISTRAL_SMALL
from magister.model.count import count_parameters, plan_memory


def test_magistral_small() -> None:
    count = count_parameters(MAGISTRAL_SMALL)
    assert count.total == 24_011_361_280
    assert count.text == 23_572_403_200
    assert count.vision == 403_305_472
    assert count.projector == 35_652_608
    assert count.embeddings == count.output == 131_072 * 5120
    assert count.layers == 40 * 555_755_520 + 5120


def test_tied_embeddings_count_once() -> None:
    tied = replace(MAGISTRAL_SMALL, decoder=replace(MAGISTRAL_SMALL.decoder, tied_embeddings=True), vision=None)
    count = count_parameters(tied)
    assert count.output == count.vision == count.projector == 0
    assert count.total == 23_572_403_200 - 131_072 * 5120


def test_memory_plan() -> None:
    plan = plan_memory(MAGISTRAL_SMALL)
    assert plan.weights == {16: 48_022_722_560, 8: 24_011_361_280, 4: 12_005_680_640}
    assert plan.cache_per_token == 163_840
    assert plan.cache == {8192: 163_840 * 8192, 32768: 163_840 * 32768, 131072: 20 * 2**30}
    assert plan_memory(MAGISTRAL_SMALL, cache_bits=8).cache_per_token == 81_920
