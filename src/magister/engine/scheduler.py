"""Which tokens of which sequences the next step computes.

Plain Python over whole numbers: no tensors, no clocks, no callers. Two queues in order of arrival: everything that runs
arrived before everything that waits.

A sequence begins with the blocks of the longest beginning that somebody has computed before. Where somebody is about to
compute more of it, it waits in line for that rather than computing the same again beside it.
"""

from __future__ import annotations

from collections import Counter, deque

from magister.engine import prefix
from magister.engine.limits import Limits
from magister.engine.pool import BlockPool
from magister.engine.sequence import Sequence, Span, State

_SCORED = 64
"""Tokens of a prompt that are scored in one step: the logits of each take half a megabyte at the most."""


class Scheduler:
    """Plans steps and owns the blocks."""

    def __init__(self, limits: Limits, root: bytes = b"") -> None:
        """`root` is what chains of hashes begin with, see `prefix`."""
        self.limits = limits
        self.pool = BlockPool(limits.blocks, limits.block_size)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0
        """How often a running sequence lost its blocks."""
        self._root = root
        self._promised: Counter[bytes] = Counter()

    @property
    def busy(self) -> bool:
        """Whether anything is left to compute."""
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Puts a new sequence in line."""
        assert sequence.state is State.WAITING
        assert not sequence.blocks
        assert len(sequence.ids) < self.limits.context
        sequence.shares = self.limits.prefix_cache
        self.waiting.append(sequence)

    def hash_prompts(self, sequences: list[Sequence]) -> None:
        """Spares choices of one prompt from hashing it once each."""
        if self.limits.prefix_cache:
            first = sequences[0]
            self._hash(first, len(first.ids))
            for sequence in sequences[1:]:
                sequence.root, sequence.hashes = first.root, first.hashes.copy()

    def remove(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Takes a sequence out, finished or not, and frees its blocks; one that is already out stays out.

        Without `keep`, what is in them is not to be found again.
        """
        if sequence.state is State.RUNNING:
            self.running.remove(sequence)
        elif sequence.state is State.WAITING:
            self.waiting.remove(sequence)
        self._release(sequence, State.DONE, keep=keep)

    def renew(self, root: bytes) -> None:
        """From here on nothing computed before is shared: neither what is in the blocks nor what joins it there."""
        self._root = root
        self.pool.forget()
        self._promised = Counter()
        for sequence in self.running:
            sequence.shares = False
            sequence.promised = 0

    def plan(self) -> list[Span]:
        """The next step: every decoding sequence's next token and its guesses, then prefill, older sequences first.

        At least one span while `busy`: the oldest sequence always gets its blocks. Changes no `computed`.
        """
        decoding = len([1 for sequence in self.running if len(sequence.ids) - sequence.computed == 1])
        spare = self.limits.step_tokens - decoding
        size = self.pool.block_size
        spans: list[Span] = []
        for sequence in self.running.copy():
            known = len(sequence.ids)
            if known > len(sequence.blocks) * size and not self._grow(sequence):
                continue
            start = sequence.computed
            if known - start > 1:
                spare -= self._plan_prefill(spans, sequence, spare)
            elif sequence.draft:
                draft = self._fit(sequence, spare)
                spare -= len(draft)
                spans.append(Span(sequence, start, known + len(draft), 1 + len(draft), draft))
            else:
                spans.append(Span(sequence, start, known, 1))
        while spare and self._admit():
            spare -= self._plan_prefill(spans, self.running[-1], spare)
        assert spans or not self.busy
        return spans

    def commit(self, span: Span, stop: int) -> None:
        """Notes that a planned span has been computed, and is right up to `stop`: guesses after it were wrong.

        The guesses that were right must be in the sequence's ids by now.
        """
        sequence = span.sequence
        assert sequence.computed == span.start
        sequence.computed = stop
        if sequence.shares and stop >= (sequence.registered + 1) * self.pool.block_size:
            self._register(sequence)

    def audit(self) -> None:
        """Asserts that queues, pool and promises agree."""
        assert all(sequence.state is State.RUNNING for sequence in self.running)
        assert all(sequence.state is State.WAITING and not sequence.blocks for sequence in self.waiting)
        promised: Counter[bytes] = Counter()
        for sequence in self.running:
            assert sequence.computed <= len(sequence.blocks) * self.pool.block_size
            promised.update(sequence.hashes[sequence.registered : sequence.promised])
        assert promised == self._promised
        order = [sequence.number for sequence in (*self.running, *self.waiting)]
        assert order == sorted(order), order
        self.pool.audit(sequence.blocks for sequence in self.running)

    def _plan_prefill(self, spans: list[Span], sequence: Sequence, spare: int) -> int:
        known, start = len(sequence.ids), sequence.computed
        scored = 0
        if sequence.unscored:
            stop = min(known, start + min(spare, _SCORED))
            # A row scores the token behind it.
            scored = max(0, min(stop + 1, known) - max(start + 1, known - sequence.unscored))
        else:
            stop = min(known, start + spare)
        if stop > start:
            spans.append(Span(sequence, start, stop, scored + int(stop == known), scored=scored))
        return stop - start

    def _fit(self, sequence: Sequence, spare: int) -> tuple[int, ...]:
        """The guesses that there is room for without taking anybody's blocks."""
        size, known = self.pool.block_size, len(sequence.ids)
        count = min(len(sequence.draft), spare, self.limits.context - known)
        missing = self.pool.blocks_for(known + count) - len(sequence.blocks)
        if missing > self.pool.available:
            count = len(sequence.blocks) * size - known
        elif missing > 0:
            sequence.blocks += self.pool.allocate(missing, after=sequence.blocks[-1])
        return sequence.draft[: max(count, 0)]

    def _grow(self, sequence: Sequence) -> bool:
        """Gives a running sequence blocks for all its tokens, if need be the youngest's; False if that is itself.

        The sequences behind it in `running` are not yet planned, so losing their blocks disturbs no span.
        """
        if sequence.state is not State.RUNNING:
            return False
        missing = self.pool.blocks_for(len(sequence.ids)) - len(sequence.blocks)
        while missing > self.pool.available:
            youngest = self.running.pop()
            self._release(youngest, State.WAITING)
            self.waiting.appendleft(youngest)
            self.preemptions += 1
            if youngest is sequence:
                return False
        sequence.blocks += self.pool.allocate(missing, after=sequence.blocks[-1])
        return True

    def _admit(self) -> bool:
        """Moves the head of the line to the running ones if there is room for it and nothing worth waiting for."""
        if not self.waiting or len(self.running) == self.limits.running:
            return False
        sequence = self.waiting[0]
        found = self._beginning(sequence)
        if found is None:
            return False
        missing = self.pool.blocks_for(len(sequence.ids)) - len(found)
        if missing > self.pool.available - sum(self.pool.is_idle(block) for block in found):
            return False
        for block in found:
            self.pool.share(block)
        sequence.blocks = found + self.pool.allocate(missing, after=found[-1] if found else None)
        sequence.computed = len(found) * self.pool.block_size
        sequence.registered = len(found)
        sequence.promised = len(sequence.hashes)
        self._promised.update(sequence.hashes[len(found) :])
        if sequence.cached is None:
            sequence.cached = sequence.computed
        sequence.state = State.RUNNING
        self.running.append(self.waiting.popleft())
        return True

    def _beginning(self, sequence: Sequence) -> list[int] | None:
        """Blocks that hold the longest beginning of a waiting sequence; None if somebody is about to compute more.

        Never all of its tokens: the last one has to be computed for what comes after it.
        """
        if not self.limits.prefix_cache:
            return []
        self._hash(sequence, len(sequence.ids))
        if sequence.unscored:
            # What is found is not computed, and so tells no probabilities.
            return []
        found: list[int] = []
        for key in sequence.hashes[: (len(sequence.ids) - 1) // self.pool.block_size]:
            block = self.pool.find(key)
            if block is None:
                return None if self._promised[key] else found
            found.append(block)
        return found

    def _register(self, sequence: Sequence) -> None:
        full = sequence.computed // self.pool.block_size
        self._hash(sequence, sequence.computed)
        for block in range(sequence.registered, full):
            self.pool.register(sequence.blocks[block], sequence.hashes[block])
        self._keep_promises(sequence, full)
        sequence.registered = full

    def _hash(self, sequence: Sequence, tokens: int) -> None:
        """Makes sure that the full blocks of a sequence's first tokens have hashes."""
        if sequence.root != self._root:
            sequence.root, sequence.hashes = self._root, []
        size = self.pool.block_size
        prefix.extend(sequence.hashes, self._root, sequence.ids, size, tokens // size, sequence.places)

    def _keep_promises(self, sequence: Sequence, full: int) -> None:
        """Takes back the promises for a sequence's blocks up to `full`, kept or not."""
        for key in sequence.hashes[sequence.registered : min(full, sequence.promised)]:
            self._promised[key] -= 1
            if not self._promised[key]:
                del self._promised[key]

    def _release(self, sequence: Sequence, state: State, *, keep: bool = True) -> None:
        self._keep_promises(sequence, sequence.promised)
        self.pool.free(sequence.blocks, keep=keep)
        sequence.blocks = []
        sequence.computed = sequence.registered = sequence.promised = 0
        sequence.draft = ()
        sequence.shares = self.limits.prefix_cache
        sequence.state = state
