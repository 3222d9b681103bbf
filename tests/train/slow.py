"""A data set whose first sequences come at once and the later ones slowly; another process can import it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from tests.counting import count_up

from magister.train.packing import Sequence


@dataclass(frozen=True)
class MakeSlowly:
    quick: int

    def __call__(self) -> Callable[[int], Sequence]:
        drawn = count()

        def draw(seed: int) -> Sequence:
            if next(drawn) >= self.quick:
                time.sleep(1)
            return count_up(seed)

        return draw
