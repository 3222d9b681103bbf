"""HTTP beneath `serve`, byte by byte: heads that never end, clients of HTTP/1.0, bodies nobody waits for."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from magister.cli import http
from magister.cli.http import GatheringProtocol

GET = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """A whole answer, a stream at /stream, or a stream that lasts at /slow."""
    headers = [(b"content-type", b"text/plain")]
    if scope["path"] == "/":
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, (b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"whole"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for part in (b"one ", b"two ", b"three"):
        await asyncio.sleep(0.3 if scope["path"] == "/slow" else 0)
        await send({"type": "http.response.body", "body": part, "more_body": part != b"three"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, http=GatheringProtocol, lifespan="off", access_log=False, log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(10)


def talk(port: int, *sent: bytes, pause: float = 0.0) -> bytes:
    """All that is said until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        for part in sent:
            client.sendall(part)
            time.sleep(pause)
        told = b""
        while data := client.recv(65536):
            told += data
        return told


def test_a_head_that_does_not_end_is_not_waited_for(port: int) -> None:
    assert talk(port, b"GET / HT").startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    began = time.monotonic()
    assert talk(port) == b"", "who says nothing is told nothing"
    assert 0.2 < time.monotonic() - began < 3
    after = talk(port, GET % b"" + b"GET /")
    assert after.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"HTTP/1.1 408 Request Timeout\r\n" in after
    slowly = talk(port, b"GET /stream HTTP/1.1\r\n", b"Host: localhost\r\nConnection: close\r\n\r\n", pause=0.15)
    assert slowly.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_head_that_does_not_end_does_not_fill_the_memory(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        with pytest.raises(OSError, match=r"reset|Broken"):
            client.sendall(b"a" * 100 * http.HEAD_BYTES)
    large = b"GET / HTTP/1.1\r\nConnection: close\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"
    assert talk(port, large).endswith(b"whole")


def test_an_answer_is_not_spoiled_by_the_next_question(port: int) -> None:
    """The next head stays unfinished for longer than it may, but the stream before it is whole."""
    told = talk(port, GET % b"slow" + b"GET / HT")
    assert told.index(b"5\r\nthree\r\n0\r\n\r\n") < told.index(b"HTTP/1.1 408")
    assert told.count(b"HTTP/1.1") == 2


def test_who_knows_no_chunks_gets_none(port: int) -> None:
    for version, body in ((b"1.0", b"one two three"), (b"1.1", b"4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n0\r\n\r\n")):
        head, _, told = talk(port, b"GET /stream HTTP/%s\r\nConnection: close\r\n\r\n" % version).partition(b"\r\n\r\n")
        assert told == body
        assert (b"chunked" in head) is (version == b"1.1")
    head, _, told = talk(port, b"GET / HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert (b"content-length: 5" in head, told) == (True, b"whole")
    head, _, told = talk(port, b"HEAD /stream HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert (head.startswith(b"HTTP/1.1 200"), told) == (True, b"")
