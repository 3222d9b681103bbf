"""The input of Responses -> messages: items of text, images, thoughts, calls and results.

An assistant's items that follow one another are one message: its thought, its text and its calls, in that order,
whatever theirs was. So are results that follow one another; images among them are shown right after, as a user would.
Knows no sampling.
"""

from __future__ import annotations

from typing import Any

import msgspec

from magister.types import Image, Message, Part, Role, Text, Thinking, ToolCall, ToolResult
from magister.wire.fault import BadRequest
from magister.wire.nested import convert_at, kind_of
from magister.wire.openai_responses import body as openai
from magister.wire.reading import image_of
from magister.wire.signature import unseal

_RUNS_NO_TOOLS = "this server runs no tools of its own"
_KEEPS_NOTHING = "this server keeps no responses; send the items again"
_READ = ("message", "function_call", "function_call_output", "reasoning")
_CANNOT = {
    "item_reference": _KEEPS_NOTHING,
    "compaction": "conversations are not compacted here; send the items",
    "compaction_trigger": "conversations are not compacted here",
    "configuration_update": "send the configuration with the request",
    "additional_tools": "send all tools in tools",
    "tool_search_call": "tools are not searched here; send them in tools",
    "tool_search_output": "tools are not searched here; send them in tools",
    "custom_tool_call": "tools here are functions",
    "custom_tool_call_output": "tools here are functions",
}
_FILES = "files are not read here; send their text"
_CANNOT_PART = {"input_file": _FILES, "input_audio": "this server reads text and images, no sound"}

Json = dict[str, Any]


def messages_of(said: openai.Body, signing_key: bytes) -> tuple[Message, ...]:
    """The whole conversation, its instructions first. Raises `BadRequest`."""
    reader = _Reader(signing_key)
    if said.instructions:
        reader.told.append(Message(Role.SYSTEM, (Text(said.instructions),)))
    if said.input is None:
        raise BadRequest("input", "is required")
    if isinstance(said.input, str):
        reader.told.append(Message(Role.USER, (Text(said.input),)))
        return reader.end()
    if not said.input:
        raise BadRequest("input", "must not be empty")
    for at, item in enumerate(said.input):
        reader.read(item, f"input[{at}]", final=at == len(said.input) - 1)
    return reader.end()


class _Speech:
    """An assistant's message under construction."""

    def __init__(self) -> None:
        self.thoughts: list[Thinking] = []
        self.texts: list[str] = []
        self.calls: list[ToolCall] = []

    def message(self) -> Message:
        parts: list[Part] = []
        if len(self.thoughts) == 1:
            parts.append(self.thoughts[0])
        elif self.thoughts:
            text = "\n\n".join(thought.text for thought in self.thoughts)
            parts.append(Thinking(text, self.thoughts[-1].closed))
        if self.texts:
            parts.append(Text("\n\n".join(self.texts)))
        return Message(Role.ASSISTANT, (*parts, *self.calls))


