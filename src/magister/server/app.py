"""The ASGI app: every path to what answers it.

Pure ASGI: the paths that SDKs call go straight to `Exchange`; the rest are small handlers. Knows no engine.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import cast

import msgspec

from magister.server import completions
from magister.server.access import cors, key_of, preflight
from magister.server.asgi import Disconnected, Receive, Scope, Send, answer, header, query, read_body
from magister.server.chats import SIGNED, chat_route
from magister.server.exchange import Exchange, House, Route
from magister.server.faults import Rejected, fault_of
from magister.server.health import Look, report
from magister.server.metrics import CONTENT_TYPE
from magister.server.models import Served, settle
from magister.server.paths import Act, Target, find
from magister.server.tokens import AT_ONCE, count, detokenize, tokenize
from magister.wire import anthropic, google, mistral, openai_chat, openai_responses, puter
from magister.wire.dialect import Asked, Dialect
from magister.wire.fault import Fault, Kind

DIALECTS: Mapping[str, ModuleType] = {
    "openai_chat": openai_chat,
    "openai_responses": openai_responses,
    "anthropic": anthropic,
    "google": google,
    "mistral": mistral,
    "puter": puter,
}


def dialect(name: str) -> Dialect:
    """A module of `wire` by name; plain completions speak of errors and models as chats do."""
    return cast(Dialect, DIALECTS.get(name, openai_chat))


PAGED = frozenset({"google", "anthropic"})
"""Dialects whose lists of models come in pages."""

_ROUTES = {name: chat_route(dialect(name)) for name in DIALECTS}


class Page(msgspec.Struct, frozen=True):
    """What a small handler gives back."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Call(msgspec.Struct, frozen=True):
    """What a small handler is given."""

    scope: Scope
    body: bytes


Small = Callable[[Call], Awaitable[Page]]


