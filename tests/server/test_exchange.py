"""The life of a request over a real socket, with models that answer, fail, fall silent or never end."""

import asyncio
import http.client
import json
import socket
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.server.running import running, site, with_limits

from magister.cli.batch import ask
from magister.server.access import Access, Keys, digest
from magister.server.mock import MockChat
from magister.types import (
    Busy,
    ChatModel,
    ChatRequest,
    Event,
    Finish,
    FinishReason,
    Image,
    Refused,
    TextDelta,
    TooLong,
    Upstream,
    Usage,
)

ASK = {"model": "mock", "messages": [{"role": "user", "content": "hi"}]}


def post(
    base: str, body: Any, path: str = "/v1/chat/completions", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(base)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, data, {"content-type": "application/json", **(headers or {})})
    reply = connection.getresponse()
    found = {name.lower(): value for name, value in reply.getheaders()}
    text = reply.read()
    connection.close()
    return reply.status, found, text


def get(base: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(base)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    reply = connection.getresponse()
    found = {name.lower(): value for name, value in reply.getheaders()}
    text = reply.read()
    connection.close()
    return reply.status, found, text


@dataclass(eq=False)
class Scripted:
    """Does what it is told, and tells what became of it."""

    act: Callable[[ChatRequest], AsyncGenerator[Event, None]]
    ended: int = 0
    seen: list[ChatRequest] = field(default_factory=list)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        self.seen.append(request)
        try:
            async for event in self.act(request):
                yield event
        finally:
            self.ended += 1


def failing(error: Exception, after: int = 0) -> Scripted:
    async def act(request: ChatRequest) -> AsyncGenerator[Event, None]:
        for _ in range(after):
            yield TextDelta(text="a")
            await asyncio.sleep(0)
        raise error

    return Scripted(act)


def endless() -> Scripted:
    async def act(request: ChatRequest) -> AsyncGenerator[Event, None]:
        while True:
            yield TextDelta(text="word ")
            await asyncio.sleep(0.005)

    return Scripted(act)


def wait_for(fact: Callable[[], bool], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (TooLong(2000, 1000), 400, "2000 tokens"),
        (Refused("sampling.logit_bias", "no"), 400, "no"),
        (Busy("full", 3.0), 503, "full"),
        (Upstream("the engine stopped"), 502, "the engine stopped"),
        (ValueError("messages[0].role: a conversation cannot begin with assistant"), 400, "messages[0].role"),
        (RuntimeError("secret inner words"), 500, "its log says how"),
    ],
)
def test_an_error_before_the_first_event_is_a_status_and_after_it_a_frame(
    error: Exception, status: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running(site(failing(error))) as base:
        for stream in (False, True):
            found, headers, body = post(base, {**ASK, "stream": stream})
            assert found == status
            message = json.loads(body)["error"]["message"]
            assert said in message
            assert "secret inner" not in body.decode()
            assert headers["x-request-id"]
            if status == 503:
                assert headers["retry-after"] == "3"
    with running(site(failing(error, after=3))) as base:
        found, _, body = post(base, {**ASK, "stream": True})
        assert found == 200
        frames = [json.loads(line[6:]) for line in body.decode().split("\n\n") if line.startswith("data: {")]
        assert said in frames[-1]["error"]["message"]
        assert "[DONE]" not in body.decode()
        assert post(base, ASK)[0] == status


def test_a_choice_that_failed_is_an_error_and_one_that_fell_silent_too() -> None:
    async def failed(request: ChatRequest) -> AsyncGenerator[Event, None]:
        yield TextDelta(text="a")
        yield Usage()
        yield Finish(reason=FinishReason.ERROR, error="logits are not finite")

    async def silent(request: ChatRequest) -> AsyncGenerator[Event, None]:
        yield TextDelta(text="a")

    async def nothing(request: ChatRequest) -> AsyncGenerator[Event, None]:
        return
        yield

    for act, said in ((failed, "not finite"), (silent, ""), (nothing, "without an answer")):
        with running(site(Scripted(act))) as base:
            status, _, body = post(base, ASK)
            assert status == 502
            assert said in json.loads(body)["error"]["message"]
            status, _, body = post(base, {**ASK, "stream": True})
            assert status == 502 if act is nothing else b'"error"' in body


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", ASK | {"stream": True}),
        ("/v1/messages", ASK | {"stream": True, "max_tokens": 9}),
        ("/v1/responses", {"model": "mock", "input": "hi", "stream": True}),
        ("/v1beta/models/mock:streamGenerateContent", {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}),
    ],
)
def test_a_stream_that_breaks_off_is_counted_and_told_as_the_failure_it_is(path: str, body: dict[str, Any]) -> None:
    """It began with 200, so whoever asks the app itself is told in another way."""

    async def failed(request: ChatRequest) -> AsyncGenerator[Event, None]:
        yield TextDelta(text="a")
        yield Finish(reason=FinishReason.ERROR, error="not finite")

    async def silent(request: ChatRequest) -> AsyncGenerator[Event, None]:
        yield TextDelta(text="a")

    chats: dict[ChatModel, int] = {
        failing(Upstream("gone"), 1): 502,
        failing(Busy("full", 1.0), 1): 503,
        Scripted(failed): 502,
        Scripted(silent): 502,
        MockChat(): 200,
    }
    for chat, status in chats.items():
        app = site(chat, access=Access(hosts=None))
        ended, _, said = asyncio.run(ask(app, path, json.dumps(body).encode()))
        assert (ended, bool(said)) == (status, True)
        with running(app) as base:
            assert f'status="{status}"' in get(base, "/metrics")[2].decode()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_the_work_streamed_or_not(stream: bool) -> None:
    chat = endless()
    app = site(chat)
    with running(app) as base:
        parts = urlsplit(base)
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as client:
            body = json.dumps({**ASK, "stream": stream}).encode()
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            wait_for(lambda: bool(chat.seen))
            if stream:
                assert client.recv(100)
        wait_for(lambda: chat.ended == 1)
        wait_for(lambda: not app.house.flights)
        assert b"magister_disconnects_total 1.0" in get(base, "/metrics")[2]


