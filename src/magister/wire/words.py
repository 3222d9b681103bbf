"""What clients of each dialect call the fields of a request, for errors found behind the wire. Knows only names."""

from __future__ import annotations

import re
from collections.abc import Mapping

_CONFIG = "generationConfig"
_WORDS: Mapping[str, Mapping[str, str]] = {
    "openai_chat": {
        "json_format": "response_format",
        "effort": "reasoning_effort",
        "thinking_tokens": "reasoning.max_tokens",
        "ignore_end": "ignore_eos",
    },
    "openai_completions": {"messages": "prompt", "top_logprobs": "logprobs", "ignore_end": "ignore_eos"},
    "openai_responses": {
        "messages": "input",
        "json_format": "text.format",
        "effort": "reasoning.effort",
        "thinking_tokens": "reasoning.effort",
        "max_tokens": "max_output_tokens",
    },
    "anthropic": {
        "json_format": "output_config.format",
        "effort": "output_config.effort",
        "thinking_tokens": "thinking.budget_tokens",
        "stop": "stop_sequences",
    },
    "google": {
        "messages": "contents",
        "json_format": f"{_CONFIG}.responseJsonSchema",
        "effort": f"{_CONFIG}.thinkingConfig.thinkingLevel",
        "thinking_tokens": f"{_CONFIG}.thinkingConfig.thinkingBudget",
        "tool_choice": "toolConfig",
        "temperature": f"{_CONFIG}.temperature",
        "top_p": f"{_CONFIG}.topP",
        "top_k": f"{_CONFIG}.topK",
        "presence_penalty": f"{_CONFIG}.presencePenalty",
        "frequency_penalty": f"{_CONFIG}.frequencyPenalty",
        "seed": f"{_CONFIG}.seed",
        "n": f"{_CONFIG}.candidateCount",
        "max_tokens": f"{_CONFIG}.maxOutputTokens",
        "stop": f"{_CONFIG}.stopSequences",
        "logprobs": f"{_CONFIG}.responseLogprobs",
        "top_logprobs": f"{_CONFIG}.logprobs",
    },
    "mistral": {"json_format": "response_format", "effort": "reasoning_effort", "seed": "random_seed"},
    "puter": {"json_format": "response", "effort": "reasoning_effort", "thinking_tokens": "reasoning"},
}
_ONE_TO_ONE = frozenset({"openai_chat", "mistral"})
"""Dialects whose messages are ours, one by one (but for those in which the assistant says nothing); elsewhere their
numbers differ, and the part is lost everywhere.
"""
_SCHEMAS = {"anthropic": ".input_schema", "openai_responses": ".parameters"}
"""What stands for `.parameters` of a tool, where it is not OpenAI's word."""
_HEAD = re.compile(r"[a-z_]+")
_PART = re.compile(r"\.parts\[\d+\]")


def spelled(field: str, dialect: str) -> str:
    """A field of `ChatRequest` or `Sampling`, perhaps with a path behind it, as a client of the dialect wrote it."""
    plain = field.removeprefix("sampling.")
    found = _HEAD.match(plain)
    if found is None:
        return plain
    head, rest = found[0], plain[found.end() :]
    if head == "messages":
        rest = _PART.sub(".content", rest) if dialect in _ONE_TO_ONE else ""
    if head == "tools":
        # Google's tools are lists of declarations, so numbers differ there too.
        own = _SCHEMAS.get(dialect, ".function.parameters")
        rest = "" if dialect == "google" else rest.replace(".parameters", own)
    word = _WORDS.get(dialect, {}).get(head)
    # What stands behind a name of ours says nothing behind another's.
    return head + rest if word is None else word
