"""Images of a request: counted, measured, and, where the operator allows it, fetched by URL.

A URL is a way to make this server ask others, so: http and https only, no private address, the address that was
checked is the one that is connected to, no redirects, a limit of bytes and of seconds. Knows no dialect.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from magister.server.faults import Rejected
from magister.server.settings import Settings
from magister.types import ChatRequest, Image, Message
from magister.wire.fault import Fault, Kind

_SECONDS = 10.0


@dataclass(frozen=True)
class Images:
    """The rules of one server for images."""

    settings: Settings

    async def __call__(self, request: ChatRequest) -> ChatRequest:
        """The request with every image's bytes in it. Raises `Rejected`."""
        found = [part for message in request.messages for part in message.parts if isinstance(part, Image)]
        if not found:
            return request
        self._check(found)
        if not any(image.url for image in found):
            return request
        messages = [await self._filled(message) for message in request.messages]
        return msgspec.structs.replace(request, messages=tuple(messages))

    def _check(self, found: list[Image]) -> None:
        settings = self.settings
        if len(found) > settings.images:
            raise _rejected(f"messages: {len(found)} images, at most {settings.images} are read in one request")
        for image in found:
            if len(image.data) > settings.image_bytes:
                raise _rejected(
                    f"messages: an image of {len(image.data)} bytes, at most {settings.image_bytes} are read"
                )
            if image.url and not settings.fetch_images:
                raise _rejected(
                    "messages: an image by URL; this server fetches none (`--fetch-images` lets it), send a data URL"
                )

    async def _filled(self, message: Message) -> Message:
        parts = [
            Image(data=await fetch(part.url, self.settings.image_bytes))
            if isinstance(part, Image) and part.url
            else part
            for part in message.parts
        ]
        return Message(message.role, tuple(parts))


async def fetch(url: str, most: int) -> bytes:
    """The bytes behind a public http(s) URL. Raises `Rejected` for all that may not, or cannot, be fetched."""
    if not url.startswith(("http://", "https://")):
        raise _rejected("an image's URL must begin with http:// or https://")
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        # aiohttp asks no resolver about an address.
        ipaddress.ip_address(host.partition("%")[0])
        check_public(host, host)
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    connector = aiohttp.TCPConnector(resolver=PublicResolver(), use_dns_cache=False)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise _rejected(f"an image's URL answered {response.status}; redirects are not followed")
            data = bytearray()
            async for piece in response.content.iter_chunked(65536):
                data += piece
                if len(data) > most:
                    raise _rejected(f"an image by URL has more than {most} bytes")
            return bytes(data)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise _rejected(f"an image could not be fetched: {type(error).__name__}: {error}") from None


class PublicResolver(AbstractResolver):
    """Names to addresses, private ones refused. What it returns is what is connected to: there is no second look."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Every address of a host. Raises `Rejected` where one of them is not public."""
        found: list[Any] = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        results: list[ResolveResult] = []
        for kind, _, protocol, _, address in found:
            check_public(address[0], host)
            results.append(
                ResolveResult(
                    hostname=host, host=address[0], port=port, family=kind, proto=protocol, flags=socket.AI_NUMERICHOST
                )
            )
        return results

    async def close(self) -> None:
        """Nothing is held."""


def check_public(address: str, host: str) -> None:
    """Raises `Rejected` for an address that is not of the public internet, in whatever form it is written."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    for one in (found, mapped):
        if one is not None and (not one.is_global or one.is_multicast):
            raise _rejected(f"an image's URL leads to {host}, which is not a public address")


def _rejected(message: str) -> Rejected:
    return Rejected(Fault(kind=Kind.INVALID, message=message, field="messages"))
