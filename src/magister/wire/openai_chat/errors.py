"""OpenAI's errors, written and read; all of its dialects have the same."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from magister.wire.dialect import Answer
from magister.wire.fault import STATUS, Fault, Kind

_TYPES: dict[Kind, tuple[str, str | None]] = {
    Kind.INVALID: ("invalid_request_error", None),
    Kind.UNKNOWN_FIELD: ("invalid_request_error", "unknown_parameter"),
    Kind.TOO_LONG: ("invalid_request_error", "context_length_exceeded"),
    Kind.UNAUTHENTICATED: ("invalid_request_error", "invalid_api_key"),
    Kind.OUT_OF_BUDGET: ("insufficient_quota", "insufficient_quota"),
    Kind.FORBIDDEN: ("permission_error", "forbidden"),
    Kind.NO_MODEL: ("invalid_request_error", "model_not_found"),
    Kind.NOT_FOUND: ("invalid_request_error", "not_found"),
    Kind.NOT_ALLOWED: ("invalid_request_error", "method_not_allowed"),
    Kind.TIMEOUT: ("timeout_error", "timeout"),
    Kind.TOO_LARGE: ("invalid_request_error", "request_too_large"),
    Kind.RATE: ("rate_limit_error", "rate_limit_exceeded"),
    Kind.BUSY: ("server_error", "overloaded"),
    Kind.FAILED: ("server_error", "internal_error"),
    Kind.UPSTREAM: ("server_error", "model_failed"),
}
_KINDS = {code: kind for kind, (_, code) in _TYPES.items() if code is not None}
_BY_STATUS = {
    400: Kind.INVALID,
    401: Kind.UNAUTHENTICATED,
    402: Kind.OUT_OF_BUDGET,
    403: Kind.FORBIDDEN,
    404: Kind.NOT_FOUND,
    405: Kind.NOT_ALLOWED,
    408: Kind.TIMEOUT,
    413: Kind.TOO_LARGE,
    422: Kind.INVALID,
    429: Kind.RATE,
    502: Kind.UPSTREAM,
    503: Kind.BUSY,
}


def error_body(fault: Fault) -> dict[str, Any]:
    """What is told, whole or within a stream."""
    kind, code = _TYPES[fault.kind]
    return {"error": {"message": fault.message, "type": kind, "param": fault.field or None, "code": code}}


def retry_headers(fault: Fault) -> tuple[tuple[str, str], ...]:
    """What tells Stainless' clients whether, and when, to try again."""
    if fault.kind is Kind.OUT_OF_BUDGET:
        return (("x-should-retry", "false"),)
    if fault.retry_after is None:
        return ()
    return (
        ("retry-after", str(math.ceil(fault.retry_after))),
        ("retry-after-ms", str(round(fault.retry_after * 1000))),
    )


def write_error(fault: Fault, request_id: str) -> Answer:
    """Status, body and headers. An exhausted budget is a 429, as OpenAI has it."""
    status = 429 if fault.kind is Kind.OUT_OF_BUDGET else STATUS[fault.kind]
    return Answer(status, msgspec.json.encode(error_body(fault)), retry_headers(fault))


def read_error(status: int, body: bytes) -> Fault:
    """What a server of this dialect told."""
    try:
        told = msgspec.json.decode(body, type=dict[str, Any]).get("error")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        told = None
    said: dict[str, Any] = told if isinstance(told, dict) else {"message": told}
    message, field, code = said.get("message"), said.get("param"), said.get("code")
    known = _KINDS.get(code) if isinstance(code, str) else None
    return Fault(
        kind=known or _BY_STATUS.get(status, Kind.FAILED),
        message=message if isinstance(message, str) else f"the server answered {status}",
        field=field if isinstance(field, str) else "",
    )
