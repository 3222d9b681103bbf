"""Whatever a client sends, it is answered: in time, in its dialect's words, and never with the server's own failure.

`MAGISTER_FUZZ=50` tries fifty times as many bodies, other ones each time.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.direct import Said, send
from tests.server.fuzzed import COUNTS, TARGETS, Target, raw
from tests.server.running import site
from tests.server.tiny import tiny, words

from magister.server.app import DIALECTS, Site
from magister.server.mock import MockChat
from magister.server.openapi import document
from magister.wire import openai_completions

TIMES = int(os.environ.get("MAGISTER_FUZZ", "0"))
"""0 is the small run, the same each time."""


def tries(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """How often a property is tried."""
    return settings(
        max_examples=count * max(1, TIMES),
        derandomize=not TIMES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def ids(targets: tuple[Target, ...]) -> list[str]:
    return [target.path for target in targets]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def real() -> Iterator[Site]:
    """A server whose model is real: what it refuses goes the whole way, through templates and grammars."""
    with tiny(words()) as model:
        yield site(**model)


@pytest.fixture(scope="module")
def mock(real: Site) -> Site:
    """One whose chats cost nothing; its tokens are real."""
    served = real.house.models.resolve("mock").served
    return site(MockChat(), tokens=served.tokens, text=served.text)


def openai_error(told: Any, status: int) -> None:
    error = told["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    assert error["param"] is None or error["param"]


def anthropic_error(told: Any, status: int) -> None:
    assert (told["type"], bool(told["request_id"])) == ("error", True)
    assert told["error"]["type"]
    assert told["error"]["message"]


def google_error(told: Any, status: int) -> None:
    error = told["error"]
    assert error["code"] == status
    assert error["status"].isupper()
    assert error["message"]


def mistral_error(told: Any, status: int) -> None:
    if status == 422:
        (detail,) = told["detail"]
        assert (detail["type"], detail["loc"][0]) == ("extra_forbidden", "body")
        return
    assert told["object"] == "error"
    assert told["message"]
    assert told["type"]


def puter_error(told: Any, status: int) -> None:
    assert told["success"] is False
    assert told["error"]["message"]
    assert told["error"]["code"]


ERRORS: dict[str, Callable[[Any, int], None]] = {
    "openai_chat": openai_error,
    "openai_responses": openai_error,
    "openai_completions": openai_error,
    "anthropic": anthropic_error,
    "google": google_error,
    "mistral": mistral_error,
    "puter": puter_error,
}


INSIDE = (
    b"Traceback", b'File "', b"magister.", b"msgspec", b"<class", b"object at 0x", b"has no attribute",
    b"invalid literal",
    b"list index", b"unhashable", b"NoneType", b"positional argument", b"recursion depth", b"codec can",
    b"not supported between",
    b"(4300 digits)",
)  # fmt: skip
"""What Python says when it fails, in words that no answer needs."""


def check_refusal(said: Said, dialect: str) -> None:
    """A refusal in the dialect's words, that tells nothing of the server's inside."""
    assert 400 <= said.status < 500, said.body
    assert said.headers["content-type"] == "application/json"
    ERRORS[dialect](json.loads(said.body.decode()), said.status)
    for inside in INSIDE:
        assert inside not in said.body, said.body


def check_answer(said: Said, dialect: str) -> None:
    """A whole answer, or a stream to its end, as the dialect's own client reads it."""
    speaks: ModuleType = openai_completions if dialect == "openai_completions" else DIALECTS[dialect]
    if said.headers["content-type"] == "application/json":
        speaks.read_reply(said.body)
        return
    assert said.headers["content-type"] == speaks.STREAM_TYPE
    reader = speaks.read_events()
    assert [*reader.feed(said.body), *reader.end()]


def check(loop: asyncio.Runner, app: Site, target: Target, body: bytes) -> int:
    """One body, its answer looked at; its status."""
    said = loop.run(send(app, "POST", target.path, body, query="alt=sse" if target.streamed else ""))
    if said.status == 200:
        if target in TARGETS:
            check_answer(said, target.dialect)
        else:
            assert isinstance(json.loads(said.body), dict)
    else:
        check_refusal(said, target.dialect)
    return said.status


@pytest.mark.parametrize("target", [*TARGETS, *COUNTS], ids=ids((*TARGETS, *COUNTS)))
def test_valid_bodies_are_answered(loop: asyncio.Runner, mock: Site, target: Target) -> None:
    for body in target.bodies:
        assert check(loop, mock, target, json.dumps(body).encode()) == 200


