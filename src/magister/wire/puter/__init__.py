"""Puter's `/drivers/call` for chat completions: a call in an envelope, a reply in another, streams in lines.

Knows what `wire.dialect` asks of every dialect, the token in the body, the driver's list of models, and test mode.
"""

from magister.wire.puter.answer import (
    KEEPALIVE,
    NAME,
    STREAM_TYPE,
    TEST_EVENTS,
    ascii_json,
    write_driver_models,
    write_error,
    write_events,
    write_model,
    write_models,
    write_reply,
)
from magister.wire.puter.ask import write_request
from magister.wire.puter.envelope import Envelope, auth_token_of, wants_models
from magister.wire.puter.hear import read_error, read_events, read_reply
from magister.wire.puter.request import read_request, wants_test

BODY = Envelope
"""What the body is read as."""

__all__ = [
    "BODY",
    "KEEPALIVE",
    "NAME",
    "STREAM_TYPE",
    "TEST_EVENTS",
    "ascii_json",
    "auth_token_of",
    "read_error",
    "read_events",
    "read_reply",
    "read_request",
    "wants_models",
    "wants_test",
    "write_driver_models",
    "write_error",
    "write_events",
    "write_model",
    "write_models",
    "write_reply",
    "write_request",
]
