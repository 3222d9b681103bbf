"""What is around every call of a Puter driver: which interface, which method, with what, and whose token.

Knows nothing of messages.
"""

from __future__ import annotations

from typing import Any

import msgspec

from magister.wire.fault import BadRequest
from magister.wire.reading import convert, decode

INTERFACE = "puter-chat-completion"
_DRIVERS = ("", "ai-chat", INTERFACE)


class Arguments(msgspec.Struct, forbid_unknown_fields=True):
    """What `puter.ai.chat` sends: its options, and the messages it made of its prompt."""

    messages: list[Any]
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    tools: list[Any] | None = None
    response: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    text: dict[str, Any] | None = None
    verbosity: str | None = None
    provider: str | None = None
    image_config: Any = None
    compaction: Any = None
    context_management: Any = None
    normalize: bool | None = None
    vision: bool | None = None
    """That there are images; what is in the messages says it, too."""
    test_mode: bool | None = None


class Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """One call."""

    interface: str
    method: str
    args: Arguments
    driver: str | None = None
    service: str | None = None
    """What older clients call the driver."""
    test_mode: bool | None = None
    auth_token: str | None = None


class _Token(msgspec.Struct):
    auth_token: Any = None


class _Method(msgspec.Struct):
    """The call without its arguments, which are another interface's where this is no chat."""

    interface: Any = None
    method: Any = None
    driver: Any = None
    service: Any = None


_TOKEN = msgspec.json.Decoder(_Token).decode
_METHOD = msgspec.json.Decoder(_Method).decode


def auth_token_of(body: bytes) -> str:
    """The token a body carries; empty where there is none, or where the body is no JSON (`read_request` tells)."""
    try:
        token = _TOKEN(body).auth_token
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return token if isinstance(token, str) else ""


def wants_models(body: bytes) -> bool:
    """Whether a call asks for the list of models, by which clients replace `/puterai/chat/models/details`."""
    if b'"models"' not in body:
        return False
    try:
        said = _METHOD(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return bool(said.interface == INTERFACE and said.method == "models")


def open_envelope(body: bytes) -> Envelope:
    """The call within; fields are named without the `args` that users never write. Raises `BadRequest` for any call
    but a chat completion.
    """
    try:
        said = decode(body, Envelope)
    except BadRequest as error:
        _check(decode(body, _Method))
        told = error.fault
        field = told.field.removeprefix("args.")
        raise BadRequest(field, told.message.removeprefix(f"{told.field}: "), told.kind) from None
    _check(said)
    return said


def _check(said: Envelope | _Method) -> None:
    if said.interface != INTERFACE:
        raise BadRequest("interface", f"this server has {INTERFACE} only, not {said.interface!r}")
    for name, driver in (("driver", said.driver), ("service", said.service)):
        if (driver or "") not in _DRIVERS:
            raise BadRequest(name, f"{INTERFACE} has the driver ai-chat, not {driver!r}")
    if said.method != "complete":
        raise BadRequest("method", f"{INTERFACE} has the methods complete and models, not {said.method!r}")


def part_of(value: Any, kind: type[Any], field: str) -> Any:
    """What stands at `field`, as `kind`. Raises `BadRequest` with the whole path."""
    try:
        return convert(value, kind)
    except BadRequest as error:
        told = error.fault
        inner = told.field if told.field.startswith("[") or not told.field else f".{told.field}"
        raise BadRequest(f"{field}{inner}", told.message.removeprefix(f"{told.field}: "), told.kind) from None