@pytest.mark.parametrize("target", [*TARGETS, *COUNTS], ids=ids((*TARGETS, *COUNTS)))
def test_nearly_valid_bodies_are_answered_or_refused(loop: asyncio.Runner, mock: Site, target: Target) -> None:
    @tries(150)
    @given(body=raw(target.bodies))
    def one(body: bytes) -> None:
        check(loop, mock, target, body)

    one()


@pytest.mark.parametrize("target", TARGETS, ids=ids(TARGETS))
def test_a_real_model_refuses_in_words_too(loop: asyncio.Runner, real: Site, target: Target) -> None:
    @tries(20)
    @given(body=raw(target.bodies))
    def one(body: bytes) -> None:
        check(loop, real, target, body)

    one()


LISTS = ("/v1/models", "/v1beta/models", "/mistral/v1/models", "/anthropic/v1/models", "/openai/v1/models")
ODD = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=9)
QUERIES = st.lists(
    st.tuples(
        st.sampled_from(["limit", "after_id", "before_id", "pageSize", "pageToken", "key", "alt", "$alt", "x"]),
        st.one_of(
            ODD, st.sampled_from(["mock", "0", "-1", "1e9", "\u00b2", "9" * 30, "9" * 5000, "sse", "json", "%00"])
        ),
    ),
    max_size=3,
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "authorization",
            "x-api-key",
            "x-goog-api-key",
            "anthropic-version",
            "anthropic-beta",
            "user-agent",
            "origin",
            "content-type",
            "accept",
            "content-length",
            "range",
            "access-control-request-method",
            "host",
        ]
    ),
    st.one_of(
        ODD, st.sampled_from(["Bearer", "Bearer x", "mistral-client-x", "null", "\u00b2", "-1", "localhost", "POST"])
    ),
    max_size=3,
)
METHODS = st.sampled_from(["GET", "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", ""])


@tries(400)
@given(
    path=st.one_of(
        st.sampled_from(
            [*LISTS, *ids((*TARGETS, *COUNTS)), "/health", "/metrics", "/docs", "/", "/static/home.js", ""]
        ),
        st.builds("{}/{}".format, st.sampled_from(LISTS), st.one_of(st.text(max_size=9), st.just("mock"))),
        st.text(max_size=12).map("/{}".format),
        st.sampled_from(
            ["/v1/models/../../etc/passwd", "/static/../app.py", "/v1beta/models/:generateContent", "//v1/models"]
        ),
    ),
    method=METHODS,
    pairs=QUERIES,
    headers=HEADERS,
    body=st.sampled_from([b"", b"{}", b"[]", b"null", b"\xff"]),
)
def test_any_path_method_query_and_headers(
    loop: asyncio.Runner, mock: Site, path: str, method: str, pairs: Any, headers: dict[str, str], body: bytes
) -> None:
    query = "&".join(f"{name}={value}" for name, value in pairs)
    said = loop.run(send(mock, method, path, body, headers, query))
    assert said.status < 500, said.body
    assert not any(inside in said.body for inside in INSIDE if said.status >= 400)
    if said.status >= 400 and said.body:
        assert said.headers["content-type"] == "application/json"
        assert isinstance(json.loads(said.body), dict)


SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS: list[Any] = [found.ok() for found in cast(Any, SCHEMA.get_all_operations())]


@pytest.mark.parametrize("label", [operation.label for operation in OPERATIONS])
def test_what_the_openapi_document_describes(loop: asyncio.Runner, mock: Site, label: str) -> None:
    """Bodies made of the schemas by schemathesis: they are answered, or refused by name."""
    (operation,) = (one for one in OPERATIONS if one.label == label)

    @tries(25)
    @given(case=operation.as_strategy())
    def one(case: Any) -> None:
        sent = case.as_transport_kwargs(base_url="http://localhost")
        body = json.dumps(sent["json"]).encode() if "json" in sent else sent.get("data") or b""
        path = unquote(urlsplit(sent["url"]).path)
        said = loop.run(send(mock, sent["method"], path, body if isinstance(body, bytes) else str(body).encode()))
        assert said.status < 500, said.body
        assert said.headers["content-type"].split(";")[0] in (
            "application/json",
            "text/event-stream",
            "text/plain",
            "application/x-ndjson",
        )
        if said.status >= 400:
            assert not any(inside in said.body for inside in INSIDE)

    one()
