"""Images by URL: no private address in whatever disguise, no surprise behind a public one."""

import asyncio
import socket

import pytest

from magister.server.faults import Rejected
from magister.server.fetch import Images, PublicResolver, check_public, fetch
from magister.server.settings import Settings
from magister.types import ChatRequest, Image, Text, user

PRIVATE = [
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
    "::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "224.0.0.1", "ff02::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(address: str) -> None:
    with pytest.raises(Rejected, match="not a public address"):
        check_public(address, "host")


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111"])
def test_public_ones_are_not(address: str) -> None:
    check_public(address, "host")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/x.png", "http://localhost:9/x.png", "http://[::1]:9/x.png", "http://2130706433:9/x.png",
        "http://0x7f.1:9/x.png", "http://[::ffff:127.0.0.1]:9/x.png", "ftp://1.1.1.1/x.png", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_no_url_leads_home(url: str) -> None:
    with pytest.raises(Rejected):
        asyncio.run(fetch(url, 1000))


def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that changes its address between two looks gains nothing: there is one look."""
    looks: list[str] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()

        async def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
            looks.append(host)
            address = "1.1.1.1" if len(looks) == 1 else "127.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        resolver = PublicResolver()
        (first,) = await resolver.resolve("example.org", 80)
        assert first["host"] == "1.1.1.1"
        assert first["flags"] == socket.AI_NUMERICHOST
        with pytest.raises(Rejected):
            await resolver.resolve("example.org", 80)

    asyncio.run(run())


def test_limits_come_before_anything_is_fetched() -> None:
    settings = Settings(images=2, image_bytes=10)
    for parts, said in (
        ([Image(data=b"x")] * 3, "3 images, at most 2"),
        ([Image(data=b"x" * 11)], "11 bytes, at most 10"),
        ([Image(url="https://example.org/x.png")], "fetches none"),
    ):
        request = ChatRequest(messages=(user(Text("what?"), *parts),))
        with pytest.raises(Rejected, match=said):
            asyncio.run(Images(settings)(request))
    fine = ChatRequest(messages=(user("what?", Image(data=b"x")),))
    assert asyncio.run(Images(settings)(fine)) is fine
