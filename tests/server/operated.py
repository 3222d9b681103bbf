"""A `magister serve` that a test holds by its process: signals, children, descriptors, raw streams.

Where only the URL matters, `served` is enough.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from magister.worker import Load, WorkerClient

MAGISTER = [sys.executable, "-c", "from magister.cli.main import main; main()"]
"""The command line, whatever is on the path."""
STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai_chat": ("/v1/chat/completions", {"stream": True}),
    "openai_responses": ("/v1/responses", {"stream": True}),
    "anthropic": ("/v1/messages", {"stream": True, "max_tokens": 900}),
    "google": ("/v1beta/models/nano:streamGenerateContent?alt=sse", {}),
}
"""Dialect -> path and what makes it stream."""


@dataclass
class Operated:
    """A server that is running."""

    process: subprocess.Popen[str]
    said: list[str]
    url: str = ""
    seconds: float = 0.0
    """It took to be ready."""
    reader: threading.Thread = field(default_factory=threading.Thread)

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and what is told of nano."""
        status, _, body = call(self.url, "GET", "/health")
        return status, json.loads(body)["models"]["nano"]

    @property
    def engine(self) -> int:
        """The number of the engine's process."""
        return int(self.health()[1]["process"])

    def load(self) -> Load:
        """What the engine itself says, asked over its own socket."""

        async def ask() -> Load:
            client = await WorkerClient.connect(self.socket)
            try:
                return await client.load()
            finally:
                await client.close()

        return asyncio.run(ask())

    @property
    def socket(self) -> Path:
        """Where the engine listens."""
        words = Path(f"/proc/{self.engine}/cmdline").read_bytes().split(b"\0")
        return Path(os.fsdecode(words[words.index(b"--socket") + 1]))

    def end(self, seconds: float = 40) -> int:
        """Waits for its end; the exit code."""
        code = self.process.wait(seconds)
        self.reader.join(5)
        return code


@contextmanager
def operated(*flags: str, env: dict[str, str] | None = None) -> Iterator[Operated]:
    """A server, ready; whatever is left of it at the end is killed."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [*MAGISTER, "serve", "--port", "0", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
    )
    assert process.stdout is not None
    server = Operated(process, [process.stdout.readline()])
    found = re.search(r"http://\S+", server.said[0])
    server.seconds = time.perf_counter() - began
    server.reader = threading.Thread(target=lambda: server.said.extend(process.stdout or ()), daemon=True)
    server.reader.start()
    try:
        assert found is not None, server.said
        server.url = found[0]
        yield server
    finally:
        process.kill()
        server.end()
        process.stdout.close()


def call(
    url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One request: status, headers in lower case, body."""
    at = urlsplit(url)
    connection = HTTPConnection(at.hostname or "", at.port, timeout=30)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def chat(text: str = "What is 17 * 24?", **more: Any) -> dict[str, Any]:
    """A body of OpenAI's chats."""
    return {"model": "nano", "messages": [{"role": "user", "content": text}], **more}


def streaming(dialect: str, text: str = "Count.") -> tuple[str, dict[str, Any]]:
    """Path and body of a stream in a dialect."""
    path, more = STREAMS[dialect]
    if dialect == "google":
        return path, {"contents": [{"role": "user", "parts": [{"text": text}]}], **more}
    if dialect == "openai_responses":
        return path, {"model": "nano", "input": text, **more}
    return path, chat(text, **more)


def long_completion(tokens: int = 900) -> tuple[str, dict[str, Any]]:
    """Path and body of a stream that lasts: it cannot end by itself before so many tokens."""
    more = {"max_tokens": tokens, "ignore_eos": True, "stream": True}
    return "/v1/completions", {"model": "nano", "prompt": "Count: 1, 2, 3,", **more}


async def opened(url: str, path: str, body: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request sent over a connection of its own."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    data = json.dumps(body).encode()
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(data)}\r\n\r\n".encode()
        + data
    )
    return reader, writer


async def begun(reader: asyncio.StreamReader) -> bytes:
    """Waits for the first event; what was read."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    read = [head, await reader.readuntil(b"data: ")]
    while (line := await reader.readline()).strip():
        read.append(line)
    return b"".join(read)


async def leave(writer: asyncio.StreamWriter) -> None:
    """The client goes, in the middle of whatever it is."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


def eventually(true: Callable[[], bool], seconds: float) -> bool:
    """Whether something comes to be so in time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def descriptors(pids: Sequence[int]) -> list[int]:
    """How many files each process has open."""
    return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]


def alive(pid: int) -> bool:
    """Whether there is such a process that is not only waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
