"""Puter without Puter's servers: its script's address, its sign-in window, and the few paths its client touches.

`/drivers/call` itself is a dialect like others. The window asks a person whether pages of an origin may use this
server, and gives them a guest's token that is good for that origin only; so it stands in for `--origin`, for one page.
Where the server has keys, the window asks for one.

Pages opened from files have the origin `null`, all of them, and so have frames that were shut off from their page: a
person who lets one in lets them all in. Programs in Node get their token by a redirect to loopback, nowhere else.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from urllib.parse import quote, urlsplit

import jinja2
import msgspec

from magister.server.access import LOOPBACK, Caller, cors, key_of
from magister.server.asgi import Disconnected, Receive, Scope, Send, answer, header, query, read_body
from magister.server.exchange import House
from magister.server.faults import LAPSED, Rejected, fault_of
from magister.server.guests import ORIGIN, GuestTokens
from magister.wire import puter
from magister.wire.fault import BadRequest, Fault, Kind
from magister.wire.reading import decode

__all__ = ["GuestTokens", "PuterContext", "puter_app"]

_SCRIPT = "text/javascript; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_NO_LIMIT = 2**53 - 1
"""The allowance, in millionths of a cent: nothing here costs anything, and JavaScript counts no further."""
_CONSENT_BYTES = 4096

# Scripts are asked for by pages of any origin, isolated ones too.
_FOR_ALL = (("cross-origin-resource-policy", "cross-origin"), ("cache-control", "no-cache"))
_WINDOW = (
    ("content-security-policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
)


@dataclass(frozen=True, kw_only=True)
class PuterContext:
    """What Puter's paths share with the server."""

    house: House
    guests: GuestTokens


class _Answer(msgspec.Struct, frozen=True):
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class _Consent(msgspec.Struct, forbid_unknown_fields=True):
    origin: str


@dataclass(frozen=True)
class _Request:
    """One request, its caller's origin found to be one that may call."""

    context: PuterContext
    scope: Scope
    receive: Receive

    @property
    def caller(self) -> Caller:
        """Raises `Rejected` where a key is needed."""
        return self.context.house.access.authorise(key_of(self.scope))


_Handler = Callable[[_Request], Awaitable[_Answer]]


def puter_app(context: PuterContext) -> Callable[[Scope, Receive, Send], Awaitable[bool]]:
    """What answers Puter's own paths, and says false of a path that is none of them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> bool:
        handler = _find(scope)
        if handler is None:
            return False
        await _respond(_Request(context, scope, receive), handler, send)
        return True

    return app


def _find(scope: Scope) -> _Handler | None:
    path: str = scope["path"]
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    if path == "/":
        return _window if method == "GET" and query(scope).get("action") == "authme" else None
    if path.startswith("/metering/usage/"):
        path = "/metering/usage/*"
    return _HANDLERS.get((method, path.rstrip("/")))


async def _respond(request: _Request, handler: _Handler, send: Send) -> None:
    access, scope = request.context.house.access, request.scope
    request_id, origin = secrets.token_hex(16), ""
    try:
        access.check_host(scope)
        if handler not in _OPEN:
            if page := access.lapsed(scope, key_of(scope)):
                origin = page
                raise Rejected(LAPSED)
            origin = access.check_origin(scope, key_of(scope))
        found = await handler(request)
        await answer(send, 200, found.body, found.content_type, [*cors(origin), *found.headers])
    except Disconnected:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets its dialect's error
        told = puter.write_error(fault_of(error, request_id), request_id)
        await answer(send, told.status, told.body, headers=[*cors(origin), *told.headers])


async def _script(request: _Request) -> _Answer:
    return _Answer(_static("puter.js"), _SCRIPT, _FOR_ALL)


async def _window_script(request: _Request) -> _Answer:
    return _Answer(_static("sign-in.js"), _SCRIPT, _WINDOW)


async def _window(request: _Request) -> _Answer:
    """The sign-in window; for a program, with where to send its token. Raises `BadRequest` for any but loopback."""
    asked = query(request.scope)
    redirect = loopback_url(asked["redirectURL"]) if "redirectURL" in asked else ""
    if asked.get("action") == "authme" and not redirect:
        raise BadRequest("redirectURL", "is required")
    keyed = request.context.house.access.keys is not None
    html = _templates().get_template("sign_in.html").render(title="Sign in", redirect=redirect, keyed=keyed)
    return _Answer(html.encode(), _HTML, _WINDOW)


def loopback_url(url: str) -> str:
    """The same address made anew from its parts, so that no browser reads another host in it.

    Raises `BadRequest` for anything but http on this machine.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
    except ValueError:
        raise BadRequest("redirectURL", "is no address") from None
    if parts.scheme != "http" or host not in LOOPBACK or parts.username is not None or "\\" in url:
        raise BadRequest("redirectURL", "must be http://localhost:PORT: tokens are sent to this machine only")
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}{quote(parts.path, safe='/%') or '/'}"


