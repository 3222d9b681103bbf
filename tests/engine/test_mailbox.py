"""Chunks reach their caller in order, once, and joined where they waited."""

import asyncio
import threading

import pytest

from magister.engine.mailbox import Mailbox, joined, ring
from magister.types import Chunk, FinishReason, TokenLogprob


def _chunk(choice: int, *ids: int, version: int = 0, finish: FinishReason | None = None) -> Chunk:
    return Chunk(
        choice=choice,
        ids=ids,
        logprobs=tuple(-float(id_) for id_ in ids),
        sampled_logprobs=tuple(-2.0 * id_ for id_ in ids),
        forced=tuple(id_ % 2 == 0 for id_ in ids),
        entropy=tuple(float(id_) for id_ in ids),
        top=tuple((TokenLogprob(id_, 0.0),) for id_ in ids),
        version=version,
        finish=finish,
        trim=3 if finish else 0,
        cached_tokens=5 if finish else 0,
    )


def test_what_waited_is_one_chunk_for_each_choice_and_version() -> None:
    chunks = [
        _chunk(0, 1),
        _chunk(1, 2),
        _chunk(0, 3, 4),
        _chunk(1, 5, version=1),
        _chunk(0, 6, finish=FinishReason.STOP),
    ]
    first, second, third = joined(chunks)
    assert first == _chunk(0, 1, 3, 4, 6, finish=FinishReason.STOP)
    assert (second, third) == (_chunk(1, 2), _chunk(1, 5, version=1))


def test_without_logprobs_there_are_none_to_join() -> None:
    (chunk,) = joined([Chunk(ids=(1,), forced=(False,)), Chunk(ids=(2,), forced=(True,))])
    assert (chunk.ids, chunk.forced, chunk.logprobs, chunk.entropy, chunk.top) == (
        (1, 2),
        (False, True),
        (),
        None,
        None,
    )


def test_everything_put_from_another_thread_is_taken_in_order() -> None:
    count = 3000

    async def run() -> list[int]:
        box = Mailbox()

        def put() -> None:
            for number in range(count):
                if box.put([_chunk(0, number)]):
                    ring([box])

        thread = threading.Thread(target=put)
        thread.start()
        taken: list[int] = []
        while len(taken) < count:
            for chunk in await asyncio.wait_for(box.take(), 30):
                taken += chunk.ids
        thread.join()
        return taken

    assert asyncio.run(run()) == list(range(count))


def test_a_ring_is_asked_for_once_until_the_caller_has_looked() -> None:
    async def run() -> list[bool]:
        box = Mailbox()
        rings = [box.put([_chunk(0, 1)]), box.put([_chunk(0, 2)])]
        await box.take()
        return [*rings, box.put([_chunk(0, 3)])]

    assert asyncio.run(run()) == [True, False, True]


def test_a_failure_reaches_a_caller_who_waits() -> None:
    async def run() -> None:
        box = Mailbox()
        asyncio.get_running_loop().call_later(0.01, box.fail, ArithmeticError("nine"))
        await box.take()

    with pytest.raises(RuntimeError, match="nine") as failure:
        asyncio.run(run())
    assert isinstance(failure.value.__cause__, ArithmeticError)
