"""OpenAI's Responses.

Knows what `wire.dialect` asks of every dialect. Nothing is kept, so a request brings all its items; thoughts that it
brings without their text are unsealed with `signing_key`.
"""

from magister.wire.openai_chat.answer import write_model, write_models
from magister.wire.openai_chat.errors import read_error, write_error
from magister.wire.openai_responses.answer import write_reply
from magister.wire.openai_responses.ask import write_request
from magister.wire.openai_responses.hear import read_events, read_reply
from magister.wire.openai_responses.request import read_request
from magister.wire.openai_responses.stream import KEEPALIVE, NAME, STREAM_TYPE, write_events

__all__ = [
    "KEEPALIVE",
    "NAME",
    "STREAM_TYPE",
    "read_error",
    "read_events",
    "read_reply",
    "read_request",
    "write_error",
    "write_events",
    "write_model",
    "write_models",
    "write_reply",
    "write_request",
]
