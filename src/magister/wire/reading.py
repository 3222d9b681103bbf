"""Bodies to typed values, with errors that name the field as the client wrote it.

Knows JSON and msgspec; no dialect.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import cache
from typing import Any, TypeVar

import msgspec

from magister.types import Image
from magister.wire.fault import BadRequest, Kind

T = TypeVar("T")

_STANDARD = str.maketrans("-_", "+/", "\r\n")
_AT = re.compile(r" - at `\$\.?(.*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"contains unknown field `(.*)`")
_PAIR = re.compile(rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_HALF = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_MISSING = re.compile(r"missing required field `(.*)`")


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def decode(body: bytes, kind: type[T]) -> T:
    """A JSON body as `kind` (a `Struct` with `forbid_unknown_fields=True`). Raises `BadRequest` with the field."""
    try:
        return _decoder(kind).decode(body)  # type: ignore[no-any-return, arg-type]
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from None
    except UnicodeDecodeError:
        raise BadRequest("", "the body is not JSON: it is not UTF-8") from None
    except RecursionError:
        raise BadRequest("", "the body is nested too deeply") from None
    except msgspec.DecodeError as error:
        why = "a string holds half of a surrogate pair, which is no character" if _torn(body) else str(error)
        raise BadRequest("", f"the body is not JSON: {why}") from None


def _torn(body: bytes) -> bool:
    """Whether escapes in a string name a character by half, as where a program cut an emoji in two."""
    return _HALF.search(_PAIR.sub(b"", body)) is not None


def convert(value: object, kind: type[T]) -> T:
    """As `decode`, of what has been parsed already."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from None


def parse(body: bytes) -> dict[str, Any]:
    """A JSON body that must be an object."""
    return decode(body, dict[str, Any])


def _bad(said: str) -> BadRequest:
    at = _AT.search(said)
    path = at[1] if at else ""
    message = said[: at.start()] if at else said
    unknown, missing = _UNKNOWN.search(message), _MISSING.search(message)
    if unknown:
        field = join(path, unknown[1])
        return BadRequest(field, "there is no such field", Kind.UNKNOWN_FIELD)
    if missing:
        return BadRequest(join(path, missing[1]), "is required")
    return BadRequest(path, message[:1].lower() + message[1:])


def join(path: str, name: str) -> str:
    """The field `name` within `path`."""
    return f"{path}.{name}" if path else name


def within(field: str, value: float | None, least: float, most: float) -> None:
    """Raises `BadRequest` where a given number is out of its range, or not finite."""
    if value is not None and not least <= value <= most:
        # Whole numbers have no end in JSON.
        huge = isinstance(value, int) and value.bit_length() > 64
        got = "far more or less" if huge else f"{value:g}"
        raise BadRequest(field, f"must be from {least:g} to {most:g}, got {got}")


def image_of(url: str, field: str) -> Image:
    """The image behind a URL: the bytes of a data URL, else the URL itself, for the server to fetch.

    Raises `BadRequest` for a broken data URL, and for what is no http(s) URL.
    """
    if url.startswith("data:"):
        head, comma, data = url.partition(",")
        if not comma or not head.endswith(";base64"):
            raise BadRequest(field, "a data URL must be data:image/...;base64,...")
        return Image(data=base64_of(data, field))
    if not url.startswith(("http://", "https://")):
        raise BadRequest(field, "must be a data URL or an http(s) URL")
    return Image(url=url)


def base64_of(data: str, field: str) -> bytes:
    """The bytes of base64 text, standard or URL-safe, on one line or several, padded or not.

    Raises `BadRequest` where it is none, or empty.
    """
    plain = data.translate(_STANDARD)
    try:
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(field, "is not base64") from None
    if not raw:
        raise BadRequest(field, "is empty")
    return raw
