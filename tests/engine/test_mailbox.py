"""Chunks reach their caller in order, and once."""

import asyncio
import threading

import pytest

from magister.engine.mailbox import Mailbox, ring
from magister.types import Chunk


def _chunk(*ids: int) -> Chunk:
    return Chunk(ids=ids, forced=(False,) * len(ids))


def test_everything_put_from_another_thread_is_taken_in_order() -> None:
    count = 3000

    async def run() -> list[int]:
        box = Mailbox()

        def put() -> None:
            for number in range(count):
                if box.put([_chunk(number)]):
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
        rings = [box.put([_chunk(1)]), box.put([_chunk(2)])]
        await box.take()
        return [*rings, box.put([_chunk(3)])]

    assert asyncio.run(run()) == [True, False, True]


def test_what_came_before_a_failure_is_taken_before_it() -> None:
    async def run() -> list[Chunk]:
        box = Mailbox()
        box.put([_chunk(1, 2)])
        box.fail(ArithmeticError("nine"))
        taken = await box.take()
        with pytest.raises(RuntimeError, match="nine"):
            await box.take()
        return taken

    assert asyncio.run(run()) == [_chunk(1, 2)]


def test_a_failure_reaches_a_caller_who_waits() -> None:
    async def run() -> None:
        box = Mailbox()
        asyncio.get_running_loop().call_later(0.01, box.fail, ArithmeticError("nine"))
        await box.take()

    with pytest.raises(RuntimeError, match="nine") as failure:
        asyncio.run(run())
    assert isinstance(failure.value.__cause__, ArithmeticError)
