"""What goes wrong with a request, once for all dialects; each writes it in its own words.

Knows nothing of HTTP beyond the status that a kind has everywhere.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """What went wrong; dialects have a word for each."""

    INVALID = "invalid"
    """400: the body, or a field of it."""
    UNKNOWN_FIELD = "unknown_field"
    """400 (Mistral: 422): a field that the dialect, or this server, does not have."""
    TOO_LONG = "too_long"
    """400: prompt and answer do not fit into the context."""
    UNAUTHENTICATED = "unauthenticated"
    """401: no key, or one nobody gave out."""
    OUT_OF_BUDGET = "out_of_budget"
    """402 or 429, as the dialect has it: trying again does not help."""
    FORBIDDEN = "forbidden"
    """403."""
    NO_MODEL = "no_model"
    """404: no model of this name is loaded."""
    NOT_FOUND = "not_found"
    """404: no such path."""
    NOT_ALLOWED = "not_allowed"
    """405: a path that takes another method."""
    TIMEOUT = "timeout"
    """408: the client did not finish sending."""
    TOO_LARGE = "too_large"
    """413: more bytes than are taken."""
    RATE = "rate"
    """429: too much, for now; carries `retry_after`."""
    BUSY = "busy"
    """503 (Anthropic: 529): no capacity now; carries `retry_after`."""
    FAILED = "failed"
    """500: our own fault."""
    UPSTREAM = "upstream"
    """502: the engine, or a remote model, failed."""


STATUS: dict[Kind, int] = {
    Kind.INVALID: 400,
    Kind.UNKNOWN_FIELD: 400,
    Kind.TOO_LONG: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.OUT_OF_BUDGET: 402,
    Kind.FORBIDDEN: 403,
    Kind.NO_MODEL: 404,
    Kind.NOT_FOUND: 404,
    Kind.NOT_ALLOWED: 405,
    Kind.TIMEOUT: 408,
    Kind.TOO_LARGE: 413,
    Kind.RATE: 429,
    Kind.BUSY: 503,
    Kind.FAILED: 500,
    Kind.UPSTREAM: 502,
}
"""The status of a kind, where a dialect has none of its own."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that went wrong, to be told to a client."""

    kind: Kind
    message: str
    """For people; names the field and both numbers where there are any. Never a traceback, never a prompt."""
    field: str = ""
    """The request's field in the dialect's own words, `messages[0].content`."""
    retry_after: float | None = None
    """Seconds after which trying again may help."""


class BadRequest(ValueError):
    """A body that a dialect cannot take. `read_request` raises nothing else."""

    def __init__(self, field: str, message: str, kind: Kind = Kind.INVALID) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.fault = Fault(kind=kind, message=str(self), field=field)
        """What to tell the client."""
