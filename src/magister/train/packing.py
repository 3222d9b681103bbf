"""Sequences of token ids packed into rows of one length, with what each position must predict.

Best fit, longest first: rows waste a few per cent. Knows nothing of what the tokens mean.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Sequence:
    """One training sequence."""

    ids: tuple[int, ...]
    learn: tuple[bool, ...]
    """Per token: whether its prediction counts in the loss. Never true for the first."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Packed rows; r rows, t positions."""

    ids_rt: NDArray[np.int32]
    """Token ids, padded with `pad`."""
    segments_rt: NDArray[np.int32]
    """Number of the sequence within its row, from 1; 0 for padding."""
    targets_rt: NDArray[np.int32]
    """The next token where its prediction counts, else -100."""

    def __len__(self) -> int:
        return int(self.ids_rt.shape[0])


IGNORE = -100
"""Target of positions outside the loss, as torch's cross entropy has it."""


def pack(sequences: list[Sequence], length: int, pad: int) -> Rows:
    """All sequences in as few rows of `length` as best fit finds.

    Raises `ValueError` for a sequence longer than a row.
    """
    longest = max((len(sequence.ids) for sequence in sequences), default=0)
    if longest > length:
        raise ValueError(f"a sequence has {longest} tokens, a row holds {length}")
    bins: list[list[Sequence]] = []
    space: list[tuple[int, int]] = []  # (free tokens, bin), sorted
    for sequence in sorted(sequences, key=lambda one: -len(one.ids)):
        place = bisect_left(space, (len(sequence.ids), -1))
        if place == len(space):
            bins.append([sequence])
            insort(space, (length - len(sequence.ids), len(bins) - 1))
        else:
            free, index = space.pop(place)
            bins[index].append(sequence)
            insort(space, (free - len(sequence.ids), index))
    ids_rt = np.full((len(bins), length), pad, np.int32)
    segments_rt = np.zeros((len(bins), length), np.int32)
    targets_rt = np.full((len(bins), length), IGNORE, np.int32)
    for row, members in enumerate(bins):
        start = 0
        for number, sequence in enumerate(members, 1):
            stop = start + len(sequence.ids)
            ids_rt[row, start:stop] = sequence.ids
            segments_rt[row, start:stop] = number
            learned = np.where(sequence.learn[1:], sequence.ids[1:], IGNORE)
            targets_rt[row, start : stop - 1] = learned
            start = stop
    return Rows(ids_rt, segments_rt, targets_rt)
