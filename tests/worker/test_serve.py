"""An engine behind its socket gives what it gives alone, and outlives its clients' worst manners."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.engine.world import PIECES, SlowModel, random_model
from tests.worker.world import ENDLESS, HELLO, Served, open_files, read, run, said, served
from torch import Tensor

from magister.engine.limits import Limits
from magister.engine.serve import PACE, serving
from magister.model.decoder import Attend
from magister.model.network import Model
from magister.types import Busy, Chunk, Prompt, Refused, Sampling, TokenModel, TooLong, Upstream
from magister.worker import frames
from magister.worker.frames import Generate, encode

LONG = Limits(context=500, blocks=1200, block_size=4, step_tokens=64, running=8)


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_comes_through_the_socket_is_what_the_engine_says(make_loop: Callable[[], Any]) -> None:
    asked = [
        Sampling(max_tokens=40, seed=1, n=3),
        Sampling(max_tokens=60, seed=2, temperature=1.5, logprobs=True, top_logprobs=3),
        Sampling(temperature=0.0, thinking_tokens=5, stop=("ab",), logit_bias={9: 2.0}),
    ]

    def values(chunks: list[Chunk], name: str) -> list[Any]:
        return [value for chunk in chunks if chunk.choice == 0 for value in getattr(chunk, name) or ()]

    async def main() -> None:
        async with served() as here:
            client = await here.connect()
            assert client.hello == HELLO
            models: tuple[TokenModel, ...] = (here.engine, client)
            alone, apart = [
                await asyncio.gather(*[read(model, [7, 8, 9], one) for one in asked for _ in range(3)])
                for model in models
            ]
            for ours, theirs in zip(alone, apart, strict=True):
                for choice in range(3):
                    assert said(ours, choice) == said(theirs, choice)
                assert values(ours, "forced") == values(theirs, "forced")
                for name in ("logprobs", "sampled_logprobs", "entropy"):
                    # Plain torch rounds differently in another batch.
                    assert values(ours, name) == pytest.approx(values(theirs, name), abs=1e-4)
                tops = [[[one.id for one in place] for place in values(them, "top")] for them in (ours, theirs)]
                assert tops[0] == tops[1]
                ends = [[(c.finish, c.stop, c.trim) for c in chunks if c.finish] for chunks in (ours, theirs)]
                assert sorted(ends[0]) == sorted(ends[1])
                assert all(chunk.timings is not None for chunk in theirs if chunk.finish)
            await client.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(asyncio.wait_for(main(), 60))


def test_first_tokens_and_ends_come_at_once_and_the_rest_at_a_pace() -> None:
    async def main() -> None:
        async with served(limits=LONG) as here:
            client, clock = await here.connect(), asyncio.get_running_loop().time
            await read(client, [7], Sampling(max_tokens=2))
            began = clock()
            chunks, times = [], []
            asked = Sampling(max_tokens=400, ignore_end=True, seed=1)
            async for chunk in client.generate(Prompt((7, 8)), asked):
                chunks.append(chunk)
                times.append(clock() - began)
            assert len(said(chunks)) == 400
            # More steps than frames, no matter how fast this machine is; the first and the last wait for nobody.
            assert len(chunks) <= times[-1] / PACE + 3 < 200
            assert len(chunks[0].ids) < 40
            began = clock()
            await asyncio.gather(*[read(client, [7, n], Sampling(max_tokens=1)) for n in range(20)])
            assert clock() - began < 20 * PACE
            await client.close()

    run(main())


def test_refusals_keep_their_types_and_numbers() -> None:
    async def main() -> None:
        async with served(limits=Limits(context=96, blocks=64, block_size=4, running=2, waiting=1)) as here:
            client = await here.connect()
            with pytest.raises(TooLong) as too_long:
                await read(client, [7] * 96, ENDLESS)
            assert (too_long.value.tokens, too_long.value.limit) == (96, 95)
            with pytest.raises(Refused, match=r"^top_p: 2\.0 is not in") as refused:
                await read(client, [7], Sampling(top_p=2.0))
            assert refused.value.field == "top_p"
            with pytest.raises(Refused, match=f"token {len(PIECES)} is not"):
                await read(client, [len(PIECES)], ENDLESS)
            with pytest.raises(Busy) as busy:
                await read(client, [7], Sampling(n=4))
            assert busy.value.retry_after == 1.0
            assert client.streams == 0
            assert len(await read(client, [7], Sampling(max_tokens=1))) == 1
            await client.close()

    run(main())


class _Breaking(Model):
    def forward(self, ids_or_x: Tensor, positions_t: Tensor, attend: Attend) -> Tensor:
        if (ids_or_x == 9).any():
            raise ArithmeticError("nine")
        return super().forward(ids_or_x, positions_t, attend)


def test_a_failing_step_is_told_once_and_the_engine_goes_on() -> None:
    calm = Sampling(max_tokens=80, n=2, ignore_end=True, logit_bias={9: -1000.0})

    async def main() -> None:
        async with served(random_model(kind=_Breaking)) as here:
            client = await here.connect()
            for outcome in await asyncio.gather(
                *[read(client, [id_], calm) for id_ in (7, 8, 9)], return_exceptions=True
            ):
                assert isinstance(outcome, Upstream)
                assert "nine" in str(outcome)
            assert len(said(await read(client, [7], calm))) == 80
            await client.close()

    run(main())


def test_closing_an_iterator_frees_its_blocks_within_a_step() -> None:
    async def main() -> None:
        async with served(random_model(kind=SlowModel), LONG) as here:
            client = await here.connect()
            stream = client.generate(Prompt((7, 8)), Sampling(ignore_end=True, n=3))
            async with aclosing(stream):
                await anext(stream)
                assert (await client.load()).running == 3
            # The pong follows the cancel, which the engine does before its next step.
            steps = (await client.ping()).steps
            load = await client.load()
            assert (load.running, load.free_blocks) == (0, LONG.blocks)
            assert load.steps <= steps + 1
            await client.close()

    run(main())


def test_a_client_that_goes_takes_its_requests_with_it() -> None:
    async def main() -> None:
        async with served(random_model(kind=SlowModel), LONG) as here:
            leaving, staying = await here.connect(), await here.connect()
            streams = [leaving.generate(Prompt((7,)), ENDLESS) for _ in range(3)]
            mine = staying.generate(Prompt((8,)), ENDLESS)
            for stream in [*streams, mine]:
                await anext(stream)
            await leaving.close()
            for stream in streams:
                with pytest.raises(Upstream, match="the engine stopped"):
                    async for _ in stream:
                        pass
            while (await staying.load()).running > 1:
                await asyncio.sleep(0.01)
            await anext(mine)
            with pytest.raises(Upstream):
                await leaving.ping()
            await staying.close()
            with pytest.raises(Upstream):
                await read(staying, [7], ENDLESS)

    run(main())


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 64,
        b"\0\0\0\x04abcd",
        b"\0\0\0\0",
        bytes(encode(Generate(1, Prompt((7,)), ENDLESS))) * 2,
    ],
)
def test_garbage_closes_its_own_connection_only(garbage: bytes) -> None:
    async def main() -> None:
        async with served(random_model(kind=SlowModel), LONG) as here:
            client = await here.connect()
            stream = client.generate(Prompt((7,)), ENDLESS)
            await anext(stream)
            reader, writer = await asyncio.open_unix_connection(str(here.path))
            writer.write(garbage)
            try:
                await reader.read()
            except ConnectionResetError:
                assert garbage
            writer.close()
            await anext(stream)
            assert (await client.load()).running == 1
            await client.close()

    run(main())


def test_a_client_that_does_not_read_is_cut_off() -> None:
    many = Sampling(max_tokens=490, ignore_end=True, logprobs=True, top_logprobs=20, n=8)

    async def main() -> None:
        async with served(limits=LONG, unread=2000) as here:
            deaf = await _deaf(here)
            deaf.setblocking(True)
            for number in range(1, 4):
                deaf.sendall(encode(Generate(number, Prompt((7,)), many)))
            client = await here.connect()
            while True:
                load = await client.load()
                if load.tokens > 1 and not load.running + load.waiting:
                    break
                await asyncio.sleep(0.02)
            assert load.tokens < 3 * 8 * 490, "it was cut off before all was computed"
            deaf.close()
            await client.close()

    run(main())


def test_who_does_not_read_is_not_read_either() -> None:
    async def main() -> None:
        async with served() as here:
            deaf = await _deaf(here)
            refused = bytes(encode(Generate(1, Prompt(()), Sampling()))) * 100
            sent = 0
            for _ in range(10):
                try:
                    while sent < 64 << 20:
                        sent += deaf.send(refused)
                        await asyncio.sleep(0)
                except BlockingIOError:
                    await asyncio.sleep(0.02)
            assert sent < 16 << 20
            deaf.close()

    run(main())


async def _deaf(here: Served) -> socket.socket:
    """A connection of which nobody reads a byte."""
    deaf = socket.socket(socket.AF_UNIX)
    deaf.setblocking(False)
    await asyncio.get_running_loop().sock_connect(deaf, str(here.path))
    return deaf


def test_a_stream_that_nobody_reads_is_cancelled_and_others_go_on() -> None:
    async def main() -> None:
        async with served(limits=LONG) as here:
            client = await here.connect(unread=100)
            slow = client.generate(Prompt((7,)), Sampling(ignore_end=True, max_tokens=400))
            first = await anext(slow)
            assert len(said(await read(client, [8], Sampling(ignore_end=True, max_tokens=400)))) == 400
            # What had come by then is not lost, and is one chunk.
            assert 100 < len((await anext(slow)).ids) < 400 - len(first.ids)
            with pytest.raises(Upstream, match="more than 100 tokens waited"):
                await anext(slow)
            assert client.streams == 0
            await client.close()

    run(main())


def test_what_is_told_of_prompts_is_no_backlog_and_has_frames_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Sampling(max_tokens=1, logprobs=True, top_logprobs=20, prompt_logprobs=True)
    prompts = [[5 + (place * place + number) % 26 for place in range(400)] for number in range(6)]
    # Of one prompt there are 140 kB to tell.
    monkeypatch.setattr(frames, "LARGEST_ANSWER", 200_000)

    async def main() -> None:
        async with served(limits=LONG, unread=2000) as here:
            client = await here.connect(unread=2000)
            tasks = [asyncio.ensure_future(read(client, prompt, asked)) for prompt in prompts]
            while here.engine.pulse[1] < len(tasks):
                await asyncio.sleep(0)
            while here.engine.pulse[1]:
                # The loop stands still, so that all of it is sent together.
                time.sleep(0.01)
            for chunks in await asyncio.gather(*tasks):
                assert len(said(chunks)) == 1
                assert [len(chunk.prompt_logprobs or ()) for chunk in chunks] == [399]
            await client.close()

    run(main())


@pytest.mark.parametrize("error", [AssertionError("lost"), OverflowError("too large"), RuntimeError("gone")])
def test_whatever_an_engine_raises_is_told(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    async def main() -> None:
        async with served() as here:
            client = await here.connect()
            with monkeypatch.context() as patch:
                for name in ("prepare", "submit", "load"):
                    patch.setattr(here.engine, name, fail)
                for sampling in (Sampling(grammar='start: "a"'), Sampling()):
                    with pytest.raises(Upstream, match=str(error)):
                        await read(client, [7], sampling)
                with pytest.raises(Upstream, match=str(error)):
                    await client.load()
            # The link has outlived it.
            assert len(said(await read(client, [7], Sampling(max_tokens=3, ignore_end=True)))) == 3
            await client.close()

    run(main())


def test_two_hundred_clients_that_come_and_go_leave_nothing() -> None:
    async def main() -> None:
        async with served(limits=LONG) as here:
            staying = await here.connect()
            before = open_files()

            async def visit(number: int) -> None:
                client = await here.connect()
                stream = client.generate(Prompt((7, number % 20 + 5)), ENDLESS)
                for _ in range(number % 3):
                    await anext(stream)
                await client.close()
                if number % 3:
                    with pytest.raises(Upstream):
                        async for _ in stream:
                            pass

            for start in range(0, 200, 20):
                await asyncio.gather(*[visit(start + i) for i in range(20)])
            while (await staying.load()).running:
                await asyncio.sleep(0.01)
            assert (await staying.load()).free_blocks == LONG.blocks
            assert open_files() == before
            await staying.close()

    run(main())


def test_only_this_user_may_knock_and_a_dead_engine_is_no_hindrance() -> None:
    async def main() -> None:
        async with served() as here:
            assert here.path.stat().st_mode & 0o777 == 0o600
            with pytest.raises(ValueError, match="listens"):
                async with serving(here.engine, HELLO, here.path):
                    pass
            long = Path("/tmp") / ("x" * 120)
            with pytest.raises(ValueError, match="125 bytes, at most 107"):
                async with serving(here.engine, HELLO, long):
                    pass
            left = here.path.with_name("left")
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(left))
            async with serving(here.engine, HELLO, left):
                assert (await Served(here.engine, left).connect()).hello == HELLO
            assert not left.exists()

    run(main())


def test_a_pulse_is_felt_during_a_step() -> None:
    async def main() -> None:
        async with served(random_model(kind=SlowModel), LONG) as here:
            client = await here.connect()
            stream = client.generate(Prompt((7,)), ENDLESS)
            await anext(stream)
            first = await client.ping()
            await anext(stream)
            second = await client.ping()
            assert first.in_flight == second.in_flight == 1
            assert second.steps > first.steps
            await stream.aclose()
            await client.close()

    run(main())