def test_a_slow_client_costs_frames_not_events() -> None:
    count = 3000

    async def fast(request: ChatRequest) -> AsyncGenerator[Event, None]:
        for number in range(count):
            yield TextDelta(text=f"{number},")
        yield Usage(completion_tokens=count)
        yield Finish(reason=FinishReason.END)

    with running(site(Scripted(fast))) as base:
        _, _, body = post(base, {**ASK, "stream": True})
        frames = [json.loads(line[6:]) for line in body.decode().split("\n\n") if line.startswith("data: {")]
        said = "".join(frame["choices"][0]["delta"].get("content") or "" for frame in frames if frame["choices"])
        assert said == "".join(f"{number}," for number in range(count))


def test_silence_is_filled_with_what_the_dialects_clients_skip() -> None:
    async def slow(request: ChatRequest) -> AsyncGenerator[Event, None]:
        await asyncio.sleep(0.7)
        yield TextDelta(text="late")
        yield Usage()
        yield Finish(reason=FinishReason.END)

    with running(site(Scripted(slow))) as base:
        _, _, body = post(base, {**ASK, "stream": True})
        assert body.startswith(b": keepalive\n\n")
        claude = {"model": "mock", "max_tokens": 10, "messages": ASK["messages"], "stream": True}
        _, _, body = post(base, claude, "/v1/messages")
        assert b"event: ping" in body
        google = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
        _, _, body = post(base, google, "/v1beta/models/mock:streamGenerateContent?alt=sse")
        assert body.startswith(b"data: ")
        assert b"\n:" not in body


def test_too_many_at_a_time_are_told_to_come_again() -> None:
    chat = endless()
    with running(site(chat, settings=with_limits(in_flight=1))) as base:
        parts = urlsplit(base)
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as client:
            body = json.dumps({**ASK, "stream": True}).encode()
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            wait_for(lambda: bool(chat.seen))
            status, headers, _ = post(base, ASK)
            assert (status, headers["retry-after"]) == (503, "1")
            status, headers, _ = post(
                base, {"model": "m", "max_tokens": 1, "messages": ASK["messages"]}, "/v1/messages"
            )
            assert status == 529


