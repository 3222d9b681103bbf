"""Grammars through the socket: compiled beside the loop, refused by name, forgotten with the client that asked."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

import pytest
from tests.engine.world import PIECES
from tests.worker.world import read, run, said, served

from magister.engine.engine import Engine
from magister.types import Prompt, Refused, Sampling

WORDS = Sampling(grammar='start: ("ab" | "cab"){1,9} "x"', temperature=1.0, seed=3, n=2)


def test_what_comes_through_the_socket_follows_the_grammar() -> None:
    async def main() -> None:
        async with served() as here:
            client = await here.connect()
            alone, apart = [await read(model, [7, 8], WORDS) for model in (here.engine, client)]
            for choice in range(2):
                ids = said(apart, choice)
                assert ids == said(alone, choice)
                assert b"".join(PIECES[id_] for id_ in ids).endswith(b"abx")
            with pytest.raises(Refused, match="unknown name") as refused:
                await read(client, [7], Sampling(grammar="start: other"))
            assert refused.value.field == "grammar"
            assert client.streams == 0
            await client.close()

    run(main())


class _Gate:
    """An engine's `prepare` that waits until it may go on."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self._prepare = engine.prepare
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        monkeypatch.setattr(engine, "prepare", self)

    def __call__(self, sampling: Sampling) -> None:
        self.entered.release()
        assert self.open.wait(30)
        self._prepare(sampling)


@pytest.mark.parametrize("leaves", [False, True])
def test_who_cancels_or_leaves_while_it_compiles_gets_nothing(leaves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with served() as here:
            gate = _Gate(here.engine, monkeypatch)
            client, other = await here.connect(), await here.connect()

            async def begin() -> None:
                async with aclosing(client.generate(Prompt((7,)), WORDS)) as stream:
                    await anext(stream)

            waiting = asyncio.create_task(begin())
            assert await asyncio.to_thread(gate.entered.acquire, True, 30)
            # Nobody else waits for the compiler.
            assert len(said(await read(other, [7], Sampling(max_tokens=5, ignore_end=True)))) == 5
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            if leaves:
                await client.close()
            else:
                await client.ping()
            gate.open.set()
            # Compiled by now, or soon: the same grammar comes after it.
            assert said(await read(other, [7], WORDS)) == said(await read(here.engine, [7], WORDS))
            assert here.engine.pulse[1] == 0
            await client.close()
            await other.close()

    run(main())
