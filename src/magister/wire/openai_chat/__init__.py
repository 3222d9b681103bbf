"""OpenAI's Chat Completions. Knows what `wire.dialect` asks of every dialect."""

from magister.wire.openai_chat.answer import (
    KEEPALIVE,
    NAME,
    STREAM_TYPE,
    write_events,
    write_model,
    write_models,
    write_reply,
)
from magister.wire.openai_chat.ask import write_request
from magister.wire.openai_chat.body import BODY
from magister.wire.openai_chat.errors import read_error, write_error
from magister.wire.openai_chat.hear import read_events, read_reply
from magister.wire.openai_chat.request import read_request

__all__ = [
    "BODY",
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
