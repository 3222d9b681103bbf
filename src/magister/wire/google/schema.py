"""Google's Schema, an old OpenAPI's, as JSON Schema: types in capitals, `nullable`, numbers as strings, an order.

Knows what the two formats have in common and where they differ; nothing of requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from magister.wire.fault import BadRequest, Kind
from magister.wire.google.body import camel
from magister.wire.reading import join

_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})
_KEPT = frozenset({"title", "description", "enum", "required", "pattern", "minimum", "maximum", "default"})
_COUNTS = frozenset({"minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength"})
_LISTS = frozenset({"anyOf", "prefixItems"})
_FORMATS = frozenset({"date-time", "date", "time", "duration", "email", "uuid", "uri", "ipv4", "ipv6"})
"""Those that JSON Schema knows too; the others (`int32`, `double`, `enum`) say nothing about the text."""


def to_json_schema(schema: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The JSON Schema that admits the same values. Raises `BadRequest` for a key that Schema does not have."""
    made: dict[str, Any] = {}
    nullable, order = False, None
    for key, value in schema.items():
        name, at = camel(key), join(field, key)
        if value is None:
            continue
        if name == "type":
            _add_type(made, value, at)
        elif name in _KEPT:
            made[name] = value
        elif name in _COUNTS:
            made[name] = _count(value, at)
        elif name in _LISTS:
            made[name] = [_inner(one, f"{at}[{index}]") for index, one in enumerate(_list(value, at))]
        elif name in ("properties", "defs", "$defs"):
            made["properties" if name == "properties" else "$defs"] = {
                inner: _inner(one, join(at, inner)) for inner, one in _object(value, at).items()
            }
        elif name == "items":
            made[name] = _inner(value, at)
        elif name == "additionalProperties":
            made[name] = value if isinstance(value, bool) else _inner(value, at)
        elif name in ("ref", "$ref"):
            made["$ref"] = str(value).replace("#/defs/", "#/$defs/")
        elif name == "format":
            made.update({"format": value} if value in _FORMATS else {})
        elif name == "example":
            made["examples"] = [value]
        elif name == "nullable":
            nullable = bool(value)
        elif name == "propertyOrdering":
            order = [str(one) for one in _list(value, at)]
        else:
            raise BadRequest(at, "there is no such field in a Schema; JSON Schema goes elsewhere", Kind.UNKNOWN_FIELD)
    if order is not None:
        made["properties"] = _ordered(made.get("properties", {}), order, field)
    return _with_null(made) if nullable else made


def _add_type(made: dict[str, Any], value: Any, at: str) -> None:
    names = [str(one).lower() for one in value] if isinstance(value, list) else [str(value).lower()]
    if not names:
        raise BadRequest(at, "must name a type")
    for name in names:
        if name == "type_unspecified":
            return
        if name not in _TYPES:
            raise BadRequest(at, f"{value!r} is no type; types are {', '.join(sorted(_TYPES)).upper()}")
    if not names:
        raise BadRequest(at, "must not be empty")
    made["type"] = names if len(names) > 1 else names[0]


def _with_null(made: dict[str, Any]) -> dict[str, Any]:
    if isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    if "anyOf" in made:
        made["anyOf"] = [*made["anyOf"], {"type": "null"}]
    if "enum" in made and None not in made["enum"]:
        made["enum"] = [*made["enum"], None]
    return made


def _ordered(properties: dict[str, Any], order: list[str], field: str) -> dict[str, Any]:
    """A grammar writes properties in the order they stand in."""
    missing = [name for name in order if name not in properties]
    if missing:
        raise BadRequest(join(field, "propertyOrdering"), f"names {missing[0]!r}, which is no property")
    return {name: properties[name] for name in [*order, *(name for name in properties if name not in order)]}


def _inner(value: Any, at: str) -> dict[str, Any]:
    return to_json_schema(_object(value, at), at)


def _object(value: Any, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(at, "must be an object")
    return value


def _list(value: Any, at: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadRequest(at, "must be a list")
    return value


def _count(value: Any, at: str) -> int:
    """Google's JSON writes 64-bit numbers as strings."""
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadRequest(at, f"must be a whole number, got {text[:40]}")
    return int(text)
