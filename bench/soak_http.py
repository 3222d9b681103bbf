"""The server held under load: `python -m bench.soak_http`. Says figures, and 1 where something leaked or failed.

Many streams at once for a minute, then thousands of clients that leave in the middle of theirs; after each, what both
processes hold. Memory is compared with what they held after a short run of the same, for a first run fills pools.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magister.worker import Load, WorkerClient

LEAST_GROWTH = 8 << 20
"""Bytes by which a process may have grown: what an allocator keeps for itself."""
_BODY: dict[str, Any] = {"model": "nano", "prompt": "Count: 1, 2,", "ignore_eos": True, "stream": True}


@dataclass(frozen=True)
class Held:
    """What the processes hold, server before engine."""

    memory: tuple[int, ...]
    """Bytes resident."""
    files: tuple[int, ...]


@dataclass(frozen=True)
class Server:
    """One that runs."""

    host: str
    port: int
    pid: int
    engine: int

    def held(self) -> Held:
        """What both processes hold now."""
        pids = (self.pid, self.engine)
        return Held(tuple(map(_resident, pids)), tuple(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids))

    async def load(self) -> Load:
        """What the engine says of itself over its own socket."""
        words = Path(f"/proc/{self.engine}/cmdline").read_bytes().split(b"\0")
        client = await WorkerClient.connect(Path(os.fsdecode(words[words.index(b"--socket") + 1])))
        try:
            return await client.load()
        finally:
            await client.close()

    async def stream(self, tokens: int, leave_after: int | None = None) -> int:
        """One completion; how many tokens its usage tells. With `leave_after`, the client goes after so many reads."""
        body = json.dumps({**_BODY, "max_tokens": tokens, "stream_options": {"include_usage": True}}).encode()
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            last, reads = b"", 0
            while data := await reader.read(65536):
                if not reads and not data.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(data.decode(errors="replace"))
                last, reads = (last + data)[-2048:], reads + 1
                if reads == leave_after:
                    return 0
            found = last.rpartition(b'"completion_tokens":')[2].partition(b",")[0].rstrip(b"}")
            if b"[DONE]" not in last or b'"error"' in last:
                raise RuntimeError(last.decode(errors="replace"))
            return int(found)
        finally:
            # A client that leaves does not say goodbye.
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


async def steady(server: Server, streams: int, seconds: float, tokens: int) -> tuple[int, int, list[str]]:
    """So many streams at all times: answers, tokens, and what went wrong."""
    end, answers, got, wrong = time.monotonic() + seconds, 0, 0, list[str]()

    async def client() -> None:
        nonlocal answers, got
        while time.monotonic() < end:
            try:
                told = await server.stream(tokens)
                if told != tokens:
                    wrong.append(f"{told} tokens instead of {tokens}")
                answers, got = answers + 1, got + told
            except (OSError, RuntimeError, ValueError) as error:
                wrong.append(str(error)[-300:])
                await asyncio.sleep(0.1)

    await asyncio.gather(*(client() for _ in range(streams)))
    return answers, got, wrong


async def leaving(server: Server, count: int, at_once: int) -> list[str]:
    """Clients that leave after their first, second or third piece; what went wrong."""
    gate, wrong = asyncio.Semaphore(at_once), list[str]()

    async def client(number: int) -> None:
        async with gate:
            try:
                await server.stream(900, leave_after=1 + number % 3)
            except (OSError, RuntimeError, ValueError) as error:
                wrong.append(str(error)[-300:])

    await asyncio.gather(*(client(number) for number in range(count)))
    return wrong


async def soak(server: Server, asked: argparse.Namespace) -> bool:
    """Both rounds; whether all is well."""
    fine = True
    for name, warm, hard in (
        (f"{asked.streams} streams for {asked.seconds:g} s", *_steady(server, asked)),
        (f"{asked.clients} clients that leave", *_leaving(server, asked)),
    ):
        await warm()
        before, began = await _rest(server), time.perf_counter()
        said, wrong = await hard()
        seconds = time.perf_counter() - began
        after = await _rest(server)
        load = await server.load()
        grown = [now - then for now, then in zip(after.memory, before.memory, strict=True)]
        leaked = [now - then for now, then in zip(after.files, before.files, strict=True)]
        clean = load.running == load.waiting == 0 and load.free_blocks == asked.blocks
        well = not wrong and clean and max(grown) <= LEAST_GROWTH and max(leaked) <= 0
        fine = fine and well
        _say(
            f"{name}: {'well' if well else 'NOT WELL'}; {said}, {seconds:.0f} s, {len(wrong)} errors {wrong[:2]}; "
            f"memory {[f'{one / 2**20:.1f} MiB' for one in after.memory]}, grown by "
            f"{[f'{one / 2**20:+.1f}' for one in grown]}; descriptors {after.files}, grown by {leaked}; "
            f"{load.running} running, {load.waiting} waiting, {load.free_blocks} of {asked.blocks} blocks free"
        )
    return fine


Round = tuple[Callable[[], Any], Callable[[], Any]]


def _steady(server: Server, asked: argparse.Namespace) -> Round:
    async def hard() -> tuple[str, list[str]]:
        answers, tokens, wrong = await steady(server, asked.streams, asked.seconds, asked.tokens)
        return f"{answers} answers, {tokens / asked.seconds:,.0f} tokens/s", wrong

    return lambda: steady(server, asked.streams, min(10.0, asked.seconds), asked.tokens), hard


def _leaving(server: Server, asked: argparse.Namespace) -> Round:
    async def hard() -> tuple[str, list[str]]:
        return f"{asked.clients} left", await leaving(server, asked.clients, asked.at_once)

    return lambda: leaving(server, asked.clients // 20, asked.at_once), hard


async def _rest(server: Server) -> Held:
    """What is held once nothing is under way."""
    for _ in range(100):
        load = await server.load()
        if load.running == load.waiting == 0:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    return server.held()


def _say(what: str) -> None:
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def main(arguments: list[str] | None = None) -> int:
    """Starts a server, soaks it, ends it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak_http", description=__doc__)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer of the first round")
    parser.add_argument("--clients", type=int, default=10_000, help="that leave in the second round")
    parser.add_argument("--at-once", type=int, default=64, help="of those")
    asked = parser.parse_args(arguments)
    command = [str(Path(sys.executable).with_name("magister")), "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            address = next((word for word in line.split() if word.startswith("http://")), None)
            if address is None:
                return 1
            host, _, port = address.removeprefix("http://").rpartition(":")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            server = Server(host, int(port), process.pid, int(children[0]))
            asked.blocks = asyncio.run(server.load()).free_blocks
            fine = asyncio.run(soak(server, asked))
        finally:
            process.terminate()
    _say(f"ended with exit code {process.returncode}")
    return 0 if fine and process.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
