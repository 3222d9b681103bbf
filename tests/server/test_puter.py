"""Puter's own paths: the script, the window, tokens that are good for one origin, and what the client asks besides."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from tests.server.puter_world import World, call, serving

from magister.server.access import digest
from magister.server.guests import GuestTokens
from magister.server.puter import loopback_url
from magister.wire.fault import BadRequest

SECRET = b"s" * 32
PAGE = "https://page.example"


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with serving(World(PAGE)) as url:
        yield url


@pytest.fixture(scope="module")
def keyed() -> Iterator[str]:
    with serving(World(PAGE, keys={digest(SECRET, "sesame"): "ann"})) as url:
        yield url


def get(url: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, named)
    try:
        with urllib.request.urlopen(request, timeout=10) as found:
            return found.status, found.headers, found.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_a_token_is_good_for_its_origin_only() -> None:
    now = [1000.0]
    tokens = GuestTokens(SECRET, now=lambda: now[0], lifetime=10.0)
    for origin in (PAGE, "null", "http://localhost:3000"):
        token = tokens.issue(origin)
        assert tokens.origin_of(token) == origin
        assert GuestTokens(b"t" * 32).origin_of(token) is None
        changed = token[:-1] + ("A" if token[-1] != "A" else "B")
        assert tokens.origin_of(changed) is None
    old = tokens.issue(PAGE)
    now[0] += 11
    assert tokens.origin_of(old) is None


@pytest.mark.parametrize("token", ["", "x", "guest", "guest.", "guest.a.b", "guest.#.#", "guest.YQ.é", "guest.YQ.YQ"])
def test_what_is_no_token(token: str) -> None:
    assert GuestTokens(SECRET).origin_of(token) is None


@pytest.mark.parametrize("origin", ["", "example.org", "https://", "https://a/b", "https://a@b", "x y", "a\nb", "NULL"])
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        GuestTokens(SECRET).issue(origin)


def test_a_short_secret_is_none() -> None:
    with pytest.raises(ValueError, match="secret: 3 bytes, at least 16"):
        GuestTokens(b"abc")


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("http://localhost:3000", "http://localhost:3000/"),
        ("http://127.0.0.1:3000/a b?x=1#y", "http://127.0.0.1:3000/a%20b"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
    ],
)
def test_tokens_go_to_loopback(url: str, clean: str) -> None:
    assert loopback_url(url) == clean


@pytest.mark.parametrize(
    "url",
    [
        "", "https://localhost:1", "http://example.org", "http://localhost.example.org", "http://localhost@example.org",
        "http://example.org\\@localhost:1", "javascript:alert(1)", "//localhost", "http://localhost:99999", "http://[::1",
    ],
)  # fmt: skip
def test_tokens_go_nowhere_else(url: str) -> None:
    with pytest.raises(BadRequest):
        loopback_url(url)


def test_the_script_and_the_window(base: str) -> None:
    for path in ("/puter/v2/", "/puter/v2"):
        status, headers, body = get(base + path)
        assert (status, headers["content-type"]) == (200, "text/javascript; charset=utf-8")
        assert headers["cross-origin-resource-policy"] == "cross-origin"
        assert b"globalThis.puter" in body
    status, headers, body = get(f"{base}/action/sign-in?embedded_in_popup=true&msg_id=1")
    assert (status, headers["x-frame-options"]) == (200, "DENY")
    assert b"/puter/sign-in.js" in body
    assert b"password" not in body
    assert get(f"{base}/puter/sign-in.js")[0] == 200
    assert get(f"{base}/puter/nothing")[0] == 404


def test_a_programs_window_says_where_its_token_goes(base: str, keyed: str) -> None:
    found = get(f"{keyed}/?action=authme&redirectURL=http%3A%2F%2Flocalhost%3A3000")[2]
    assert b'data-redirect="http://localhost:3000/"' in found
    assert b"password" in found
    for query in ("action=authme", "action=authme&redirectURL=https%3A%2F%2Fevil.example"):
        status, _, body = get(f"{base}/?{query}")
        assert (status, json.loads(body)["error"]["field"]) == (400, "redirectURL")
    # The window trusts this address, so it is looked at wherever it stands.
    assert get(f"{base}/action/sign-in?redirectURL=javascript:alert(1)")[0] == 400


def test_only_the_window_asks_for_tokens(base: str) -> None:
    body = json.dumps({"origin": PAGE}).encode()
    for origin in ({}, {"Origin": PAGE}, {"Origin": "null"}):
        assert get(f"{base}/puter/consent", body, **origin)[0] == 403
    status, _, said = get(f"{base}/puter/consent", body, Origin=base)
    token = json.loads(said)["token"]
    assert (status, GuestTokens(SECRET).origin_of(token)) == (200, PAGE)
    assert get(f"{base}/puter/consent", body, Origin=base, Authorization=f"Bearer {token}")[0] == 403
    wrong = json.dumps({"origin": "x"}).encode()
    assert get(f"{base}/puter/consent", wrong, Origin=base)[0] == 400


def test_where_there_are_keys_the_window_asks_for_one(keyed: str) -> None:
    body = json.dumps({"origin": PAGE}).encode()
    assert get(f"{keyed}/puter/consent", body, Origin=keyed)[0] == 401
    status, _, said = get(f"{keyed}/puter/consent", body, Origin=keyed, Authorization="Bearer sesame")
    token = json.loads(said)["token"]
    assert status == 200
    for path in ("/whoami", "/puterai/chat/models/details", "/puterai/chat/models", "/metering/usage"):
        assert get(keyed + path)[0] == 401
        status, headers, _ = get(
            keyed + path, Authorization=f"Bearer {token}", Origin=PAGE, Sec_Fetch_Site="cross-site"
        )
        assert (status, headers["access-control-allow-origin"]) == (200, PAGE)
    assert json.loads(get(f"{keyed}/whoami", Authorization="Bearer sesame")[2])["username"] == "ann"
    assert json.loads(get(f"{keyed}/whoami", Authorization=f"Bearer {token}")[2])["username"] == "guest"


def test_a_guests_page_may_call_and_others_may_not(base: str) -> None:
    other = "https://other.example"
    token = GuestTokens(SECRET).issue(other)
    body = json.loads(call())
    for origin, given, status in (
        (other, token, 200),
        (other, "", 403),
        ("https://third.example", token, 401),
        ("null", token, 401),
        (PAGE, "", 200),
    ):
        data = json.dumps({**body, "auth_token": given}).encode()
        found, headers, _ = get(f"{base}/drivers/call", data, Origin=origin, Sec_Fetch_Site="cross-site")
        assert found == status
        assert headers["access-control-allow-origin"] == (None if status == 403 else origin)


def test_what_the_client_asks_besides(base: str) -> None:
    who = json.loads(get(f"{base}/whoami")[2])
    assert {"username", "uuid", "email_confirmed"} <= set(who)
    # In Node the client names two origins here.
    assert get(f"{base}/rao", b"", Origin="https://nodejs.puter.site, https://puter.work")[0] == 200
    assert json.loads(get(f"{base}/puterai/chat/models/details")[2])["models"][0]["id"] == "nano"
    assert json.loads(get(f"{base}/puterai/chat/models")[2]) == {"models": ["nano"]}
    usage = json.loads(get(f"{base}/metering/usage")[2])
    assert usage["allowanceInfo"]["remaining"] > 0
    assert json.loads(get(f"{base}/metering/usage/app-1")[2]) == {"total": 0}


def test_a_foreign_host_is_refused(base: str) -> None:
    status, _, body = get(f"{base}/whoami", Host="evil.example")
    assert (status, json.loads(body)["code"]) == (403, "forbidden")


def test_a_token_that_is_no_longer_good_is_told_so_that_the_page_can_read_it(base: str, keyed: str) -> None:
    """The published client signs in again on this answer, and on no other; what it cannot read is a broken network."""
    page, browser = "http://localhost:3000", {"Sec_Fetch_Site": "cross-site"}
    old = GuestTokens(b"k" * 32).issue(page)
    call = {"interface": "puter-chat-completion", "method": "complete", "args": {"messages": []}, "auth_token": old}
    for url in (base, keyed):
        for path, body, headers in (
            ("/drivers/call", json.dumps(call).encode(), {"Content_Type": "text/plain;actually=json"}),
            ("/whoami", None, {"Authorization": f"Bearer {old}"}),
            ("/puterai/chat/models/details", None, {"Authorization": f"Bearer {old}"}),
        ):
            status, said, told = get(url + path, body, Origin=page, **browser, **headers)
            assert (status, json.loads(told)["code"]) == (401, "token_auth_failed"), path
            assert said["access-control-allow-origin"] == page
            assert said["access-control-allow-credentials"] == "true"
        # A page that has no token at all learns nothing.
        status, said, _ = get(f"{url}/whoami", None, Origin=page, **browser)
        assert (status, said["access-control-allow-origin"]) == (403, None)
