"""Which dialect a path means, and for the paths that several dialects share, which client is calling.

Explicit prefixes exist, so that nobody depends on headers: /openai/v1, /anthropic, /google, /mistral/v1, /v3/compat.
Knows nothing of bodies.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple
from urllib.parse import unquote

from magister.server.asgi import Scope, header


class Act(StrEnum):
    """What is asked for."""

    CHAT = "chat"
    COMPLETION = "completion"
    COUNT = "count"
    MODELS = "models"
    MODEL = "model"


class Target(NamedTuple):
    """A path, understood."""

    act: Act
    dialect: str
    """Its module's name in `wire`."""
    method: str
    model: str = ""
    """In the path, where the dialect has it there."""
    stream: bool = False


_PREFIXES = (
    ("/openai/v1/", "openai"),
    ("/mistral/v1/", "mistral"),
    ("/v3/compat/", "openai"),
    ("/anthropic/v1/", "anthropic"),
    ("/google/v1beta/", "google"),
    ("/google/v1/", "google"),
    ("/v1beta/", "google"),
    ("/v1/", ""),
)
PREFIXES = tuple(prefix for prefix, _ in _PREFIXES)

_POSTS = {
    "chat/completions": (Act.CHAT, "openai_chat", ("", "openai", "mistral")),
    "responses": (Act.CHAT, "openai_responses", ("", "openai")),
    "completions": (Act.COMPLETION, "openai_completions", ("", "openai")),
    "messages": (Act.CHAT, "anthropic", ("", "anthropic")),
    "messages/count_tokens": (Act.COUNT, "anthropic", ("", "anthropic")),
}
_GOOGLE = {
    "generateContent": (Act.CHAT, False),
    "streamGenerateContent": (Act.CHAT, True),
    "countTokens": (Act.COUNT, False),
}


def find(scope: Scope) -> Target | None:
    """What a path means; None where it is none of the dialects'."""
    path: str = scope["path"]
    if path == "/drivers/call":
        return Target(Act.CHAT, "puter", "POST")
    for prefix, family in _PREFIXES:
        if path.startswith(prefix):
            return _within(scope, family, path[len(prefix) :])
    return None


def _within(scope: Scope, family: str, rest: str) -> Target | None:
    if rest in _POSTS:
        act, dialect, families = _POSTS[rest]
        if family not in families:
            return None
        if dialect == "openai_chat" and (family == "mistral" or (not family and _is_mistral(scope))):
            dialect = "mistral"
        return Target(act, dialect, "POST")
    if rest == "models" or rest == "models/":
        return Target(Act.MODELS, _lister(scope, family), "GET")
    if not rest.startswith("models/"):
        return None
    name = unquote(rest.removeprefix("models/"))
    plain, colon, verb = name.rpartition(":")
    if family in ("", "google") and colon and verb in _GOOGLE:
        act, stream = _GOOGLE[verb]
        return Target(act, "google", "POST", plain, stream)
    return Target(Act.MODEL, _lister(scope, family), "GET", name)


def _is_mistral(scope: Scope) -> bool:
    return header(scope, b"user-agent").startswith("mistral-client-")


def _lister(scope: Scope, family: str) -> str:
    """The dialect in which a client wants its models."""
    if family:
        return "openai_chat" if family == "openai" else family
    if header(scope, b"anthropic-version"):
        return "anthropic"
    if header(scope, b"x-goog-api-key") or b"key=" in scope["query_string"]:
        return "google"
    return "mistral" if _is_mistral(scope) else "openai_chat"
