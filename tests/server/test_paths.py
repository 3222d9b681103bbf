"""Every SDK's paths, and which client is meant where they share one."""

from typing import Any

import pytest

from magister.server.paths import Act, Target, find


def scope(path: str, query: str = "", **headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        (scope("/v1/chat/completions"), Target(Act.CHAT, "openai_chat", "POST")),
        (scope("/v3/compat/chat/completions"), Target(Act.CHAT, "openai_chat", "POST")),
        (scope("/openai/v1/responses"), Target(Act.CHAT, "openai_responses", "POST")),
        (scope("/v1/completions"), Target(Act.COMPLETION, "openai_completions", "POST")),
        (
            scope("/v1/chat/completions", user_agent="mistral-client-python/3.7.0"),
            Target(Act.CHAT, "mistral", "POST"),
        ),
        (scope("/mistral/v1/chat/completions"), Target(Act.CHAT, "mistral", "POST")),
        (scope("/v1/messages"), Target(Act.CHAT, "anthropic", "POST")),
        (scope("/anthropic/v1/messages/count_tokens"), Target(Act.COUNT, "anthropic", "POST")),
        (
            scope("/v1/models/nano:generateContent"),
            Target(Act.CHAT, "google", "POST", "nano"),
        ),
        (
            scope("/v1beta/models/nano:high:streamGenerateContent", query="alt=sse"),
            Target(Act.CHAT, "google", "POST", "nano:high", True),
        ),
        (
            scope("/google/v1beta/models/mistralai%2Fmagistral-small-2509:countTokens"),
            Target(Act.COUNT, "google", "POST", "mistralai/magistral-small-2509"),
        ),
        (scope("/drivers/call"), Target(Act.CHAT, "puter", "POST")),
        (scope("/v1/models"), Target(Act.MODELS, "openai_chat", "GET")),
        (scope("/v1/models", anthropic_version="2026-10-21"), Target(Act.MODELS, "anthropic", "GET")),
        (scope("/v1/models", x_goog_api_key="k"), Target(Act.MODELS, "google", "GET")),
        (scope("/v1/models", query="key=k"), Target(Act.MODELS, "google", "GET")),
        (
            scope("/v1/models", user_agent="mistral-client-typescript/2.7.0"),
            Target(Act.MODELS, "mistral", "GET"),
        ),
        (scope("/v1beta/models"), Target(Act.MODELS, "google", "GET")),
        (
            scope("/v1/models/mistralai/magistral-small-2509"),
            Target(Act.MODEL, "openai_chat", "GET", "mistralai/magistral-small-2509"),
        ),
        (scope("/openai/v1/models", anthropic_version="x"), Target(Act.MODELS, "openai_chat", "GET")),
        (scope("/anthropic/v1/models"), Target(Act.MODELS, "anthropic", "GET")),
    ],
)
def test_paths(asked: dict[str, Any], target: Target) -> None:
    assert find(asked) == target


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v2/chat/completions", "/anthropic/v1/chat/completions", "/mistral/v1/messages", "/v1/nothing"],
)
def test_other_paths_are_none_of_theirs(path: str) -> None:
    assert find(scope(path)) is None
