"""Exceptions -> what a client is told: never a traceback, never the prompt. Knows no dialect."""

from __future__ import annotations

import logging
import re

from magister.server.models import NoModel
from magister.types import Busy, Refused, TooLong, Upstream
from magister.wire.fault import BadRequest, Fault, Kind

_LOG = logging.getLogger("magister.server")
_FIELD = re.compile(r"([a-z_]+(?:\[\d+\]|\.[a-z_]+)*): (.+)", re.DOTALL)


class Rejected(Exception):
    """A fault found by the server itself: access, limits, paths."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def fault_of(error: BaseException, request_id: str) -> Fault:
    """What to tell the client. An error nobody expected is logged under the request's id and told as just that."""
    match error:
        case BadRequest() | NoModel() | Rejected():
            return error.fault
        case TooLong():
            return Fault(kind=Kind.TOO_LONG, message=str(error), field="messages")
        case Refused():
            return Fault(kind=Kind.INVALID, message=str(error), field=error.field.removeprefix("sampling."))
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
            return Fault(kind=Kind.INVALID, message=str(error), field=found[1] if found else "")
    _LOG.error("request %s failed", request_id, exc_info=error)
    return Fault(kind=Kind.FAILED, message=f"the server failed on this request (id {request_id}); its log says how")
