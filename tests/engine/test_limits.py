"""Limits and vocabularies that contradict themselves say so."""

from typing import Any

import pytest

from magister.engine.limits import Limits
from magister.engine.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_size": 0}, "block_size is 0"),
        ({"context": 1}, "context is 1"),
        ({"blocks": 3}, "3 blocks of 16 tokens cannot hold a context of 64"),
        ({"step_tokens": 4}, "step_tokens is 4, must be at least running = 32"),
        ({"speculation": -1}, "speculation is -1, must be at least 0"),
        ({"row_cost": 1.5}, "row_cost is 1.5, must be between 0 and 1"),
    ],
)
def test_limits(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Limits(**({"context": 64, "blocks": 16} | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end": 9}, "end is 9, the vocabulary has ids 0 to 3"),
        ({"end_think": None}, "must be given together"),
        ({"never": frozenset({1})}, "think is 1, which is also"),
    ],
)
def test_vocabulary(changes: dict[str, object], message: str) -> None:
    values = {"pieces": (b"",) * 4, "end": 0, "think": 1, "end_think": 2} | changes
    with pytest.raises(ValueError, match=message):
        Vocabulary(**values)  # type: ignore[arg-type]
