"""Which tokens of which sequences the next step computes.

Plain Python over whole numbers: no tensors, no clocks, no callers. Two queues in order of arrival: everything that runs
arrived before everything that waits.
"""

from __future__ import annotations

from collections import deque

from magister.engine.limits import Limits
from magister.engine.pool import BlockPool
from magister.engine.sequence import Sequence, Span, State


class Scheduler:
    """Plans steps and owns the blocks."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pool = BlockPool(limits.blocks, limits.block_size)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0
        """How often a running sequence lost its blocks."""

    @property
    def busy(self) -> bool:
        """Whether anything is left to compute."""
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Puts a new sequence in line."""
        assert sequence.state is State.WAITING
        assert not sequence.blocks
        assert len(sequence.ids) < self.limits.context
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, finished or not, and frees its blocks; one that is already out stays out."""
        if sequence.state is State.RUNNING:
            self.running.remove(sequence)
        elif sequence.state is State.WAITING:
            self.waiting.remove(sequence)
        self._release(sequence, State.DONE)

    def plan(self) -> list[Span]:
        """The next step: every decoding sequence's next token, then prefill, older sequences first.

        At least one span while `busy`: the oldest sequence always gets its blocks. Changes no `computed`.
        """
        spare = self.limits.step_tokens - sum(sequence.remaining == 1 for sequence in self.running)
        spans: list[Span] = []
        for sequence in tuple(self.running):
            if sequence.state is not State.RUNNING or not self._grow(sequence):
                continue
            decoding = sequence.remaining == 1
            length = 1 if decoding else min(sequence.remaining, spare)
            if not decoding:
                spare -= length
            self._plan_span(spans, sequence, length)
        while spare and self._admit():
            sequence = self.running[-1]
            length = min(sequence.remaining, spare)
            spare -= length
            self._plan_span(spans, sequence, length)
        assert spans or not self.busy
        return spans

    def commit(self, span: Span) -> None:
        """Notes that a planned span has been computed."""
        assert span.sequence.computed == span.start
        span.sequence.computed = span.stop

    def audit(self) -> None:
        """Asserts that queues and pool agree."""
        assert all(sequence.state is State.RUNNING for sequence in self.running)
        assert all(sequence.state is State.WAITING and not sequence.blocks for sequence in self.waiting)
        for sequence in self.running:
            assert sequence.computed <= len(sequence.blocks) * self.pool.block_size
        order = [sequence.number for sequence in (*self.running, *self.waiting)]
        assert order == sorted(order), order
        self.pool.audit(sequence.blocks for sequence in self.running)

    def _plan_span(self, spans: list[Span], sequence: Sequence, length: int) -> None:
        if length:
            stop = sequence.computed + length
            spans.append(Span(sequence, sequence.computed, stop, samples=stop == len(sequence.ids)))

    def _grow(self, sequence: Sequence) -> bool:
        """Gives a running sequence blocks for all its tokens, if need be the youngest's; False if that is itself.

        The sequences behind it in `running` are not yet planned, so losing their blocks disturbs no span.
        """
        while not self._allocate(sequence):
            youngest = self.running.pop()
            self._release(youngest, State.WAITING)
            self.waiting.appendleft(youngest)
            self.preemptions += 1
            if youngest is sequence:
                return False
        return True

    def _admit(self) -> bool:
        """Moves the head of the line to the running ones if there is room for it."""
        if not self.waiting or len(self.running) == self.limits.running or not self._allocate(self.waiting[0]):
            return False
        sequence = self.waiting.popleft()
        sequence.state = State.RUNNING
        self.running.append(sequence)
        return True

    def _allocate(self, sequence: Sequence) -> bool:
        missing = self.pool.blocks_for(len(sequence.ids)) - len(sequence.blocks)
        if missing > self.pool.available:
            return False
        if missing > 0:
            sequence.blocks += self.pool.allocate(missing, after=sequence.blocks[-1] if sequence.blocks else None)
        return True

    def _release(self, sequence: Sequence, state: State) -> None:
        self.pool.free(sequence.blocks)
        sequence.blocks = []
        sequence.computed = 0
        sequence.state = state