@dataclass(frozen=True, kw_only=True)
class Site:
    """One server: the house, how its models are, and its pages."""

    house: House
    look: Look
    pages: Mapping[tuple[str, str], Small] = field(default_factory=dict)
    """(method, path) -> handler, open to everybody who may address the server."""
    puter: Callable[[Scope, Receive, Send], Awaitable[bool]] | None = None
    """Answers Puter's own paths; false where a path is none of them."""
    opening: Sequence[Callable[[], Awaitable[None]]] = ()
    """What happens before the first request."""
    closing: Sequence[Callable[[], Awaitable[None]]] = ()
    """What happens after the last one."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI 3."""
        match scope["type"]:
            case "http":
                with suppress(Disconnected):
                    await self._http(scope, receive, send)
            case "lifespan":
                await self._live(receive, send)
            case "websocket":
                await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = find(scope)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if target is not None and method == target.method:
            await self._target(target, scope, receive, send)
        elif method == "OPTIONS" and header(scope, b"access-control-request-method"):
            await self._preflight(target, scope, send)
        elif self.puter is not None and target is None and await self.puter(scope, receive, send):
            return
        elif target is not None:
            told = Fault(kind=Kind.NOT_ALLOWED, message=f"{scope['path']} takes {target.method}, not {method}")
            await self._small(dialect(target.dialect), _raising(told), scope, receive, send, allow=target.method)
        else:
            await self._page(method, scope, receive, send)

    async def _target(self, target: Target, scope: Scope, receive: Receive, send: Send) -> None:
        name = target.dialect
        if target.act is Act.CHAT:
            route = self._route(name, target.model, target.stream)
            await Exchange(self.house, route, scope, receive, send).run()
        elif target.act is Act.COMPLETION:
            await Exchange(self.house, completions.ROUTE, scope, receive, send).run()
        else:
            await self._small(dialect(name), self._listing(target), scope, receive, send)

    @staticmethod
    def _route(name: str, model: str, stream: bool) -> Route:
        return chat_route(dialect(name), model, stream) if model or stream else _ROUTES[name]

    def _listing(self, target: Target) -> Small:
        house, speaks = self.house, DIALECTS[target.dialect]

        async def models(call: Call) -> Page:
            if target.dialect in PAGED:
                return Page(speaks.write_models(house.models.cards, query(call.scope)))
            return Page(speaks.write_models(house.models.cards))

        async def model(call: Call) -> Page:
            return Page(speaks.write_model(house.models.resolve(target.model).served.card))

        async def tokens(call: Call) -> Page:
            key = {"signing_key": house.settings.signing_key} if target.dialect in SIGNED else {}
            asked: Asked = speaks.read_count_request(call.body, target.model, **key)
            resolved = house.models.resolve(asked.chat.model)
            request = await house.prepare(settle(asked, resolved, keep_thinking=house.settings.keep_thinking))
            return Page(speaks.write_count(await asyncio.to_thread(count, resolved.served, request)))

        return {Act.MODELS: models, Act.MODEL: model, Act.COUNT: tokens}[target.act]

    async def _page(self, method: str, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        own: dict[tuple[str, str], Small] = {
            ("GET", "/health"): self._health,
            ("GET", "/metrics"): self._metrics,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/detokenize"): self._detokenize,
        }
        handlers = {**self.pages, **own}
        handler = handlers.get((method, path))
        if handler is not None:
            # Whoever watches a server has no key for it.
            open_to_all = handler in (self._health, self._metrics) or (method, path) in self.pages
            await self._small(openai_chat, handler, scope, receive, send, keyless=open_to_all)
            return
        allowed = [verb for verb, known in handlers if known == path]
        kind = Kind.NOT_ALLOWED if allowed else Kind.NOT_FOUND
        said = f"{path} takes {', '.join(allowed)}, not {method}" if allowed else f"there is nothing at {path}"
        told = Fault(kind=kind, message=said)
        await self._small(openai_chat, _raising(told), scope, receive, send, keyless=True, allow=", ".join(allowed))

    async def _small(
        self,
        speaks: object,
        handler: Small,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        keyless: bool = False,
        allow: str = "",
    ) -> None:
        """A short answer in a dialect's words, or its error."""
        house, request_id, origin = self.house, secrets.token_hex(16), ""
        own = [("x-request-id", request_id), ("request-id", request_id)]
        try:
            house.access.check_host(scope)
            key = key_of(scope)
            origin = house.access.check_origin(scope, key)
            if not keyless:
                house.access.authorise(key)
            body = b""
            if scope["method"] == "POST":
                body = await read_body(scope, receive, house.settings.body_bytes, house.settings.body_seconds)
            page = await handler(Call(scope, body))
            headers = [*own, *cors(origin), *page.headers]
            await answer(send, page.status, page.body, page.content_type, headers)
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets its dialect's error
            spoken = cast(Dialect, speaks)
            told = spoken.write_error(fault_of(error, request_id, spoken.NAME), request_id)
            headers = [*own, *cors(origin), *told.headers, *([("allow", allow)] if allow else [])]
            await answer(send, told.status, told.body, headers=headers)

    async def _preflight(self, target: Target | None, scope: Scope, send: Send) -> None:
        """A browser asks before it calls."""
        origin, access = header(scope, b"origin"), self.house.access
        # Pages with a guest's token are known by it only when they call; asking first opens nothing.
        allowed = access.allows(scope, origin) or (self.puter is not None and (target is None or _puters(target)))
        headers = preflight(scope, origin) if allowed else ()
        await send(
            {
                "type": "http.response.start",
                "status": 204 if allowed else 403,
                "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers],
            }
        )
        await send({"type": "http.response.body", "body": b""})

    async def _health(self, call: Call) -> Page:
        said = report(self.look())
        return Page(msgspec.json.encode(said), status=200 if said["status"] == "ok" else 503)

    async def _metrics(self, call: Call) -> Page:
        conditions = self.look().values()
        self.house.metrics.in_flight.set(len(self.house.flights))
        self.house.metrics.ready.set(int(all(one.ready for one in conditions)))
        self.house.metrics.restarts.set(sum(one.restarts for one in conditions))
        return Page(self.house.metrics.text(), CONTENT_TYPE)

    async def _tokenize(self, call: Call) -> Page:
        return Page(await _aside(tokenize, call.body, self._served))

    async def _detokenize(self, call: Call) -> Page:
        return Page(await _aside(detokenize, call.body, self._served))

    def _served(self, name: str) -> Served:
        return self.house.models.resolve(name).served

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    for act in self.opening:
                        await act()
                except (OSError, RuntimeError, ValueError) as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                for act in self.closing:
                    await act()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _aside(
    act: Callable[[bytes, Callable[[str], Served]], bytes], body: bytes, find: Callable[[str], Served]
) -> bytes:
    """In a thread where it takes long enough to be noticed by streams."""
    return act(body, find) if len(body) <= AT_ONCE else await asyncio.to_thread(act, body, find)


def _raising(told: Fault) -> Small:
    async def refuse(call: Call) -> Page:
        raise Rejected(told)

    return refuse


def _puters(target: Target) -> bool:
    return target.dialect == "puter"
