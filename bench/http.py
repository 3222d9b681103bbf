"""What the server itself costs: an open loop of requests at a fixed rate, and as many as it can take.

In an open loop requests leave when they are due, whether or not earlier ones were answered, so a slow moment is paid by
every request that falls into it and hides in no client. Latency is counted from when a request was due.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from bench import environments
from bench.environments import Unavailable
from bench.measure import Sample, Side, alternate
from bench.places import ROOT
from bench.rows import Bench, Outcome

BODY = b'{"model":"mock","messages":[{"role":"user","content":"What is 17 * 24?"}]}'
CONNECTIONS = 64


@contextmanager
def _mock(bench: Bench) -> Iterator[tuple[str, int]]:
    """A server around a model that answers at once, on the first of the bench's cores."""
    command = [str(environments.magister()), "-m", "bench.workers.mock_server"]
    with subprocess.Popen(
        ["taskset", "-c", str(bench.pins.cores[0]), *command], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise Unavailable("the server did not start")
        host, port = line.strip().rpartition("//")[2].split(":")
        try:
            yield host, int(port)
        finally:
            process.kill()


def open_loop(percentile: int, rate: int = 1000, seconds: float = 5.0) -> Callable[[Bench], Outcome]:
    """A row of the latency, in milliseconds, that so many per cent of the requests stay below."""

    def run(bench: Bench) -> Outcome:
        with _mock(bench) as (host, port):

            def once(number: int) -> Sample:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    latencies = runner.run(_due(host, port, rate, seconds))
                return Sample(_percentile(latencies, percentile) * 1000)

            samples = [sample for (sample,) in alternate([once], bench.repetitions)]
            note = f"{rate} requests/s over {CONNECTIONS} connections, {seconds:g} s each time"
            return Outcome(Side("magister", samples), None, note)

    return run


def saturated(bench: Bench) -> Outcome:
    """Requests a second on one core, with wrk asking from the others."""
    if shutil.which("wrk") is None:
        raise Unavailable("wrk is not installed")
    with _mock(bench) as (host, port), tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(
            f"wrk.method = 'POST'\nwrk.body = '{BODY.decode()}'\nwrk.headers['Content-Type'] = 'application/json'\n"
        )

        def once(number: int) -> Sample:
            said = subprocess.run(
                [
                    "wrk",
                    "-t1",
                    f"-c{CONNECTIONS}",
                    "-d5s",
                    "-s",
                    str(script),
                    f"http://{host}:{port}/v1/chat/completions",
                ],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            found = re.search(r"Requests/sec:\s+([\d.]+)", said)
            if found is None or "Non-2xx" in said or "Socket errors" in said:
                raise Unavailable(f"wrk: {said}")
            return Sample(float(found[1]))

        samples = [sample for (sample,) in alternate([once], bench.repetitions)]
        return Outcome(Side("magister", samples), None, f"wrk, {CONNECTIONS} connections")


async def _due(host: str, port: int, rate: int, seconds: float) -> list[float]:
    """Latencies of requests that are due `rate` times a second."""
    count = int(rate * seconds)
    latencies: list[float] = []
    queue: asyncio.Queue[float] = asyncio.Queue()
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
    )

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            while (due := await queue.get()) >= 0:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                latencies.append(time.perf_counter() - due)
        finally:
            writer.close()

    tasks = [asyncio.create_task(connection()) for _ in range(CONNECTIONS)]
    began = time.perf_counter()
    for number in range(count):
        due = began + number / rate
        # A loop's timers are late by up to a millisecond, as much as what is measured, so this one turns until then.
        while time.perf_counter() < due:
            await asyncio.sleep(0)
        queue.put_nowait(due)
    for _ in tasks:
        queue.put_nowait(-1.0)
    await asyncio.gather(*tasks)
    return latencies


def _percentile(values: list[float], percentile: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percentile - 1]
