"""`Asked` -> the body of generateContent that asks for it.

Knows what Google's words can say; what they cannot is refused by name, never left out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from magister.types import (
    Effort,
    Image,
    JsonFormat,
    Message,
    Part,
    Refused,
    Role,
    Sampling,
    SystemPrompt,
    Text,
    Thinking,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
)
from magister.wire.dialect import Asked
from magister.wire.media import media_type

_DEFAULT = Sampling()
_WORDS = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
    "stop": "stopSequences",
}
_LEVELS = frozenset({Effort.MINIMAL, Effort.LOW, Effort.MEDIUM, Effort.HIGH})


def write_request(asked: Asked) -> bytes:
    """The body; model and stream go into the path. Raises `Refused`."""
    chat = asked.chat
    if chat.system_prompt is not SystemPrompt.ADD:
        raise Refused("system_prompt", "Google has no word for leaving the model's own instruction out")
    if not chat.keep_thinking:
        raise Refused("keep_thinking", "Google has no word for it")
    if not asked.usage_at_end:
        raise Refused("usage_at_end", "Google always tells what a stream cost")
    if asked.echo:
        raise Refused("echo", "Google's replies repeat nothing of the request")
    body: dict[str, Any] = {}
    messages = list(chat.messages)
    if messages and messages[0].role is Role.SYSTEM:
        body["systemInstruction"] = {"parts": _system(messages[0])}
    names: dict[str, str] = {}
    start = int("systemInstruction" in body)
    body["contents"] = [
        _content(message, f"messages[{at}]", names, messages[at - 1] if at else None)
        for at, message in enumerate(messages)
        if at >= start
    ]
    if chat.tools:
        body["tools"] = [{"functionDeclarations": [_tool(tool) for tool in chat.tools]}]
    if chat.tool_choice != ToolChoice():
        body["toolConfig"] = {"functionCallingConfig": _choice(chat.tool_choice)}
    config = _sampling(chat.sampling, asked.given) | _format(chat.json_format)
    thinking = _thinking(chat.effort, chat.sampling.thinking_tokens, asked.show_thinking)
    if thinking:
        config["thinkingConfig"] = thinking
    if config:
        body["generationConfig"] = config
    if asked.labels:
        body["labels"] = asked.labels
    return msgspec.json.encode(body)


def _system(message: Message) -> list[dict[str, Any]]:
    said = []
    for at, part in enumerate(message.parts):
        if not isinstance(part, Text):
            raise Refused(f"messages[0].parts[{at}]", "Google's instructions are text")
        said.append({"text": part.text})
    if not message.text:
        raise Refused("messages[0].parts", "Google takes no empty instruction")
    return said


def _content(message: Message, field: str, names: dict[str, str], before: Message | None) -> dict[str, Any]:
    if not message.parts:
        raise Refused(f"{field}.parts", "Google takes no empty turn")
    match message.role:
        case Role.SYSTEM:
            raise Refused(f"{field}.role", "Google has one instruction, before everything else")
        case Role.USER:
            told = [_user(part, f"{field}.parts[{at}]") for at, part in enumerate(message.parts)]
            return {"role": "user", "parts": told}
        case Role.TOOL:
            told = [_result(part, f"{field}.parts[{at}]", names) for at, part in enumerate(message.parts)]
            return {"role": "user", "parts": told}
        case Role.ASSISTANT:
            if before is not None and before.role is Role.ASSISTANT:
                raise Refused(field, "Google joins the turns of a model that follow one another")
            _check_normal(message.parts, field)
            told = [_said(part, f"{field}.parts[{at}]", names) for at, part in enumerate(message.parts)]
            first, call = told[0], next((one for one in told if "functionCall" in one), None)
            # Google's own servers look for it there.
            if call is not None and "thoughtSignature" in first:
                call["thoughtSignature"] = first["thoughtSignature"]
            return {"role": "model", "parts": told}


def _check_normal(parts: Sequence[Part], field: str) -> None:
    """One thought, one text, then calls: read back, Google's parts become just that."""
    order = [(Thinking, Text, ToolCall).index(type(part)) if type(part) in (Thinking, Text, ToolCall) else 3
             for part in parts]  # fmt: skip
    if 3 in order or order != sorted(order) or order.count(0) > 1 or order.count(1) > 1:
        raise Refused(f"{field}.parts", "must be at most one thought, at most one text, then calls")


