"""Events on their way: none lost, none twice, the work ended when the client is."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from magister.server.pump import MOST, Pump
from magister.types import Event, TextDelta


async def said(count: int, ended: list[int], error: Exception | None = None) -> AsyncGenerator[Event, None]:
    try:
        for number in range(count):
            yield TextDelta(text=str(number))
            if number % 7 == 0:
                await asyncio.sleep(0)
        if error is not None:
            raise error
    finally:
        ended.append(1)


def test_all_events_come_in_order_and_together_where_nobody_looked() -> None:
    async def run() -> None:
        ended: list[int] = []
        taken: list[Event] = []
        async with Pump(said(1000, ended)) as pump:
            while events := await pump.take(1.0):
                assert len(events) <= MOST
                taken += events
                await asyncio.sleep(0.001)
        assert [event.text for event in taken if isinstance(event, TextDelta)] == [str(n) for n in range(1000)]
        assert ended == [1]

    asyncio.run(run())


def test_an_error_comes_after_what_was_said_before_it() -> None:
    async def run() -> None:
        async with Pump(said(3, [], ValueError("broken"))) as pump:
            await asyncio.sleep(0.01)
            assert len(await pump.take(1.0) or []) == 3
            with pytest.raises(ValueError, match="broken"):
                await pump.take(1.0)

    asyncio.run(run())


async def silent(ended: list[int]) -> AsyncGenerator[Event, None]:
    try:
        yield TextDelta(text="a")
        await asyncio.sleep(3600)
    finally:
        ended.append(1)


def test_silence_is_told_and_leaving_ends_the_work() -> None:
    async def run() -> None:
        ended: list[int] = []
        async with Pump(silent(ended)) as pump:
            assert await pump.take(1.0)
            assert await pump.take(0.01) is None
            asyncio.get_running_loop().call_later(0.01, pump.leave)
            assert await pump.take(None) == []
            assert pump.gone
            assert ended == []
        assert ended == [1]

    asyncio.run(run())
