"""A small soak; the large one is `python -m tests.engine.soak --requests 2000`."""

import pytest
from tests.engine.soak import RUNNERS, soak

from magister.types import FinishReason

_GROWTH = 24 << 20
"""Bytes that memory may grow by once the first quarter has warmed everything up."""


@pytest.mark.parametrize("runner", ["torch", "compiled"])
def test_a_hundred_random_requests_leave_a_clean_pool_and_flat_memory(runner: str) -> None:
    outcome = soak(100, make=RUNNERS[runner])
    assert outcome.cancelled > 10
    assert {FinishReason.END, FinishReason.STOP, FinishReason.LENGTH} <= outcome.finished.keys()
    assert FinishReason.ERROR not in outcome.finished
    assert outcome.load.preemptions > 0
    assert 0 < outcome.load.right < outcome.load.guessed
    assert outcome.memory[-1] - outcome.memory[0] < _GROWTH
