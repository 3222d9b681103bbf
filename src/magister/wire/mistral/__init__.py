"""Mistral's chat, as La Plateforme sent it. Knows what `wire.dialect` asks of every dialect."""

from magister.wire.mistral.answer import KEEPALIVE, NAME, STREAM_TYPE, write_error, write_events, write_reply
from magister.wire.mistral.ask import write_request
from magister.wire.mistral.body import BODY
from magister.wire.mistral.hear import read_error, read_events, read_reply
from magister.wire.mistral.request import read_request
from magister.wire.openai_chat.answer import write_model, write_models

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
