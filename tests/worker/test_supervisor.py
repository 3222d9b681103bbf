"""Real processes that load nano, are killed, stopped and orphaned, and what their callers see of it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.worker import standing_engine
from tests.worker.world import alive, open_files, read, run, said, short_path, supervised

from magister.cli import compose, engine_process
from magister.cli.engine_process import command
from magister.cli.placement import Placement
from magister.types import Busy, Chunk, Prompt, Refused, Sampling, TooLong, Upstream
from magister.worker.supervisor import Patience, Status, Supervisor

LONG = Sampling(max_tokens=900, ignore_end=True, seed=1)
QUICK = Patience(ping=0.1)


async def until(supervisor: Supervisor, status: Status, seconds: float = 20.0) -> float:
    """How long it took to get there."""
    began = time.monotonic()
    while supervisor.state.status is not status:
        assert time.monotonic() - began < seconds, supervisor.state
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def begin(supervisor: Supervisor, streams: int) -> list[asyncio.Task[float]]:
    """Streams that have had their first chunk; each tells when it got `Upstream`."""
    started = asyncio.Semaphore(0)

    async def one(number: int) -> float:
        async with aclosing(supervisor.generate(Prompt((number + 100,)), LONG)) as chunks:
            await anext(chunks)
            started.release()
            with pytest.raises(Upstream, match="the engine stopped"):
                await _exhaust(chunks)
            return time.monotonic()

    tasks = [asyncio.ensure_future(one(number)) for number in range(streams)]
    for _ in tasks:
        await started.acquire()
    return tasks


async def _exhaust(chunks: AsyncIterator[Chunk]) -> None:
    async for _ in chunks:
        pass


def test_a_process_says_what_the_engine_says_and_keeps_its_refusals() -> None:
    asked = Sampling(max_tokens=40, seed=5, ignore_end=True)
    loaded = compose.load("nano", Placement(device="cpu"))
    try:
        wanted = said(asyncio.run(read(loaded.engine, [100, 101], asked)))
    finally:
        loaded.engine.close()

    async def main() -> None:
        async with supervised() as supervisor:
            hello = await supervisor.start()
            assert (hello.name, hello.context, hello.vocabulary) == ("nano", loaded.context, loaded.tokenizer.size)
            assert hello.kernels == loaded.kernels.description
            assert hello.card["images"] is False
            state = supervisor.state
            assert (state.status, state.restarts) == (Status.READY, 0)
            assert state.process is not None
            assert said(await read(supervisor, [100, 101], asked)) == wanted
            with pytest.raises(TooLong) as too_long:
                await read(supervisor, [100] * 5000, asked)
            assert (too_long.value.tokens, too_long.value.limit) == (5000, loaded.context - 1)
            with pytest.raises(Refused, match="min_p"):
                await read(supervisor, [100], Sampling(min_p=1.0))

            late = asyncio.ensure_future(read(supervisor, [100], asked))
            await asyncio.sleep(0)
            draining = asyncio.ensure_future(supervisor.drain(10))
            await asyncio.sleep(0)
            assert supervisor.state.status == "draining"
            with pytest.raises(Busy):
                await read(supervisor, [100], asked)
            assert await draining
            assert len(said(await late)) == 40
            assert supervisor.state.status == "stopped"
            assert not alive(state.process)
            with pytest.raises(Upstream, match="there is no engine"):
                await read(supervisor, [100], asked)

    run(main())


def test_a_killed_process_is_told_at_once_and_started_again() -> None:
    async def main() -> None:
        async with supervised(patience=QUICK) as supervisor:
            await supervisor.start()
            before = open_files()
            tasks = await begin(supervisor, 32)
            first = supervisor.state.process
            assert first is not None
            killed = time.monotonic()
            os.kill(first, signal.SIGKILL)
            assert max(await asyncio.gather(*tasks)) - killed < 2.0
            with pytest.raises(Busy) as busy:
                await read(supervisor, [100], LONG)
            assert busy.value.retry_after >= 1.0
            with pytest.raises(Busy):
                assert supervisor.hello
            await until(supervisor, Status.RESTARTING)
            await until(supervisor, Status.READY, 40.0)
            assert len(said(await read(supervisor, [100], Sampling(max_tokens=5, ignore_end=True)))) == 5
            assert time.monotonic() - killed < 40.0  # 10 s on a machine of its own; this one may be busy
            state = supervisor.state
            assert (state.restarts, state.reason) == (1, "it was ended by signal 9")
            assert state.process not in (None, first)
            assert (await supervisor.load()).running == 0
            assert open_files() == before

    run(main())


def test_a_process_that_stands_still_is_found_out_and_replaced() -> None:
    async def main() -> None:
        async with supervised(patience=Patience(ping=0.1, pong=1.0, stop=2.0)) as supervisor:
            await supervisor.start()
            tasks = await begin(supervisor, 4)
            first = supervisor.state.process
            assert first is not None
            stopped = time.monotonic()
            os.kill(first, signal.SIGSTOP)
            assert max(await asyncio.gather(*tasks)) - stopped < 2.5
            await until(supervisor, Status.READY, 40.0)
            assert "no sign of life for 1 s" in supervisor.state.reason
            assert not alive(first)
            assert len(said(await read(supervisor, [100], Sampling(max_tokens=5, ignore_end=True)))) == 5

    run(main())


def test_a_step_that_does_not_end_is_found_out_too() -> None:
    patience = Patience(ping=0.05, step=0.5)

    async def main() -> None:
        async with supervised(standing_engine.command, patience) as supervisor:
            await supervisor.start()
            assert len(said(await read(supervisor, [7], Sampling(max_tokens=3, logit_bias={9: -1000.0})))) <= 3
            began = time.monotonic()
            with pytest.raises(Upstream, match=r"a step took more than 0\.5 s"):
                await read(supervisor, [9], LONG)
            assert time.monotonic() - began < 2.0

    run(main())


def test_an_engine_that_only_fails_is_replaced() -> None:
    plain = Sampling(max_tokens=3, logit_bias={9: -1000.0, 10: -1000.0})

    async def main() -> None:
        async with supervised(standing_engine.command, Patience(ping=0.05, fails=3)) as supervisor:
            await supervisor.start()
            await read(supervisor, [7], plain)
            first = supervisor.state.process
            for ids in ([10], [7]):
                with pytest.raises(RuntimeError, match="the device was lost"):
                    await read(supervisor, ids, plain)
            await asyncio.sleep(0.5)
            assert (supervisor.state.process, supervisor.state.restarts) == (first, 0), "two are not three"
            with pytest.raises(RuntimeError, match="the device was lost"):
                await read(supervisor, [7], plain)
            while not supervisor.state.restarts:
                await asyncio.sleep(0.02)
            await until(supervisor, Status.READY, 40.0)
            assert supervisor.state.reason == "3 steps in a row failed"
            assert await read(supervisor, [7], plain)

    run(main())


def test_a_lost_connection_alone_does_not_cost_the_process() -> None:
    async def main() -> None:
        async with supervised(patience=QUICK) as supervisor:
            await supervisor.start()
            first = supervisor.state.process
            tasks = await begin(supervisor, 2)
            assert supervisor._client is not None
            supervisor._client.end("as a test")
            await asyncio.gather(*tasks)
            while (await _load(supervisor)) != 0:
                await asyncio.sleep(0.02)
            assert (supervisor.state.process, supervisor.state.restarts) == (first, 0)
            assert first is not None
            tasks = await begin(supervisor, 2)
            os.kill(first, signal.SIGTERM)
            await asyncio.gather(*tasks)
            while supervisor.state.restarts == 0:
                await asyncio.sleep(0.02)
            assert supervisor.state.reason == "it ended with exit code 0"

    run(main())


async def _load(supervisor: Supervisor) -> int:
    """Sequences that run; -1 while nobody can say."""
    try:
        return (await supervisor.load()).running
    except (Busy, Upstream):
        return -1


@pytest.fixture
def adopts() -> Iterator[None]:
    """Orphans become children of this process, which is of their session, as under a container's first shell."""
    if sys.platform != "linux":
        pytest.skip("only Linux lets a process adopt orphans")
    ctypes.CDLL(None).prctl(_ADOPT, 1)
    yield
    ctypes.CDLL(None).prctl(_ADOPT, 0)


