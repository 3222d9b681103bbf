"""Exceptions -> what a client is told: never a traceback, never the prompt. Knows no dialect."""

from __future__ import annotations

import logging
import re

from magister.server.models import NoModel
from magister.types import Busy, Refused, TooLong, Upstream
from magister.wire.fault import BadRequest, Fault, Kind
from magister.wire.words import spelled

_LOG = logging.getLogger("magister.server")
_FIELD = re.compile(r"([a-z_]+(?:\[\d+\]|\.[a-z_]+)*): (.+)", re.DOTALL)


class Rejected(Exception):
    """A fault found by the server itself: access, limits, paths."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


LAPSED = Fault(kind=Kind.UNAUTHENTICATED, message="this page's token is no longer good here: sign in again")
"""What a client of Puter's is told that can ask its person again."""


def fault_of(error: BaseException, request_id: str, dialect: str = "") -> Fault:
    """What to tell a client, of fields in its dialect's spelling. An error nobody expected is logged under the
    request's id and told as just that.
    """
    match error:
        case BadRequest() | NoModel() | Rejected():
            return error.fault
        case TooLong():
            return Fault(kind=Kind.TOO_LONG, message=str(error), field=spelled("messages", dialect))
        case Refused():
            return _named(error.field, str(error).removeprefix(f"{error.field}: "), dialect)
        case Busy():
            return Fault(kind=Kind.BUSY, message=str(error), retry_after=error.retry_after)
        case Upstream():
            _LOG.error("request %s: %s", request_id, error)
            return Fault(kind=Kind.UPSTREAM, message=str(error))
        case RecursionError():
            # Only what a client nested can be that deep; how deep is too deep differs by what reads it.
            return Fault(kind=Kind.INVALID, message="the body is nested too deeply")
        case ValueError():
            found = _FIELD.match(str(error))
            return _named(found[1], found[2], dialect) if found else Fault(kind=Kind.INVALID, message=str(error))
    _LOG.error("request %s failed", request_id, exc_info=error)
    return Fault(kind=Kind.FAILED, message=f"the server failed on this request (id {request_id}); its log says how")


def _named(field: str, reason: str, dialect: str) -> Fault:
    name = spelled(field, dialect)
    return Fault(kind=Kind.INVALID, message=f"{name}: {reason}", field=name)
