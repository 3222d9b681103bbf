"""The process under stress, with nano: an engine that dies or stands still, clients that leave by the hundred."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from itertools import cycle, islice
from operator import le

import pytest
from tests.server.operated import (
    STREAMS,
    Operated,
    begun,
    call,
    chat,
    descriptors,
    eventually,
    leave,
    long_completion,
    opened,
    operated,
    streaming,
)

LONG = (
    "Sort these numbers: 5 3 9 1 22 13 4 8 77 12 6 31 18 2 90 45",
    "1 2 3 4 5 6 7 8 9 10 11 12 " * 5,
    "What is 83 * 97 + 41 * 59?",
    "Reverse this list: a b c d e f g h i j k l m n o p q r s t u v w x y z",
)
"""Dialects that cannot ask for an answer without an end get the longest that nano gives to one of these."""
ERRORS = {
    "openai_chat": b'data: {"error":{',
    "openai_responses": b"event: response.failed",
    "anthropic": b'event: error\ndata: {"type":"error"',
    "google": b'{"error":{',
    "openai_completions": b'data: {"error":{',
}
"""Dialect -> how its error in the middle of a stream begins."""


@pytest.fixture(scope="module")
def server() -> Iterator[Operated]:
    with operated() as running:
        yield running


@pytest.fixture(scope="module")
def longest(server: Operated) -> str:
    """What nano has most to say to, at its likeliest."""

    def tokens(text: str) -> int:
        answer = call(server.url, "POST", "/v1/chat/completions", chat(text, temperature=0))[2]
        return int(json.loads(answer)["usage"]["completion_tokens"])

    found = max(LONG, key=tokens)
    assert tokens(found) > 150
    return found


def lasting(dialect: str, text: str) -> tuple[str, object]:
    """A stream of hundreds of tokens."""
    if dialect == "openai_completions":
        return long_completion()
    path, body = streaming(dialect, text)
    if dialect == "google":
        # Without thoughts its first event would come after them.
        return path, body | {"generationConfig": {"temperature": 0, "thinkingConfig": {"includeThoughts": True}}}
    return path, body | {"temperature": 0}


async def _kill_under(server: Operated, dialects: list[str], text: str) -> list[tuple[str, bytes, float]]:
    """What each client was told after the engine was killed, and when."""
    ends = [await opened(server.url, *lasting(dialect, text)) for dialect in dialects]
    firsts = await asyncio.gather(*(begun(reader) for reader, _ in ends))
    os.kill(server.engine, signal.SIGKILL)
    killed = time.monotonic()

    async def rest(dialect: str, reader: asyncio.StreamReader, first: bytes) -> tuple[str, bytes, float]:
        told = first + await reader.read()
        return dialect, told, time.monotonic() - killed

    told = await asyncio.gather(
        *(rest(dialect, reader, first) for dialect, (reader, _), first in zip(dialects, ends, firsts, strict=True))
    )
    for _, writer in ends:
        await leave(writer)
    return told


def test_a_killed_engine_is_told_of_in_every_dialect_and_comes_back(server: Operated, longest: str) -> None:
    before = server.engine
    dialects = list(islice(cycle(ERRORS), 32))
    told = asyncio.run(_kill_under(server, dialects, longest))
    killed = time.monotonic() - max(seconds for *_, seconds in told)
    for dialect, said, seconds in told:
        assert ERRORS[dialect] in said, (dialect, said[-400:])
        assert seconds < 2, (dialect, seconds)
    # Meanwhile it says so, and sends everybody away for a while.
    status, health = server.health()
    assert (status, health["state"]) == (503, "restarting")
    assert "signal 9" in health["reason"]
    for path, expected in (("/v1/chat/completions", 503), ("/v1/messages", 529)):
        refused, headers, _ = call(server.url, "POST", path, chat(max_tokens=5))
        assert refused == expected
        assert float(headers["retry-after"]) >= 1
    assert eventually(lambda: call(server.url, "POST", "/v1/chat/completions", chat())[0] == 200, 10)
    assert time.monotonic() - killed < 10
    status, health = server.health()
    assert (status, health["state"], health["restarts"]) == (200, "ready", 1)
    assert health["process"] != before


def test_a_client_that_leaves_frees_its_blocks(server: Operated, longest: str) -> None:
    async def all_leave() -> None:
        ends = [await opened(server.url, *lasting(dialect, longest)) for dialect in STREAMS]
        for reader, _ in ends:
            await begun(reader)
        assert (await asyncio.to_thread(server.load)).running == len(STREAMS)
        for _, writer in ends:
            await leave(writer)

    asyncio.run(all_leave())
    left = time.monotonic()
    assert eventually(lambda: server.load().running == 0, 1)
    # A step of nano takes milliseconds; what is asked for here is that it does not take an answer's length.
    assert time.monotonic() - left < 0.5
    clean(server)


def test_hundreds_that_come_and_go_leave_nothing(server: Operated, longest: str) -> None:
    async def come_and_go() -> None:
        gate = asyncio.Semaphore(16)

        async def once(dialect: str) -> None:
            async with gate:
                reader, writer = await opened(server.url, *lasting(dialect, longest))
                await begun(reader)
                await leave(writer)

        await asyncio.gather(*(once(dialect) for dialect in islice(cycle(ERRORS), 300)))

    pids = [server.process.pid, server.engine]
    call(server.url, "POST", "/v1/chat/completions", chat())
    before = descriptors(pids)
    asyncio.run(come_and_go())
    # The connection that was asked on just before may have been open still when they were counted.
    assert eventually(lambda: all(map(le, descriptors(pids), before)), 2), (before, descriptors(pids))
    clean(server)


def test_an_engine_that_stands_still_is_started_again(server: Operated) -> None:
    before, restarts = server.engine, server.health()[1]["restarts"]

    async def stand_still() -> bytes:
        reader, writer = await opened(server.url, *lasting("openai_completions", ""))
        first = await begun(reader)
        os.kill(before, signal.SIGSTOP)
        told = first + await reader.read()
        await leave(writer)
        return told

    assert ERRORS["openai_completions"] in asyncio.run(stand_still())
    assert "no sign of life" in server.health()[1]["reason"]
    assert eventually(lambda: server.health()[0] == 200, 10)
    assert server.engine != before
    assert server.health()[1]["restarts"] == restarts + 1
    status, _, body = call(server.url, "POST", "/v1/chat/completions", chat())
    assert (status, json.loads(body)["model"]) == (200, "nano")


def clean(server: Operated) -> None:
    """Nothing runs, and every block is free or holds what a later prompt may find."""
    load = server.load()
    assert (load.running, load.waiting) == (0, 0)
    assert load.free_blocks == 2048
