"""Keys, hosts and origins."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.server.direct import send
from tests.server.running import site, with_limits

from magister.server import keyfile
from magister.server.access import LOCAL, Access, Caller, Keys, cors, digest, key_of
from magister.server.faults import Rejected
from magister.wire.fault import Kind

KEYS = Keys(b"secret", {digest(b"secret", "k1"): "ada"})


def scope(query: str = "", **headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {
        "type": "http",
        "scheme": "http",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }


@pytest.mark.parametrize(
    ("asked", "body_token"),
    [
        (scope(authorization="Bearer k1"), ""),
        (scope(authorization="bearer  k1 "), ""),
        (scope(x_api_key="k1"), ""),
        (scope(x_goog_api_key="k1"), ""),
        (scope(query="alt=sse&key=k1"), ""),
        (scope(), "k1"),
        (scope(authorization="Basic abc", x_api_key="k1"), ""),
    ],
)
def test_one_authoriser_for_every_way_of_sending_a_key(asked: dict[str, Any], body_token: str) -> None:
    assert key_of(asked, body_token) == "k1"
    assert Access(keys=KEYS).authorise(key_of(asked, body_token)) == Caller("ada")


def test_without_a_key_nobody_is_let_in_where_keys_are_asked_for() -> None:
    for asked, said in ((scope(), "a key is needed"), (scope(x_api_key="k2"), "not known here")):
        with pytest.raises(Rejected, match=said) as told:
            Access(keys=KEYS).authorise(key_of(asked))
        assert told.value.fault.kind is Kind.UNAUTHENTICATED
    assert Access().authorise(key_of(scope())) is LOCAL
    assert Access().authorise(key_of(scope(x_api_key="whatever an SDK insists on"))) is LOCAL


def test_a_guest_is_known_by_its_token() -> None:
    access = Access(keys=KEYS, guest={"t": "http://localhost:3000"}.get)
    assert access.authorise(key_of(scope(authorization="Bearer t"))).name == "guest of http://localhost:3000"


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST:1"])
def test_this_machines_own_names_are_let_in(host: str) -> None:
    Access().check_host(scope(host=host))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example:8080", "localhost."])
def test_a_name_that_was_made_to_point_here_is_not(host: str) -> None:
    with pytest.raises(Rejected, match="Host: this server is not") as told:
        Access().check_host(scope(host=host))
    assert told.value.fault.kind is Kind.FORBIDDEN
    Access(hosts=None).check_host(scope(host=host))


def test_a_host_is_named_once() -> None:
    twice = {**scope(), "headers": [(b"host", b"localhost"), (b"host", b"evil.example")]}
    for asked in (scope(), scope(host=""), twice):
        with pytest.raises(Rejected, match="Host: must be sent, and once") as told:
            Access().check_host(asked)
        assert told.value.fault.kind is Kind.INVALID
    # As probes of load balancers ask.
    Access().check_host({**scope(), "http_version": "1.0"})
    with pytest.raises(Rejected, match="evil"):
        Access().check_host({**scope(host="evil.example"), "http_version": "1.0"})


def test_a_lapsed_token_is_one_that_a_page_sends_and_that_lets_it_in_no_longer() -> None:
    page, browser = "http://localhost:3000", {"sec_fetch_site": "cross-site", "host": "localhost:8080"}
    access = Access(keys=KEYS, origins=frozenset({"null"}), guest={"t": page, "u": "https://other.example"}.get)
    for key, lapsed in (("old", page), ("u", page), ("t", ""), ("k1", ""), ("", "")):
        assert access.lapsed(scope(origin=page, **browser), key) == lapsed
    assert access.lapsed(scope(origin=page, host="localhost:8080"), "old") == "", "no browser"
    assert access.lapsed(scope(**browser), "old") == "", "no page"
    assert access.lapsed(scope(origin="null", **browser), "old") == "", "it needs no token"
    assert Access().lapsed(scope(origin=page, **browser), "old") == page


def test_pages_of_other_origins_may_not_call() -> None:
    access = Access(origins=frozenset({"https://mine.example", "null"}), guest={"t": "http://localhost:3000"}.get)
    browser = {"sec_fetch_site": "cross-site", "host": "localhost:8080"}
    for origin in ("https://mine.example", "null", "http://localhost:8080"):
        assert access.check_origin(scope(origin=origin, **browser)) == origin
    assert access.check_origin(scope(origin="http://localhost:3000", **browser), "t") == "http://localhost:3000"
    for origin, key in (("https://evil.example", ""), ("http://localhost:3000", ""), ("https://evil.example", "t")):
        with pytest.raises(Rejected, match="Origin: pages of"):
            access.check_origin(scope(origin=origin, **browser), key)
    # No browser, so nobody's page; but no page is told that it may read the answer either.
    assert access.check_origin(scope(origin="https://puter.work", host="localhost:8080")) == ""
    assert list(cors("")) == []
    assert ("access-control-allow-origin", "null") in list(cors("null"))
    assert all(value != "*" for _, value in cors("https://mine.example"))


def test_a_page_that_may_call_may_read_what_was_wrong() -> None:
    """Also where that was found before its body was."""
    page = {"origin": "https://mine.example", "sec-fetch-site": "cross-site"}
    app = site(access=Access(origins=frozenset({"https://mine.example"})), settings=with_limits(body_bytes=10))
    for origin, allowed in (("https://mine.example", "https://mine.example"), ("https://evil.example", None)):
        said = asyncio.run(send(app, "POST", "/v1/chat/completions", b" " * 11, {**page, "origin": origin}))
        assert (said.status, said.headers.get("access-control-allow-origin")) == (413, allowed)


def test_the_file_of_keys_opens_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "keys.json"
    key = keyfile.add(path, "ada")
    other = keyfile.add(path, "bob")
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert keyfile.read(path).find(key) == Caller("ada")
    assert keyfile.names(path) == ["ada", "bob"]
    keyfile.remove(path, "ada")
    assert keyfile.read(path).find(key) is None
    assert keyfile.read(path).find(other) == Caller("bob")
    for act, said in (
        (lambda: keyfile.add(path, "bob"), "has a key already"),
        (lambda: keyfile.add(path, "a b"), "is not made of"),
        (lambda: keyfile.remove(path, "eve"), "no key is called 'eve'; there are: bob"),
        (lambda: keyfile.read(tmp_path / "none"), "there is no such file"),
    ):
        with pytest.raises(ValueError, match=said):
            act()
    path.write_text('{"secret": "xyz", "keys": {}}')
    with pytest.raises(ValueError, match="is no file of keys"):
        keyfile.read(path)
