"""`Asked` -> the body of La Plateforme's chat, for a server of this dialect. What it has no word for is refused."""

from __future__ import annotations

from typing import Any

import msgspec

from magister.types import ChatRequest, Refused, Role, SystemPrompt, ToolCall
from magister.wire.dialect import Asked
from magister.wire.openai_chat.ask import (
    call_body,
    check_speech,
    format_body,
    part_body,
    plain,
    results_body,
    sampling_body,
    tools_body,
)

_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "n": "n",
    "seed": "random_seed",
    "max_tokens": "max_tokens",
    "stop": "stop",
    "logprobs": "logprobs",
    "top_logprobs": "top_logprobs",
}


def write_request(asked: Asked) -> bytes:
    """The body. Raises `Refused` with the field."""
    chat = asked.chat
    if not asked.show_thinking:
        raise Refused("show_thinking", "this dialect always shows thoughts")
    if not chat.keep_thinking:
        raise Refused("keep_thinking", "this dialect cannot ask for it; leave the thoughts out of the messages")
    body: dict[str, Any] = {"model": chat.model, "messages": _messages(chat), "stream": asked.stream}
    body |= sampling_body(chat.sampling, asked.given, _SAMPLING)
    if chat.system_prompt is SystemPrompt.REPLACE:
        body["prompt_mode"] = None
    if chat.effort is not None:
        body["reasoning_effort"] = chat.effort
    labels = dict(asked.labels)
    if "prompt_cache_key" in labels:
        body["prompt_cache_key"] = labels.pop("prompt_cache_key")
    if labels:
        body["metadata"] = labels
    return msgspec.json.encode(body | tools_body(chat, "any") | format_body(chat))


def _messages(chat: ChatRequest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for at, message in enumerate(chat.messages):
        field = f"messages[{at}]"
        if message.role is Role.TOOL:
            found += results_body(message, field)
            continue
        assistant = message.role is Role.ASSISTANT
        if assistant:
            check_speech(message, field)
        parts = [(f"{field}.parts[{n}]", part) for n, part in enumerate(message.parts)]
        content = [part_body(part, message.role, place) for place, part in parts if not isinstance(part, ToolCall)]
        said: dict[str, Any] = {"role": message.role, "content": plain(content) or "" if assistant else plain(content)}
        if message.tool_calls:
            said["tool_calls"] = [call_body(call) for call in message.tool_calls]
        if assistant and at + 1 == len(chat.messages):
            said["prefix"] = True
        found.append(said)
    return found