async def _consent(request: _Request) -> _Answer:
    """A person said yes in the window: a token for that origin. Raises `Rejected` for any page but the window."""
    scope, house = request.scope, request.context.house
    own = f"{scope.get('scheme', 'http')}://{header(scope, b'host')}"
    if header(scope, b"origin") != own:
        raise Rejected(Fault(kind=Kind.FORBIDDEN, message="only the sign-in window of this server may ask for a token"))
    key = key_of(scope)
    if house.access.guest(key) is not None:
        raise Rejected(Fault(kind=Kind.FORBIDDEN, message="a guest cannot let others in"))
    house.access.authorise(key)
    body = await read_body(scope, request.receive, _CONSENT_BYTES, house.settings.body_seconds)
    origin = decode(body, _Consent).origin
    if not ORIGIN.fullmatch(origin):
        raise BadRequest("origin", f"{origin!r} is no origin, like https://example.org or null")
    token = request.context.guests.issue(origin)
    return _json({"token": token, "username": "guest", "app_uid": f"app-{_uuid(origin)}"})


async def _whoami(request: _Request) -> _Answer:
    caller = request.caller
    guest = request.context.house.access.guest(key_of(request.scope)) is not None
    return _json(
        {
            "username": "guest" if guest else caller.name,
            "uuid": _uuid(caller.name),
            "email": None,
            "email_confirmed": True,
            "requires_email_confirmation": False,
            "is_temp": guest,
            "subscribed": False,
        }
    )


async def _rao(request: _Request) -> _Answer:
    """The client tells that an app was opened; nobody counts."""
    return _json({})


async def _models(request: _Request) -> _Answer:
    assert request.caller
    return _Answer(puter.write_models(request.context.house.models.cards))


async def _names(request: _Request) -> _Answer:
    assert request.caller
    return _json({"models": [card.name for card in request.context.house.models.cards]})


async def _usage(request: _Request) -> _Answer:
    assert request.caller
    allowance = {"monthUsageAllowance": _NO_LIMIT, "remaining": _NO_LIMIT}
    return _json({"usage": {"total": 0}, "appTotals": {}, "allowanceInfo": allowance})


async def _app_usage(request: _Request) -> _Answer:
    assert request.caller
    return _json({"total": 0})


_HANDLERS: Mapping[tuple[str, str], _Handler] = {
    ("GET", "/puter/v2"): _script,
    ("GET", "/puter/sign-in.js"): _window_script,
    ("GET", "/action/sign-in"): _window,
    ("POST", "/puter/consent"): _consent,
    ("GET", "/whoami"): _whoami,
    ("POST", "/rao"): _rao,
    ("GET", "/puterai/chat/models/details"): _models,
    ("GET", "/puterai/chat/models"): _names,
    ("GET", "/metering/usage"): _usage,
    ("GET", "/metering/usage/*"): _app_usage,
}
_OPEN = frozenset({_script, _window_script, _window, _consent})
"""Asked for by anybody; the consent looks at its origin itself."""


def _json(value: object) -> _Answer:
    return _Answer(puter.ascii_json(value))


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"magister:{name}"))


@cache
def _static(name: str) -> bytes:
    return (resources.files("magister.server") / "static" / name).read_bytes()


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("magister.server"), autoescape=True, undefined=jinja2.StrictUndefined
    )
