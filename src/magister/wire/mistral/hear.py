"""La Plateforme's chat -> events, or a whole reply, read where OpenAI's are; errors are its own.

A reply that goes on with a prefix begins with it, and so does what is read.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from magister.wire.fault import Fault, Kind
from magister.wire.openai_chat.errors import read_error as read_openai_error
from magister.wire.openai_chat.hear import read_events, read_reply

__all__ = ["read_error", "read_events", "read_reply"]


def read_error(status: int, body: bytes) -> Fault:
    """What a server of this dialect told: its own shape, or FastAPI's."""
    try:
        said = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return read_openai_error(status, body)
    message = said.get("message")
    detail = message.get("detail") if isinstance(message, dict) else said.get("detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        unknown = detail[0].get("type") == "extra_forbidden"
        kind = Kind.UNKNOWN_FIELD if unknown else Kind.INVALID
        return Fault(kind=kind, message=str(detail[0].get("msg", "")), field=_field(detail[0].get("loc")))
    if "error" in said:
        return read_openai_error(status, body)
    told = read_openai_error(status, msgspec.json.encode({"error": said}))
    code = said.get("code")
    return msgspec.structs.replace(told, kind=Kind(code)) if isinstance(code, str) and code in set(Kind) else told


def _field(place: object) -> str:
    """FastAPI's place of an error, `["body", "messages", 0, "x"]`, as a path."""
    if not isinstance(place, list):
        return ""
    path = ".".join(str(one) for one in place[1:])
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", path)
