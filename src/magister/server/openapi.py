"""The API as an OpenAPI document, made from the types that the bodies are read with, so it cannot say anything else."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec

from magister.server.tokens import DetokenizeBody, TokenizeBody
from magister.wire import google, mistral, openai_chat, openai_completions, puter
from magister.wire.anthropic import body as anthropic
from magister.wire.openai_responses import body as openai_responses

_JSON = "application/json"


def _bodies() -> dict[str, tuple[str, str, Any, str]]:
    """Path -> summary, description, type of the body, content type."""
    also = "Also under /openai/v1 and /v3/compat."
    google_path = "/v1beta/models/{model}"
    return {
        "/v1/chat/completions": ("OpenAI Chat Completions", also, openai_chat.BODY, _JSON),
        "/v1/responses": ("OpenAI Responses", also, openai_responses.Body, _JSON),
        "/v1/completions": ("OpenAI Completions", f"Text or token ids. {also}", openai_completions.BODY, _JSON),
        "/v1/messages": ("Anthropic Messages", "Also under /anthropic/v1.", anthropic.Body, _JSON),
        "/v1/messages/count_tokens": ("Anthropic: count tokens", "", anthropic.CountBody, _JSON),
        f"{google_path}:generateContent": ("Google", "Also under /v1 and /google.", google.BODY, _JSON),
        f"{google_path}:streamGenerateContent": ("Google, streamed", "Always SSE.", google.BODY, _JSON),
        f"{google_path}:countTokens": ("Google: count tokens", "", google.COUNT_BODY, _JSON),
        "/mistral/v1/chat/completions": (
            "Mistral chat",
            "Also at /v1/chat/completions for Mistral's own clients.",
            mistral.BODY,
            _JSON,
        ),
        "/drivers/call": ("Puter", "", puter.BODY, "text/plain;actually=json"),
        "/tokenize": ("Text to token ids", "", TokenizeBody, _JSON),
        "/detokenize": ("Token ids to text", "", DetokenizeBody, _JSON),
    }


_GETS = {
    "/v1/models": "The models, in the shape of whoever asks",
    "/v1/models/{model}": "One model",
    "/v1beta/models": "The models, in Google's shape",
    "/health": "Whether requests are answered",
    "/metrics": "Prometheus' text format",
    "/openapi.json": "This document",
}


@cache
def document() -> dict[str, Any]:
    """The whole document."""
    bodies = _bodies()
    schemas, components = msgspec.json.schema_components(
        [kind for _, _, kind, _ in bodies.values()], ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = {}
    for (path, (summary, description, _, content)), schema in zip(bodies.items(), schemas, strict=True):
        paths[path] = {
            "post": {
                "summary": summary,
                "description": description,
                "parameters": _parameters(path),
                "requestBody": {"required": True, "content": {content: {"schema": schema}}},
                "responses": {"200": {"description": "The answer"}, "4XX": {"description": "What is wrong"}},
            }
        }
    for path, summary in _GETS.items():
        paths[path] = {
            "get": {
                "summary": summary,
                "description": "",
                "parameters": _parameters(path),
                "responses": {"200": {"description": summary}, "4XX": {"description": "What is wrong"}},
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Magister", "version": version("magister")},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _parameters(path: str) -> list[dict[str, Any]]:
    if "{model}" not in path:
        return []
    return [{"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}]