def test_bodies_have_limits() -> None:
    with running(site(settings=with_limits(body_bytes=200, body_seconds=0.3))) as base:
        big = {**ASK, "user": "x" * 300}
        assert post(base, big)[0] == 413
        parts = urlsplit(base)
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as client:
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            assert client.recv(4096).startswith(b"HTTP/1.1 408")
        for body in (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model":', b"[" * 150):
            status, _, told = post(base, body)
            assert status == 400
            assert json.loads(told)["error"]["type"] == "invalid_request_error"


def test_access() -> None:
    keys = Keys(b"s", {digest(b"s", "good"): "ada"})
    with running(site(access=Access(keys=keys))) as base:
        assert post(base, ASK)[0] == 401
        assert post(base, ASK, headers={"authorization": "Bearer bad"})[0] == 401
        assert post(base, ASK, headers={"authorization": "Bearer good"})[0] == 200
        assert get(base, "/v1/models")[0] == 401
        assert get(base, "/health")[0] == 200
        claude = {"model": "m", "max_tokens": 5, "messages": ASK["messages"]}
        status, _, body = post(base, claude, "/v1/messages")
        assert (status, json.loads(body)["error"]["type"]) == (401, "authentication_error")
    with running(site(access=Access(origins=frozenset({"https://mine.example"})))) as base:
        assert post(base, ASK, headers={"host": "evil.example"})[0] == 403
        cross = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
        status, headers, _ = post(base, ASK, headers=cross)
        assert status == 403
        assert "access-control-allow-origin" not in headers
        status, headers, _ = post(base, ASK, headers={**cross, "origin": "https://mine.example"})
        assert status == 200
        assert headers["access-control-allow-origin"] == "https://mine.example"


def test_the_operators_substitution_is_told() -> None:
    with running(site()) as base:
        status, headers, body = post(base, {**ASK, "model": "mistralai/magistral-small-2509"})
        assert status == 200
        assert json.loads(body)["model"] == "mock"
        assert headers["x-magister-model"] == "mock; asked=mistralai/magistral-small-2509"
        status, _, body = post(base, {**ASK, "model": "magistral-medium-2509"})
        assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")


def test_paths_that_are_none() -> None:
    with running(site()) as base:
        assert get(base, "/v1/nothing")[0] == 404
        status, headers, _ = get(base, "/v1/chat/completions")
        assert (status, headers["allow"]) == (405, "POST")
        assert post(base, {}, "/health")[0] == 405
        assert get(base, "/socket.io/?EIO=4")[0] == 404


def test_images_by_url_are_refused_unless_asked_for() -> None:
    chat = Scripted(MockChat().chat)
    with running(site(chat)) as base:
        part = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
        status, _, body = post(base, {"model": "mock", "messages": [{"role": "user", "content": [part]}]})
        assert status == 400
        assert "--fetch-images" in json.loads(body)["error"]["message"]
        part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}
        assert post(base, {"model": "mock", "messages": [{"role": "user", "content": [part]}]})[0] == 200
        assert chat.seen[-1].messages[0].parts == (Image(data=b"x"),)


def test_pages_and_their_metrics() -> None:
    with running(site()) as base:
        for path in ("/", "/docs", "/static/home.js", "/static/style.css"):
            status, headers, body = get(base, path)
            assert status == 200
            assert body
            assert "default-src 'self'" in headers["content-security-policy"]
        described = json.loads(get(base, "/openapi.json")[2])
        assert "/v1/chat/completions" in described["paths"]
        assert json.loads(get(base, "/health")[2])["status"] == "ok"
        post(base, ASK)
        text = get(base, "/metrics")[2].decode()
        assert 'magister_requests_total{dialect="openai_chat",model="mock",status="200"} 1.0' in text
        assert 'magister_tokens_total{kind="thinking",model="mock"} 3.0' in text
