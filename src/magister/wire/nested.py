"""Values within a body, converted one by one, with errors that name the whole path. Knows no dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from magister.wire.fault import BadRequest
from magister.wire.reading import convert

T = TypeVar("T")


def convert_at(value: object, kind: type[T], field: str) -> T:
    """As `reading.convert`, of the value of a field."""
    try:
        return convert(value, kind)
    except BadRequest as error:
        told = error.fault
        inner = told.field if told.field.startswith("[") or not told.field else f".{told.field}"
        raise BadRequest(field + inner, told.message.removeprefix(f"{told.field}: "), told.kind) from None


def kind_of(value: Mapping[str, Any], field: str, otherwise: str = "") -> str:
    """The `type` of one of several kinds of values."""
    kind = value.get("type", otherwise)
    if not isinstance(kind, str) or not kind:
        raise BadRequest(f"{field}.type", "is required")
    return kind


def refuse(said: msgspec.Struct, field: str, cannot: Mapping[str, str]) -> None:
    """Raises `BadRequest` for a field of `cannot` (each with why) that asks for something."""
    for name, why in cannot.items():
        if getattr(said, name):
            raise BadRequest(f"{field}.{name}" if field else name, why)
