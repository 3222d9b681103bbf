"""Guests' tokens: a page that a person let in may call, under its own origin and no other.

A token is a signed string, so nothing is stored; whoever changes the secret ends them all. Knows no HTTP.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Callable

MARK = "guest"
"""What tokens begin with."""
LIFETIME = 30 * 24 * 3600.0
"""Seconds."""
ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[^\s/?#\\@]+", re.ASCII)
"""What browsers send as the origin of a page; `null` for one from a file."""


class GuestTokens:
    """Gives out tokens bound to (guest, origin) and knows them again."""

    def __init__(self, secret: bytes, now: Callable[[], float] = time.time, lifetime: float = LIFETIME) -> None:
        """`secret`: at least 16 bytes. ValueError below."""
        if len(secret) < 16:
            raise ValueError(f"secret: {len(secret)} bytes, at least 16 are needed")
        self._secret, self._now, self._lifetime = secret, now, lifetime

    def issue(self, origin: str, guest: str = "guest") -> str:
        """A token for pages of one origin. ValueError where that is none."""
        if not ORIGIN.fullmatch(origin):
            raise ValueError(f"origin: {origin!r} is no origin, like https://example.org or null")
        said = f"{guest}\n{int(self._now())}\n{origin}".encode()
        return f"{MARK}.{_text(said)}.{_text(self._sign(said))}"

    def origin_of(self, token: str) -> str | None:
        """The origin a token was given to; None for what is none of ours, or too old."""
        mark, _, rest = token.partition(".")
        body, _, signature = rest.partition(".")
        if mark != MARK or not body or not signature:
            return None
        try:
            said, signed = _bytes(body), _bytes(signature)
        except (binascii.Error, ValueError):
            return None
        if not hmac.compare_digest(signed, self._sign(said)):
            return None
        _, issued, origin = said.decode().split("\n")
        return origin if self._now() - int(issued) <= self._lifetime else None

    def _sign(self, said: bytes) -> bytes:
        return hmac.new(self._secret, b"guest token\n" + said, hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
