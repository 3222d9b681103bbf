"""A call's arguments -> `Asked`: the options of `puter.ai.chat`.

Fields are named as users of the client write them, without the envelope's `args`. The messages are read in
`wire.puter.messages`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from magister.types import ChatRequest, Effort, JsonFormat, Sampling, Tool
from magister.wire.dialect import Asked
from magister.wire.fault import BadRequest, Kind
from magister.wire.puter.envelope import Arguments, open_envelope, part_of
from magister.wire.puter.messages import messages_of
from magister.wire.reading import within

_PROVIDERS = frozenset({"auto", "magister", "mistral", "mistralai"})
_CANNOT = {
    "image_config": "the answer is text",
    "compaction": "conversations are not compacted here; leave old messages out yourself",
    "context_management": "conversations are not compacted here; leave old messages out yourself",
}


class _Function(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(msgspec.Struct, forbid_unknown_fields=True):
    function: _Function
    type: str = "function"


class _ClaudeTool(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    type: str = "custom"
    cache_control: Any = None


class _Schema(msgspec.Struct, forbid_unknown_fields=True):
    schema: dict[str, Any] | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class _Format(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    json_schema: _Schema | None = None


def read_request(body: bytes, model: str = "", stream: bool = False) -> Asked:
    """What a body asks for; it names model and stream itself. Raises `BadRequest`."""
    envelope = open_envelope(body)
    said = envelope.args
    for name, why in _CANNOT.items():
        if getattr(said, name):
            raise BadRequest(name, why)
    if said.provider is not None and said.provider not in _PROVIDERS:
        raise BadRequest("provider", f"all models here are this server's own (magister), not {said.provider!r}")
    if said.normalize is False:
        raise BadRequest("normalize", "there is one shape here, the one that true asks for")
    within("temperature", said.temperature, 0, 2)
    within("max_tokens", said.max_tokens, 1, 1 << 31)
    sampling = {"temperature": said.temperature, "max_tokens": said.max_tokens}
    given = {name: value for name, value in sampling.items() if value is not None}
    chat = ChatRequest(
        messages=messages_of(said.messages),
        model=said.model or model,
        tools=tuple(_tool(tool, f"tools[{at}]") for at, tool in enumerate(said.tools or ())),
        json_format=_json_format(said),
        sampling=Sampling(**given),  # type: ignore[arg-type]
        effort=_effort(said),
    )
    echo: dict[str, Any] = {"normalized": True} if said.normalize else {}
    if envelope.test_mode or said.test_mode:
        echo["test_mode"] = True
    return Asked(chat=chat, given=frozenset(given), stream=bool(said.stream), echo=echo)


def wants_test(asked: Asked) -> bool:
    """Whether the caller wants Puter's test mode: a fixed answer that no model made (`answer.TEST_EVENTS`)."""
    return bool(asked.echo.get("test_mode"))


def _effort(said: Arguments) -> Effort | None:
    words = {"reasoning_effort": said.reasoning_effort}
    if said.reasoning is not None:
        for name in said.reasoning:
            if name != "effort":
                raise BadRequest(f"reasoning.{name}", "there is effort only", Kind.UNKNOWN_FIELD)
        words["reasoning.effort"] = said.reasoning.get("effort")
    found: Effort | None = None
    for field, word in words.items():
        if word is None:
            continue
        if word not in set(Effort):
            raise BadRequest(field, f"must be one of {', '.join(Effort)}, got {word!r}")
        if found is not None and found != word:
            raise BadRequest(field, f"is said twice: {found.value!r} and {word!r}")
        found = Effort(word)
    return found


def _json_format(said: Arguments) -> JsonFormat | None:
    """`response` as OpenAI's response_format, `text.format` as its Responses have it; `verbosity` asks for nothing."""
    text = said.text or {}
    for name in text:
        if name not in ("verbosity", "format"):
            raise BadRequest(f"text.{name}", "there are verbosity and format only", Kind.UNKNOWN_FIELD)
    for field, word in (("verbosity", said.verbosity), ("text.verbosity", text.get("verbosity"))):
        if word not in (None, "medium"):
            raise BadRequest(field, f"say in the prompt how long the answer may be; medium only, got {word!r}")
    formats = [(field, value) for field, value in (("response", said.response), ("text.format", text.get("format")))
               if value]  # fmt: skip
    if len(formats) > 1:
        raise BadRequest("text.format", "is said twice, also as response")
    return _format(formats[0][1], formats[0][0]) if formats else None


def _format(value: Any, field: str) -> JsonFormat | None:
    if isinstance(value, dict) and value.get("type") == "json_schema" and "json_schema" not in value:
        value = {"type": "json_schema", "json_schema": {k: v for k, v in value.items() if k != "type"}}
    said = part_of(value, _Format, field)
    if said.type == "text":
        return None
    if said.type == "json_object":
        return JsonFormat()
    if said.type != "json_schema":
        raise BadRequest(f"{field}.type", f"must be text, json_object or json_schema, got {said.type!r}")
    if said.json_schema is None or said.json_schema.schema is None:
        raise BadRequest(f"{field}.json_schema.schema", "is required")
    return JsonFormat(said.json_schema.schema, said.json_schema.name or JsonFormat().name)


def _tool(value: Any, field: str) -> Tool:
    """OpenAI's shape, or Claude's."""
    none: dict[str, Any] = {"type": "object", "properties": {}}
    if isinstance(value, dict) and "input_schema" in value:
        claude = part_of(value, _ClaudeTool, field)
        if claude.type != "custom":
            raise BadRequest(f"{field}.type", "this server runs no tools of its own; declare a function")
        return Tool(claude.name, claude.input_schema, claude.description or "")
    if isinstance(value, dict) and value.get("type", "function") != "function":
        raise BadRequest(f"{field}.type", "this server runs no tools of its own; declare a function")
    said = part_of(value, _Tool, field).function
    return Tool(said.name, said.parameters or none, said.description or "")
