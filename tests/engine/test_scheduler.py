"""Which spans are planned: order, budget, chunks, preemption."""

import random
from typing import Any

from magister.engine.limits import Limits
from magister.engine.scheduler import Scheduler
from magister.engine.sequence import Sequence, Span, State


def _limits(**changes: Any) -> Limits:
    values = {"context": 32, "blocks": 16, "block_size": 4, "step_tokens": 10, "running": 4, "prefix_cache": False}
    return Limits(**(values | changes))


def _add(scheduler: Scheduler, number: int, length: int, ids: list[int] | None = None) -> Sequence:
    sequence = Sequence(number=number, ids=[7] * length if ids is None else ids.copy(), prompt_length=length)
    scheduler.add(sequence)
    return sequence


def _step(scheduler: Scheduler) -> list[Span]:
    """A step of a model that always has one more token to say."""
    spans = scheduler.plan()
    scheduler.audit()
    for span in spans:
        if span.rows:
            span.sequence.ids.append(8)
        scheduler.commit(span, span.stop)
    return spans


def _shape(spans: list[Span]) -> list[tuple[int, int, int, bool]]:
    return [(span.sequence.number, span.start, span.stop, span.rows > 0) for span in spans]


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
        limits = _limits(blocks=8, running=chance.randint(1, 6), prefix_cache=chance.random() < 0.5)
        scheduler = Scheduler(limits)
        ends: dict[int, int] = {}
        number = 0
        while number < 40 or scheduler.busy:
            if number < 40 and chance.random() < 0.5:
                length = chance.randint(1, 30)
                sequence = _add(scheduler, number, length, [chance.randint(1, 2) for _ in range(length)])
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
        scheduler.pool.forget()
        scheduler.audit()


SHARING = {"prefix_cache": True, "blocks": 40, "context": 64, "step_tokens": 64}


def test_a_second_turn_computes_only_what_is_new() -> None:
    scheduler = Scheduler(_limits(**SHARING))
    first = _add(scheduler, 0, 10, list(range(10)))
    for _ in range(4):
        _step(scheduler)
    assert first.ids == [*range(10), 8, 8, 8, 8]
    scheduler.remove(first)
    scheduler.audit()
    assert scheduler.pool.idle == 3, "13 tokens were computed: three full blocks"
    second = _add(scheduler, 1, 20, [*first.ids, *range(20, 26)])
    assert _shape(_step(scheduler)) == [(1, 12, 20, True)]
    assert second.cached == 12
    scheduler.audit()


def test_the_last_token_is_always_computed() -> None:
    scheduler = Scheduler(_limits(**SHARING))
    scheduler.remove(_first(scheduler, 0))
    again = _first(scheduler, 1)
    assert (again.cached, again.blocks[0]) == (8, 0)


def _first(scheduler: Scheduler, number: int) -> Sequence:
    """A prompt of three full blocks, after its first step."""
    sequence = _add(scheduler, number, 12, list(range(12)))
    _step(scheduler)
    return sequence


def test_choices_wait_for_the_first_to_compute_what_they_share() -> None:
    scheduler = Scheduler(_limits(**SHARING | {"step_tokens": 8}))
    for number in range(3):
        _add(scheduler, number, 15, list(range(15)))
    other = _add(scheduler, 3, 2, [50, 51])
    assert _shape(_step(scheduler)) == [(0, 0, 8, False)]
    assert _shape(_step(scheduler)) == [(0, 8, 15, True)]
    assert _shape(_step(scheduler)) == [(0, 15, 16, True), (1, 12, 15, True), (2, 12, 15, True), (3, 0, 1, False)]
    assert other.cached == 0
    assert scheduler.running[0].blocks[:3] == scheduler.running[1].blocks[:3] == scheduler.running[2].blocks[:3]
    assert len({sequence.blocks[3] for sequence in scheduler.running[:3]}) == 3


def test_nobody_waits_for_a_promise_that_is_gone() -> None:
    scheduler = Scheduler(_limits(**SHARING | {"step_tokens": 8}))
    first, second = (_add(scheduler, number, 15, list(range(15))) for number in range(2))
    _step(scheduler)
    scheduler.remove(first)
    scheduler.audit()
    assert _shape(_step(scheduler)) == [(1, 8, 15, True)]
    assert second.cached == 8


def test_the_preempted_finds_its_blocks_again() -> None:
    scheduler = Scheduler(_limits(context=16, blocks=5, step_tokens=20, prefix_cache=True))
    old, young = _add(scheduler, 0, 7, list(range(7))), _add(scheduler, 1, 7, list(range(10, 17)))
    while not scheduler.preemptions:
        _step(scheduler)
    assert (young.state, young.blocks, len(young.ids)) == (State.WAITING, [], 9)
    scheduler.remove(old)
    assert _shape(_step(scheduler)) == [(1, 8, 9, True)]
    assert young.cached == 0, "what it found was its own"


def test_nothing_is_shared_across_weights() -> None:
    scheduler = Scheduler(_limits(**SHARING), b"old")
    running = _first(scheduler, 0)
    done = _add(scheduler, 1, 12, list(range(20, 32)))
    _step(scheduler)
    scheduler.remove(done)
    late = _add(scheduler, 2, 12, list(range(20, 32)))
    scheduler.renew(b"new")
    scheduler.audit()
    assert scheduler.pool.idle == 0
    _step(scheduler)
    assert late.cached == 0
    for _ in range(6):
        _step(scheduler)
    scheduler.remove(running)
    assert scheduler.pool.idle == 0, "two versions had a part in its blocks"
    scheduler.remove(late)
    assert scheduler.pool.idle == 4
    scheduler.audit()


def test_guesses_take_what_is_free_and_nobodys_blocks() -> None:
    scheduler = Scheduler(_limits(context=16, blocks=4, step_tokens=4))
    old, young = _add(scheduler, 0, 3), _add(scheduler, 1, 1)
    _step(scheduler)
    old.draft = young.draft = (1, 2, 3, 4, 5)
    spans = scheduler.plan()
    assert [(span.ids, span.rows) for span in spans] == [([8, 1, 2], 3), ([8], 1)], "two rows, two more tokens"
    assert len(old.blocks) == 2
    scheduler = Scheduler(_limits(context=16, blocks=4, step_tokens=20))
    old, young = _add(scheduler, 0, 8), _add(scheduler, 1, 7)
    _step(scheduler)
    young.draft = (1, 2)
    assert [span.draft for span in scheduler.plan()] == [()], "the old one takes the young one's blocks"
    assert young.state is State.WAITING
    assert not young.draft


def test_right_guesses_are_committed_and_wrong_ones_computed_over() -> None:
    scheduler = Scheduler(_limits(**SHARING))
    sequence = _add(scheduler, 0, 7, list(range(7)))
    _step(scheduler)
    sequence.draft = (20, 21, 22)
    (span,) = scheduler.plan()
    assert (span.start, span.stop, span.rows) == (7, 11, 4)
    sequence.ids += [20, 30]
    scheduler.commit(span, 9)
    sequence.draft = ()
    assert (sequence.computed, sequence.remaining, sequence.registered) == (9, 1, 2)
    assert _shape(_step(scheduler)) == [(0, 9, 10, True)]
    scheduler.audit()
