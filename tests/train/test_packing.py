import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magister.train.packing import IGNORE, Sequence, pack

PAD = 0


def sequences_of(lengths: list[int]) -> list[Sequence]:
    made = []
    for number, length in enumerate(lengths):
        ids = tuple(range(1 + 1000 * number, 1 + 1000 * number + length))
        made.append(Sequence(ids, tuple(place >= length // 2 and place > 0 for place in range(length))))
    return made


@given(st.lists(st.integers(1, 32), min_size=1, max_size=40))
def test_every_token_is_in_exactly_one_row_with_its_target(lengths: list[int]) -> None:
    sequences = sequences_of(lengths)
    rows = pack(sequences, 32, PAD)
    found = {}
    for ids, segments, targets in zip(rows.ids_rt, rows.segments_rt, rows.targets_rt, strict=True):
        for segment in range(1, segments.max() + 1):
            places = np.flatnonzero(segments == segment)
            assert (np.diff(places) == 1).all()
            found[tuple(ids[places].tolist())] = targets[places].tolist()
    assert set(found) == {sequence.ids for sequence in sequences}
    for sequence in sequences:
        learned = [
            sequence.ids[place + 1] if sequence.learn[place + 1] else IGNORE for place in range(len(sequence.ids) - 1)
        ]
        assert found[sequence.ids] == [*learned, IGNORE]
    assert (rows.targets_rt[rows.segments_rt == 0] == IGNORE).all()
    assert (rows.ids_rt[rows.segments_rt == 0] == PAD).all()


def test_rows_are_well_filled() -> None:
    rng = np.random.default_rng(0)
    rows = pack(sequences_of(rng.integers(10, 200, 500).tolist()), 512, PAD)
    assert (rows.segments_rt > 0).mean() > 0.97


def test_a_sequence_longer_than_a_row_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="33 tokens, a row holds 32"):
        pack(sequences_of([33]), 32, PAD)