_ADOPT = 36
"""`PR_SET_CHILD_SUBREAPER`."""


def test_a_stopped_engine_ends_with_its_parent_under_a_new_one_of_its_session(adopts: None) -> None:
    test_an_engine_ends_with_its_parent(stopped=True)


@pytest.mark.parametrize("stopped", [False, True])
def test_an_engine_ends_with_its_parent(stopped: bool) -> None:
    path = short_path()
    code = (
        "import asyncio, sys, pathlib\n"
        "from magister.cli.engine_process import command\n"
        "from magister.worker import Supervisor\n"
        "async def main():\n"
        "    path = pathlib.Path(sys.argv[1])\n"
        "    supervisor = Supervisor(command('nano', path), path)\n"
        "    await supervisor.start()\n"
        "    print(supervisor.state.process, flush=True)\n"
        "    await asyncio.sleep(100)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        engine = int(parent.stdout.readline())
        assert alive(engine)
        if stopped:
            os.kill(engine, signal.SIGSTOP)
        parent.kill()
    deadline = time.monotonic() + 5
    while alive(engine) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(engine)
    path.unlink(missing_ok=True)
    path.parent.rmdir()


def test_what_cannot_be_loaded_is_one_line_and_is_not_tried_again() -> None:
    async def main() -> None:
        async with supervised(lambda path: command("no-such-model", path)) as supervisor:
            with pytest.raises(ValueError, match="no-such-model") as refused:
                await supervisor.start()
            assert "\n" not in str(refused.value)
            assert (supervisor.state.status, supervisor.state.process) == (Status.FAILED, None)

    run(main())


@pytest.mark.parametrize("flags", [["--context", "1"], ["--kv", "x"], ["--socket", "/no/such/folder/s"]])
def test_wrong_flags_are_exit_code_2_and_one_line(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert engine_process.main(["--model", "nano", "--socket", "unused", *flags]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert flags[0][2:] in err


def test_a_process_that_never_gets_ready_is_given_up() -> None:
    patience = Patience(ping=0.1, backoff=0.01, attempts=3)

    async def main() -> None:
        async with supervised(lambda path: [sys.executable, "-c", "print('boom'); raise SystemExit(7)"]) as supervisor:
            with pytest.raises(Upstream, match="boom"):
                await supervisor.start()
        async with supervised(lambda path: ["/no/such/program"]) as supervisor:
            with pytest.raises(ValueError, match="/no/such/program"):
                await supervisor.start()
        sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
        async with supervised(lambda path: sleeper, Patience(start=0.3)) as supervisor:
            with pytest.raises(Upstream, match=r"not ready within 0\.3 s"):
                await supervisor.start()
        async with supervised(_only_once, patience) as supervisor:
            await supervisor.start()
            process = supervisor.state.process
            assert process is not None
            os.kill(process, signal.SIGKILL)
            await until(supervisor, Status.FAILED)
            assert (supervisor.state.restarts, supervisor.state.process) == (3, None)
            assert "no more" in supervisor.state.reason
            with pytest.raises(Upstream, match="no more"):
                await read(supervisor, [100], LONG)

    run(main())


def test_what_is_refused_once_is_tried_again() -> None:
    async def main() -> None:
        async with supervised(_refused_in_between, Patience(ping=0.05, backoff=0.02)) as supervisor:
            await supervisor.start()
            process = supervisor.state.process
            assert process is not None
            os.kill(process, signal.SIGKILL)
            while not supervisor.state.restarts:
                await asyncio.sleep(0.02)
            await until(supervisor, Status.READY, 60.0)
            assert supervisor.state.restarts == 2

    run(main())


def _refused_in_between(path: Path) -> list[str]:
    """An engine that finds no room the second time it starts."""
    flag = path.with_suffix(".times")
    flag.touch()
    code = f'echo >> {flag}; case $(wc -l < {flag}) in 2) echo no room; exit 2;; 3) rm {flag};; esac; exec "$@"'
    return ["sh", "-c", code, "sh", *command("nano", path)]


def _only_once(path: Path) -> list[str]:
    """An engine that starts a first time, and never again."""
    flag = path.with_suffix(".once")
    flag.touch()
    return ["sh", "-c", f'rm {flag} || {{ echo no more; exit 1; }}; exec "$@"', "sh", *command("nano", path)]


def test_however_often_it_did_not_run_well_it_is_started_again() -> None:
    async def main() -> None:
        async with supervised(lambda path: ["/no/such/program"], Patience(longest_backoff=0.01)) as supervisor:
            # What the watching task asks after as many short lives in a row: 2 to this power is no float.
            assert await supervisor._restart(1025) is None
            assert supervisor.state.status is Status.FAILED
            assert "/no/such/program" in supervisor.state.reason

    run(main())


def test_a_connection_found_again_does_not_end_a_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with supervised(patience=QUICK) as supervisor:
            await supervisor.start()
            client = supervisor._client
            assert client is not None
            client.end("as a test")
            await client.ended

            async def connected(*_: object) -> object:
                # As if `drain` had begun while it connects.
                supervisor._status = Status.DRAINING
                return client

            monkeypatch.setattr("magister.worker.supervisor._connected", connected)
            assert await supervisor._reconnect() is client
            assert supervisor.state.status is Status.DRAINING
            with pytest.raises(Busy, match="takes nothing more"):
                await read(supervisor, [100], LONG)

    run(main())


def test_no_patience_is_less_than_nothing() -> None:
    with pytest.raises(ValueError, match=r"pong is 0\.0, must be above 0"):
        Patience(pong=0.0)
