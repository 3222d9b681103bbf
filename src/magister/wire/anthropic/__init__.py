"""Anthropic's Messages and count_tokens.

Knows what `wire.dialect` asks of every dialect, and counting. Thoughts that a client replays without their text are
unsealed with `signing_key`.
"""

from magister.wire.anthropic.answer import write_count, write_error, write_model, write_models, write_reply
from magister.wire.anthropic.ask import write_request
from magister.wire.anthropic.hear import read_error, read_events, read_reply
from magister.wire.anthropic.request import read_count_request, read_request
from magister.wire.anthropic.stream import KEEPALIVE, NAME, STREAM_TYPE, write_events

__all__ = [
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