class _Reader:
    """Items in, messages out."""

    def __init__(self, signing_key: bytes) -> None:
        self.told: list[Message] = []
        self._key = signing_key
        self._speech: _Speech | None = None
        self._results: list[ToolResult] = []
        self._shown: list[Image] = []
        """Images among the results, which hold text only."""
        self._asked: set[str] = set()
        self._waiting: dict[str, str] = {}

    def read(self, item: Json, field: str, *, final: bool) -> None:
        if "type" not in item and "role" not in item:
            # A reference may leave its type out.
            raise BadRequest(field, _KEEPS_NOTHING if set(item) == {"id"} else "needs a type or a role")
        match kind_of(item, field, "message"):
            case "message":
                self._message(convert_at(item, openai.Message, field), field)
            case "reasoning":
                self._think(convert_at(item, openai.Reasoning, field), final)
            case "function_call":
                self._call(convert_at(item, openai.FunctionCall, field), field)
            case "function_call_output":
                self._result(convert_at(item, openai.FunctionCallOutput, field), field)
            case kind:
                calls = kind.endswith(("_call", "_call_output")) or kind.startswith(("mcp_", "program"))
                why = _CANNOT.get(kind) or (_RUNS_NO_TOOLS if calls else f"must be one of {', '.join(_READ)}")
                raise BadRequest(f"{field}.type", f"{kind!r}: {why}")

    def end(self) -> tuple[Message, ...]:
        self._flush_speech()
        self._flush_results()
        for field in self._waiting.values():
            raise BadRequest(field, "no function_call_output answers this function_call")
        return tuple(self.told)

    def _flush_speech(self) -> None:
        if self._speech is not None and (message := self._speech.message()).parts:
            self.told.append(message)
        self._speech = None

    def _flush_results(self) -> None:
        if self._results:
            self.told.append(Message(Role.TOOL, tuple(self._results)))
        if self._shown:
            self.told.append(Message(Role.USER, tuple(self._shown)))
        self._results, self._shown = [], []

    def _speaking(self) -> _Speech:
        self._flush_results()
        self._speech = self._speech or _Speech()
        return self._speech

    def _message(self, said: openai.Message, field: str) -> None:
        at = f"{field}.content"
        if said.role == "assistant":
            text = "".join(text.text for text in _texts(said.content, at, ("output_text", "input_text", "refusal")))
            if text:
                self._speaking().texts.append(text)
            return
        self._flush_speech()
        self._flush_results()
        if not said.content and not isinstance(said.content, str):
            raise BadRequest(at, "must not be empty")
        if said.role == "user":
            self.told.append(Message(Role.USER, tuple(_user_parts(said.content, at))))
        else:
            self.told.append(Message(Role.SYSTEM, tuple(_texts(said.content, at, ("input_text",)))))

    def _think(self, said: openai.Reasoning, final: bool) -> None:
        """What is there of a thought: its text, else its sealed text, else its summary."""
        text = "".join(part.text for part in said.content or ())
        text = text or unseal(self._key, said.encrypted_content or "") or ""
        text = text or "\n\n".join(part.text for part in said.summary or ())
        speech = self._speaking()
        if text:
            closed = not (final and said.status == "incomplete")
            speech.thoughts.append(Thinking(text, closed, said.encrypted_content or None))

    def _call(self, said: openai.FunctionCall, field: str) -> None:
        if said.caller and said.caller.get("type") != "direct":
            raise BadRequest(f"{field}.caller", _RUNS_NO_TOOLS)
        if said.asynchronous:
            raise BadRequest(f"{field}.async", "the model waits for what its calls give back")
        if said.namespace:
            raise BadRequest(f"{field}.namespace", "functions have no namespaces here")
        if said.call_id in self._asked:
            raise BadRequest(f"{field}.call_id", f"{said.call_id!r} is there twice")
        # Some servers write nothing where a function takes nothing.
        arguments = said.arguments or "{}"
        try:
            msgspec.json.decode(arguments, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            raise BadRequest(f"{field}.arguments", "is no JSON object") from None
        self._asked.add(said.call_id)
        self._waiting[said.call_id] = field
        self._speaking().calls.append(ToolCall(said.call_id, said.name, arguments))

    def _result(self, said: openai.FunctionCallOutput, field: str) -> None:
        if said.call_id not in self._asked:
            raise BadRequest(f"{field}.call_id", f"no function_call {said.call_id!r} came before")
        if said.call_id not in self._waiting:
            raise BadRequest(f"{field}.call_id", f"the function_call {said.call_id!r} was answered already")
        del self._waiting[said.call_id]
        self._flush_speech()
        given = _user_parts(said.output, f"{field}.output")
        self._shown += [part for part in given if isinstance(part, Image)]
        content = "\n".join(part.text for part in given if isinstance(part, Text))
        self._results.append(ToolResult(said.call_id, content))


def _texts(content: str | list[Json], field: str, allowed: tuple[str, ...]) -> list[Text]:
    if isinstance(content, str):
        return [Text(content)]
    return [_text(part, f"{field}[{at}]", allowed) for at, part in enumerate(content)]


def _text(part: Json, field: str, allowed: tuple[str, ...]) -> Text:
    kind = kind_of(part, field)
    if kind not in allowed:
        why = _CANNOT_PART.get(kind, f"this place holds {', '.join(allowed)}")
        raise BadRequest(f"{field}.type", f"{kind!r}: {why}")
    if kind == "refusal":
        return Text(convert_at(part, openai.RefusalPart, field).refusal)
    return Text(convert_at(part, openai.TextPart, field).text)


def _user_parts(content: str | list[Json], field: str) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)]
    found: list[Part] = []
    for at, part in enumerate(content):
        inner = f"{field}[{at}]"
        if part.get("type") == "input_image":
            found.append(_image(convert_at(part, openai.ImagePart, inner), inner))
        else:
            found.append(_text(part, inner, ("input_text", "input_image")))
    return found


def _image(said: openai.ImagePart, field: str) -> Image:
    if said.file_id:
        raise BadRequest(f"{field}.file_id", "there are no stored files here; send the image in image_url")
    if said.image_url is None:
        raise BadRequest(f"{field}.image_url", "is required")
    if said.detail == "low":
        raise BadRequest(f"{field}.detail", "images are read as large as they are; send a smaller one")
    return image_of(said.image_url, f"{field}.image_url")
