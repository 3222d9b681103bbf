"""A chat in one of the dialects, as an exchange talks it: what dialects have in common, and Puter's two extras."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Sequence

import msgspec

from magister.server.exchange import BROKE_OFF, Begin, House, Route, Talk
from magister.server.faults import Rejected
from magister.server.models import Resolved, settle
from magister.server.tokens import check_length
from magister.types import ChatRequest, Event, Finish, FinishReason, Text, Usage, fold
from magister.wire import puter
from magister.wire.dialect import Asked, Dialect, Stamp
from magister.wire.fault import Fault, Kind
from magister.wire.words import spelled

SIGNED = frozenset({"openai_responses", "anthropic", "google"})
"""Dialects in which thoughts are signed."""


class ChatTalk:
    """See `Talk`."""

    def __init__(self, speaks: Dialect, asked: Asked, resolved: Resolved, request: ChatRequest, stamp: Stamp) -> None:
        self.resolved = resolved
        self.stream = asked.stream
        self.labels = asked.labels
        self._speaks = speaks
        self._asked = asked
        self._request = request
        self._stamp = stamp
        self._writer = speaks.write_events(asked, stamp) if asked.stream else None
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self._failed = False

    def start(self) -> AsyncGenerator[Event, None]:
        """The model's events, or Puter's own where its test mode is asked for."""
        if self._speaks.NAME == "puter" and puter.wants_test(self._asked):
            return _said(puter.TEST_EVENTS)
        return self.resolved.served.chat.chat(self._request)

    def usages(self, items: Sequence[Event]) -> list[Usage]:
        """See `Talk`."""
        return [event for event in items if isinstance(event, Usage)]

    def whole(self, items: Sequence[Event]) -> bytes:
        """See `Talk`."""
        reply = fold(items)
        broken = next((c for c in reply.choices if c.finish in (None, FinishReason.ERROR)), None)
        if broken is not None or not reply.choices:
            said = (broken and broken.error) or "the model ended without an answer"
            raise Rejected(Fault(kind=Kind.UPSTREAM, message=said))
        return self._speaks.write_reply(self._asked, reply, self._stamp)

    def write(self, items: Sequence[Event]) -> bytes:
        """See `Talk`."""
        assert self._writer is not None
        for event in items:
            self._begun.add(event.choice)
            if isinstance(event, Finish):
                self._finished.add(event.choice)
                self._failed |= event.reason is FinishReason.ERROR
        return self._writer.write(items)

    def end(self) -> bytes:
        """See `Talk`."""
        assert self._writer is not None
        return self._writer.end() if self._begun == self._finished else self._writer.fail(BROKE_OFF)

    @property
    def broken(self) -> bool:
        """See `Talk`."""
        return self._failed or self._begun != self._finished

    def fail(self, fault: Fault) -> bytes:
        """See `Talk`."""
        assert self._writer is not None
        return self._writer.fail(fault)


def chat_route(speaks: Dialect, model: str = "", stream: bool = False) -> Route:
    """Chats in a dialect; `model` and `stream` where the path says them."""
    token_of = puter.auth_token_of if speaks.NAME == "puter" else None
    begin = _beginning(speaks, model, stream)
    return Route(speaks.NAME, speaks.STREAM_TYPE, speaks.KEEPALIVE, begin, speaks.write_error, token_of)


def _beginning(speaks: Dialect, model: str, stream: bool) -> Begin:
    async def begin(house: House, body: bytes, request_id: str) -> Talk | bytes:
        if speaks.NAME == "puter" and puter.wants_models(body):
            return puter.write_driver_models(house.models.cards)
        key = house.settings.signing_key
        if speaks.NAME in SIGNED:
            asked = speaks.read_request(body, model, stream, signing_key=key)  # type: ignore[call-arg]
        else:
            asked = speaks.read_request(body, model, stream)
        resolved = house.models.resolve(asked.chat.model)
        if len(body) > resolved.served.card.context:
            # A token is a byte at least, so what is shorter cannot be too long.
            check_length(resolved.served, said(asked.chat), spelled("messages", speaks.NAME))
        request = await house.prepare(settle(asked, resolved, keep_thinking=house.settings.keep_thinking))
        stamp = Stamp(id=request_id, created=int(time.time()), model=resolved.served.card.name, signing_key=key)
        # Replies repeat what was settled, not what was left open.
        return ChatTalk(speaks, msgspec.structs.replace(asked, chat=request), resolved, request, stamp)

    return begin


def said(chat: ChatRequest) -> Iterator[str]:
    """All text of a request but thoughts, which may be left out of a prompt that is too long."""
    for message in chat.messages:
        for part in message.parts:
            if isinstance(part, Text):
                yield part.text


async def _said(events: Sequence[Event]) -> AsyncGenerator[Event, None]:
    for event in events:
        yield event
