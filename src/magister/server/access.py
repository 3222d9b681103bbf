"""Who may ask: keys, hosts, origins. One authoriser for every way that SDKs send a key.

Keys are kept and found as HMACs, so the file of keys opens nothing and a lookup tells nothing by its time. Knows no
dialect beyond where each puts its key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from magister.server.asgi import Scope, header, query
from magister.server.faults import Rejected
from magister.wire.fault import Fault, Kind

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    name: str
    """Of the key; `local` where a server asks for none."""


LOCAL = Caller("local")


def digest(secret: bytes, key: str) -> str:
    """What is kept of a key."""
    return hmac.new(secret, key.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Keys:
    """The keys that were given out."""

    secret: bytes
    names: Mapping[str, str] = field(default_factory=dict)
    """Digest -> name."""

    def find(self, key: str) -> Caller | None:
        """Whose key this is."""
        name = self.names.get(digest(self.secret, key))
        return None if name is None else Caller(name)


def key_of(scope: Scope, body_token: str = "") -> str:
    """The key a request carries: Bearer, x-api-key, x-goog-api-key, ?key=, then the token in the body."""
    scheme, _, rest = header(scope, b"authorization").partition(" ")
    if scheme.casefold() == "bearer" and rest.strip():
        return rest.strip()
    return (
        header(scope, b"x-api-key")
        or header(scope, b"x-goog-api-key")
        or (query(scope).get("key", "") if scope["query_string"] else "")
        or body_token
    )


@dataclass(frozen=True, kw_only=True)
class Access:
    """The rules of one server."""

    keys: Keys | None = None
    """None: nobody is asked for one; such a server listens on loopback only."""
    origins: frozenset[str] = frozenset()
    """Origins of pages that may call: `https://example.org`, `null` for pages from files."""
    hosts: frozenset[str] | None = LOOPBACK
    """Names by which the server may be addressed, without port; None for any. Keeps a page whose name was made to
    point at this machine (DNS rebinding) from speaking as if it were this machine's own.
    """
    guest: Callable[[str], str | None] = lambda token: None
    """The origin that a guest's token was given to, if it is one."""

    def authorise(self, key: str) -> Caller:
        """Who asks with a key, see `key_of`. Raises `Rejected` where one is needed and missing or unknown."""
        origin = self.guest(key) if key else None
        if origin is not None:
            return Caller(f"guest of {origin}")
        if self.keys is None:
            return LOCAL
        caller = self.keys.find(key) if key else None
        if caller is None:
            said = "this key is not known here" if key else "a key is needed: send it as `Authorization: Bearer KEY`"
            raise Rejected(Fault(kind=Kind.UNAUTHENTICATED, message=said))
        return caller

    def check_host(self, scope: Scope) -> None:
        """Raises `Rejected` where the server is addressed by a name that is not its own."""
        if self.hosts is None:
            return
        named = [value.decode("latin-1") for key, value in scope["headers"] if key == b"host"]
        if not named and scope.get("http_version") == "1.0":
            # A probe that asks as of old. No browser does.
            return
        name = named[0].strip() if len(named) == 1 else ""
        if not name:
            raise Rejected(Fault(kind=Kind.INVALID, message="Host: must be sent, and once"))
        bare = name if name.endswith("]") else name.rpartition(":")[0] or name
        if bare.casefold() not in self.hosts:
            told = f"Host: this server is not {name!r}; start it with `--host-name {bare}` if it is to be addressed so"
            raise Rejected(Fault(kind=Kind.FORBIDDEN, message=told))

    def check_origin(self, scope: Scope, key: str = "") -> str:
        """The origin to answer to, empty where there is none. Raises `Rejected` for a page that may not call.

        Clients that are no browsers send origins too (Puter's in Node says https://puter.work): only a browser also
        sends Sec-Fetch-Site, and only a browser can be made to ask by a page.
        """
        origin = header(scope, b"origin")
        if not origin or self.allows(scope, origin) or (key and self.guest(key) == origin):
            return origin
        if not _from_page(scope):
            return ""
        told = f"Origin: pages of {origin} may not call this server; start it with `--origin {origin}` if they may"
        raise Rejected(Fault(kind=Kind.FORBIDDEN, message=told))

    def lapsed(self, scope: Scope, key: str) -> str:
        """The origin of a page that sends a token which does not, or no longer, let it in; empty for all others.

        Clients that can sign in again do so when they are told; so that they can be, they may read that one answer.
        """
        origin = header(scope, b"origin")
        if not key or not origin or not _from_page(scope) or self.allows(scope, origin) or self.guest(key) == origin:
            return ""
        return "" if self.keys is not None and self.keys.find(key) is not None else origin

    def allows(self, scope: Scope, origin: str) -> bool:
        """Whether pages of an origin may call: those named, and the server's own."""
        own = f"{scope.get('scheme', 'http')}://{header(scope, b'host')}"
        return origin in self.origins or origin == own


def _from_page(scope: Scope) -> bool:
    return header(scope, b"sec-fetch-site") not in ("", "none")


def cors(origin: str) -> Iterable[tuple[str, str]]:
    """The headers by which a browser lets a page of this origin read the answer."""
    if not origin:
        return ()
    return (
        ("access-control-allow-origin", origin),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "x-request-id, request-id, retry-after, x-magister-model"),
        ("vary", "Origin"),
    )


def preflight(scope: Scope, origin: str) -> Iterable[tuple[str, str]]:
    """The answer to a browser that asks before it calls. It opens nothing: the call itself is checked again."""
    asked = header(scope, b"access-control-request-headers")
    return (
        *cors(origin),
        ("access-control-allow-methods", "GET, POST, OPTIONS"),
        ("access-control-allow-headers", asked or "authorization, content-type"),
        ("access-control-allow-private-network", "true"),
        ("access-control-max-age", "600"),
    )
