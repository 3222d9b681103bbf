"""The pages people look at: a chat box, the API described. Rendered here; their scripts are this project's own.

Knows no engine; asks the server's own API like everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import msgspec

from magister.server.app import Call, Page, Small
from magister.server.asgi import header
from magister.server.exchange import House
from magister.server.openapi import document
from magister.types import Effort

_HTML = "text/html; charset=utf-8"
_STATIC = {"style.css": "text/css; charset=utf-8", "home.js": "text/javascript; charset=utf-8"}
_SAFE = (
    ("content-security-policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
)
BASES = (
    ("OpenAI", "/v1"),
    ("Anthropic", ""),
    ("Google", ""),
    ("Mistral", ""),
    ("Puter (PUTER_API_ORIGIN)", ""),
)


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("magister.server"), autoescape=True, undefined=jinja2.StrictUndefined
    )


def pages(house: House) -> Mapping[tuple[str, str], Small]:
    """(method, path) -> what shows it."""

    def render(name: str, call: Call, **values: Any) -> Page:
        origin = f"{call.scope.get('scheme', 'http')}://{header(call.scope, b'host')}"
        models = [card.name for card in house.models.cards]
        html = _templates().get_template(name).render(origin=origin, models=models, **values)
        return Page(html.encode(), _HTML, headers=_SAFE)

    async def home(call: Call) -> Page:
        keyed = house.access.keys is not None
        return render("home.html", call, title="Magister", efforts=[*Effort], keyed=keyed)

    async def docs(call: Call) -> Page:
        return render("docs.html", call, title="Magister: the API", bases=BASES, paths=_shown())

    async def openapi(call: Call) -> Page:
        return Page(msgspec.json.encode(document()))

    found: dict[tuple[str, str], Small] = {
        ("GET", "/"): home,
        ("GET", "/docs"): docs,
        ("GET", "/openapi.json"): openapi,
    }
    for name, content_type in _STATIC.items():
        found["GET", f"/static/{name}"] = _static(name, content_type)
    return found


def _static(name: str, content_type: str) -> Small:
    async def show(call: Call) -> Page:
        data = (resources.files("magister.server") / "static" / name).read_bytes()
        return Page(data, content_type, headers=_SAFE)

    return show


def _shown() -> list[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """The document's paths as the template wants them."""
    described = document()
    schemas = described["components"]["schemas"]
    shown = []
    for path, methods in described["paths"].items():
        operations = []
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {})
            reference = next((one["schema"].get("$ref", "") for one in body.values()), "")
            properties = schemas.get(reference.rpartition("/")[2], {}).get("properties", {})
            fields = [(name, _kind(schema)) for name, schema in properties.items()]
            operations.append((method, {**operation, "fields": fields}))
        shown.append((path, operations))
    return shown


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = schema.get("type", "any")
    return f"list of {_kind(schema['items'])}" if kind == "array" and "items" in schema else str(kind)