def _user(part: Part, field: str) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"text": part.text}
    if isinstance(part, Image) and part.data:
        kind = media_type(part.data, field)
        return {"inlineData": {"mimeType": kind, "data": base64.b64encode(part.data).decode()}}
    if isinstance(part, Image):
        return {"fileData": {"fileUri": part.url}}
    raise Refused(field, "a user's turn holds texts and images")


def _said(part: Part, field: str, names: dict[str, str]) -> dict[str, Any]:
    if isinstance(part, ToolCall):
        names[part.id] = part.name
        return {"functionCall": {"id": part.id, "name": part.name, "args": _arguments(part, field)}}
    if isinstance(part, Thinking):
        if not part.closed:
            raise Refused(f"{field}.closed", "Google has no word for a thought that goes on")
        signed = {} if part.signature is None else {"thoughtSignature": part.signature}
        return {"text": part.text, "thought": True, **signed}
    assert isinstance(part, Text)
    if not part.text:
        raise Refused(f"{field}.text", "an empty text is nothing to Google")
    return {"text": part.text}


def _arguments(call: ToolCall, field: str) -> dict[str, Any]:
    try:
        said = json.loads(call.arguments)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Refused(f"{field}.arguments", "Google takes a JSON object")
    return said


def _result(part: Part, field: str, names: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(part, ToolResult):
        raise Refused(field, "a tool's turn holds results")
    if part.call_id not in names:
        raise Refused(f"{field}.call_id", f"no call {part.call_id!r} came before; Google asks for its name")
    key = "error" if part.is_error else "output"
    return {"functionResponse": {"id": part.call_id, "name": names[part.call_id], "response": {key: part.content}}}


def _tool(tool: Any) -> dict[str, Any]:
    about = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **about, "parametersJsonSchema": tool.parameters}


def _choice(choice: ToolChoice) -> dict[str, Any]:
    if not choice.parallel:
        raise Refused("tool_choice.parallel", "Google has no word for one call at most")
    match choice.mode:
        case ToolMode.AUTO:
            return {"mode": "AUTO"}
        case ToolMode.NONE:
            return {"mode": "NONE"}
        case ToolMode.REQUIRED:
            return {"mode": "ANY"}
        case ToolMode.NAMED:
            return {"mode": "ANY", "allowedFunctionNames": [choice.name]}


def _sampling(sampling: Sampling, given: frozenset[str]) -> dict[str, Any]:
    """What the client set, or what differs from the default all the same."""
    config: dict[str, Any] = {}
    for name in Sampling.__struct_fields__:
        value = getattr(sampling, name)
        if name == "thinking_tokens" or (name not in given and value == getattr(_DEFAULT, name)):
            continue
        if name not in _WORDS:
            raise Refused(f"sampling.{name}", "Google has no word for it")
        if value is None or value == ():
            raise Refused(f"sampling.{name}", f"Google has no word for {value!r}")
        config[_WORDS[name]] = value
    return config


def _format(wanted: JsonFormat | None) -> dict[str, Any]:
    if wanted is None:
        return {}
    if wanted.name != JsonFormat().name:
        raise Refused("json_format.name", "Google's schemas have no name")
    schema = {} if wanted.schema is None else {"responseJsonSchema": wanted.schema}
    return {"responseMimeType": "application/json", **schema}


def _thinking(effort: Effort | None, tokens: int | None, show: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"includeThoughts": True} if show else {}
    if tokens is not None and effort is not None:
        raise Refused("effort", "is said twice: Google takes an effort or a number of tokens")
    if tokens == 0:
        raise Refused("sampling.thinking_tokens", "no thought at all is said as an effort of none")
    if tokens is not None:
        said["thinkingBudget"] = tokens
    elif effort is Effort.NONE:
        said["thinkingBudget"] = 0
    elif effort in _LEVELS:
        said["thinkingLevel"] = effort.value.upper()
    elif effort is not None:
        raise Refused("effort", f"Google has no level {effort.value!r}")
    return said
