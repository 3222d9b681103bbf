"""Google's generateContent, streamGenerateContent and countTokens (v1 and v1beta, camelCase and snake_case).

Model and stream come from the path. Knows what `wire.dialect` asks of every dialect, and counting.
"""

from magister.wire.google.answer import (
    KEEPALIVE,
    NAME,
    STREAM_TYPE,
    write_count,
    write_error,
    write_events,
    write_model,
    write_models,
    write_reply,
)
from magister.wire.google.ask import write_request
from magister.wire.google.body import Body, CountBody
from magister.wire.google.hear import read_error, read_events, read_reply
from magister.wire.google.request import read_count_request, read_request

BODY = Body
COUNT_BODY = CountBody
"""What the body is read as."""

__all__ = [
    "BODY",
    "COUNT_BODY",
    "KEEPALIVE",
    "NAME",
    "STREAM_TYPE",
    "read_count_request",
    "read_error",
    "read_events",
    "read_reply",
    "read_request",
    "write_count",
    "write_error",
    "write_events",
    "write_model",
    "write_models",
    "write_reply",
    "write_request",
]
