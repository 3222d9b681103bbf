"""Training rows in shards, each a function of (seed, number), made ahead in another process.

A position in the data is (shard, row), so training resumes at the very batch it stopped before.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import connection
from typing import NamedTuple

import numpy as np

from magister.train.packing import Rows, Sequence, pack


class Cursor(NamedTuple):
    """The next row to train on."""

    shard: int
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSpec:
    """Everything a shard depends on; picklable, for the process that makes it."""

    make: Callable[[], Callable[[int], Sequence]]
    """Builds, once a process, the function seed -> sequence."""
    seed: int
    size: int
    """Sequences a shard."""
    row_length: int
    pad: int


def make_shard(spec: ShardSpec, number: int) -> tuple[Rows, int]:
    """Shard `number`, rows shuffled, and how many sequences were longer than a row and left out.

    Raises `CancelledError` in a process that has been told to leave.
    """
    draw = _draw(spec.make)
    drawn = []
    for index in range(spec.size):
        if _LEAVING.is_set():
            raise CancelledError
        drawn.append(draw(_mix(spec.seed, number * spec.size + index)))
    fitting = [sequence for sequence in drawn if len(sequence.ids) <= spec.row_length]
    rows = pack(fitting, spec.row_length, spec.pad)
    order = np.random.default_rng(_mix(spec.seed, number)).permutation(len(rows))
    return Rows(rows.ids_rt[order], rows.segments_rt[order], rows.targets_rt[order]), spec.size - len(fitting)


def batches(spec: ShardSpec, rows_per_batch: int, start: Cursor) -> Generator[tuple[Rows, Cursor], None, None]:
    """Batches from `start` on without end, each with the cursor of the batch after it.

    A shard's last, incomplete batch is left out. Closing the iterator ends the process.
    Raises `ValueError` where a shard holds no full batch.
    """
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin_process, initargs=(told,))
    # Closed in the opposite order: the process is told to leave before the pool waits for it.
    with closing(told), pool, closing(tell):
        number, row = start
        coming = _submit_first(pool, spec, number)
        while True:
            shard, _ = coming.result()
            if len(shard) < rows_per_batch:
                raise ValueError(
                    f"shard {number} of {spec.size} sequences packs into {len(shard)} rows, "
                    f"fewer than one batch of {rows_per_batch}"
                )
            coming = pool.submit(make_shard, spec, number + 1)
            while row + rows_per_batch <= len(shard):
                part = slice(row, row + rows_per_batch)
                row += rows_per_batch
                after = Cursor(number, row) if row + rows_per_batch <= len(shard) else Cursor(number + 1, 0)
                yield Rows(shard.ids_rt[part], shard.segments_rt[part], shard.targets_rt[part]), after
            number, row = number + 1, 0


_DRAWS: dict[Callable[[], Callable[[int], Sequence]], Callable[[int], Sequence]] = {}


def _draw(make: Callable[[], Callable[[int], Sequence]]) -> Callable[[int], Sequence]:
    # One tokenizer and one set of books a process, not one a shard.
    if make not in _DRAWS:
        _DRAWS[make] = make()
    return _DRAWS[make]


_LEAVING = threading.Event()
"""Set in a process that has been told to leave."""


def _submit_first(pool: ProcessPoolExecutor, spec: ShardSpec, number: int) -> Future[tuple[Rows, int]]:
    # The process starts here and inherits the blocked signal: Ctrl-C is for the one that trains, from the very start.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(make_shard, spec, number)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_process(told: connection.Connection) -> None:
    """Leaves Ctrl-C to the process that trains, and leaves with it.

    `told` closes when no shard is wanted any more; when the parent is gone, even by kill -9, the pool
    cannot tell, so this process ends itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        connection.wait([parent.sentinel, told])
        _LEAVING.set()
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _mix(seed: int, number: int) -> int:
    return random.Random(f"{seed}/{number}").getrandbits(63)
