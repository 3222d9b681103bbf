"""OpenAI's plain Completions: text or token ids in, text and token ids out. No messages, no thoughts: tokens.

Since it speaks tokens it has names of its own: `read_request` gives a `CompletionAsked`, and what is written and read
are `Piece`s, one for every chunk of a choice. Errors and models are those of `wire.openai_chat`.
"""

from magister.wire.openai_chat.answer import write_model, write_models
from magister.wire.openai_chat.errors import read_error, write_error
from magister.wire.openai_completions.answer import KEEPALIVE, NAME, STREAM_TYPE, Piece, Writer
from magister.wire.openai_completions.hear import Reader, read_events, read_reply
from magister.wire.openai_completions.request import BODY, CompletionAsked, read_request, write_request

__all__ = [
    "BODY",
    "KEEPALIVE",
    "NAME",
    "STREAM_TYPE",
    "CompletionAsked",
    "Piece",
    "Reader",
    "Writer",
    "read_error",
    "read_events",
    "read_reply",
    "read_request",
    "write_error",
    "write_model",
    "write_models",
    "write_request",
]
