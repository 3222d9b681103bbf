"""A data set for trainer tests that another process can import: sequences that count up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from magister.train.packing import Sequence


def count_up(seed: int) -> Sequence:
    start, length = seed % 40, 4 + seed % 9
    ids = tuple(1 + (start + place) % 50 for place in range(length))
    return Sequence(ids, (False, *(True,) * (length - 1)))


@dataclass(frozen=True)
class MakeCountUp:
    def __call__(self) -> Callable[[int], Sequence]:
        return count_up
