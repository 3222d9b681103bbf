"""Which spans are planned: order, budget, chunks, preemption."""

import random

from magister.engine.limits import Limits
from magister.engine.scheduler import Scheduler
from magister.engine.sequence import Sequence, Span, State


def _limits(**changes: int) -> Limits:
    values = {"context": 32, "blocks": 16, "block_size": 4, "step_tokens": 10, "running": 4} | changes
    return Limits(**values)


def _add(scheduler: Scheduler, number: int, length: int) -> Sequence:
    sequence = Sequence(number=number, ids=[7] * length, prompt_length=length)
    scheduler.add(sequence)
    return sequence


def _step(scheduler: Scheduler) -> list[Span]:
    """A step of a model that always has one more token to say."""
    spans = scheduler.plan()
    scheduler.audit()
    for span in spans:
        scheduler.commit(span)
        if span.samples:
            span.sequence.ids.append(8)
    return spans


def _shape(spans: list[Span]) -> list[tuple[int, int, int, bool]]:
    return [(span.sequence.number, span.start, span.stop, span.samples) for span in spans]


def test_a_long_prompt_is_cut_to_the_budget_and_decodes_go_beside_it() -> None:
    scheduler = Scheduler(_limits())
    _add(scheduler, 0, 3)
    _add(scheduler, 1, 20)
    assert _shape(_step(scheduler)) == [(0, 0, 3, True), (1, 0, 7, False)]
    assert _shape(_step(scheduler)) == [(0, 3, 4, True), (1, 7, 16, False)]
    _add(scheduler, 2, 6)
    assert _shape(_step(scheduler)) == [(0, 4, 5, True), (1, 16, 20, True), (2, 0, 5, False)]
    assert _shape(_step(scheduler)) == [(0, 5, 6, True), (1, 20, 21, True), (2, 5, 6, True)]


def test_no_more_run_than_may() -> None:
    scheduler = Scheduler(_limits(running=2))
    sequences = [_add(scheduler, number, 2) for number in range(3)]
    _step(scheduler)
    assert [sequence.state for sequence in sequences] == [State.RUNNING, State.RUNNING, State.WAITING]
    scheduler.remove(sequences[0])
    assert _shape(_step(scheduler)) == [(1, 2, 3, True), (2, 0, 2, True)]


def test_the_youngest_makes_way_and_comes_back_whole() -> None:
    scheduler = Scheduler(_limits(context=16, blocks=4, step_tokens=20))
    old, young = _add(scheduler, 0, 7), _add(scheduler, 1, 7)
    _step(scheduler)
    _step(scheduler)
    assert old.ids == young.ids == [7] * 7 + [8] * 2
    assert _shape(_step(scheduler)) == [(0, 8, 9, True)]
    assert (young.state, young.computed, young.blocks) == (State.WAITING, 0, [])
    assert young.ids == [7] * 7 + [8] * 2
    assert scheduler.preemptions == 1
    late = _add(scheduler, 2, 1)
    scheduler.remove(old)
    assert _shape(_step(scheduler)) == [(1, 0, 9, True), (2, 0, 1, True)]
    scheduler.remove(young)
    scheduler.remove(late)
    assert not scheduler.busy
    assert scheduler.pool.available == 4


def test_removing_from_either_queue_frees_everything_once() -> None:
    scheduler = Scheduler(_limits(running=1))
    running, waiting = _add(scheduler, 0, 5), _add(scheduler, 1, 5)
    _step(scheduler)
    for sequence in (waiting, running, running):
        scheduler.remove(sequence)
        scheduler.audit()
    assert scheduler.plan() == []


def test_everything_ends_whatever_comes() -> None:
    chance = random.Random(1)
    for _ in range(30):
        limits = _limits(blocks=8, running=chance.randint(1, 6))
        scheduler = Scheduler(limits)
        ends: dict[int, int] = {}
        number = 0
        while number < 40 or scheduler.busy:
            if number < 40 and chance.random() < 0.5:
                sequence = _add(scheduler, number, chance.randint(1, 30))
                ends[number] = chance.randint(len(sequence.ids) + 1, 32)
                number += 1
            if not scheduler.busy:
                continue
            spans = _step(scheduler)
            assert sum(span.stop - span.start for span in spans) <= limits.step_tokens
            for span in spans:
                if len(span.sequence.ids) == ends[span.sequence.number] or chance.random() < 0.02:
                    scheduler.remove(span.sequence)
        scheduler.audit()
        assert scheduler.pool.available == limits.blocks
