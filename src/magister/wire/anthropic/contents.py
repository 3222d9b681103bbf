"""Anthropic's messages -> messages: blocks of text, images, thoughts, calls and results.

An assistant's blocks become its thought, its text and its calls, in that order, whatever theirs was. Results become
a message of their own before the rest of the user's, which begins with the images among them. Knows no sampling.
"""

from __future__ import annotations

import json
from typing import Any

from magister.types import Image, Message, Part, Role, Text, Thinking, ToolCall, ToolResult
from magister.wire.anthropic import body as anthropic
from magister.wire.fault import BadRequest
from magister.wire.nested import convert_at, kind_of
from magister.wire.reading import base64_of, image_of
from magister.wire.signature import unseal

_RUNS_NO_TOOLS = "this server runs no tools of its own"
CANNOT = {
    "document": "documents are not read here; send their text",
    "search_result": "search results are not read here; send their text",
    "container_upload": "there are no containers here",
    "compaction": "conversations are not compacted here; send the messages",
    "tool_reference": "tools are not searched here; send them in tools",
    "browser_state": _RUNS_NO_TOOLS,
    "server_tool_use": _RUNS_NO_TOOLS,
    "web_search_tool_result": _RUNS_NO_TOOLS,
    "web_fetch_tool_result": _RUNS_NO_TOOLS,
    "code_execution_tool_result": _RUNS_NO_TOOLS,
    "bash_code_execution_tool_result": _RUNS_NO_TOOLS,
    "text_editor_code_execution_tool_result": _RUNS_NO_TOOLS,
    "tool_search_tool_result": _RUNS_NO_TOOLS,
    "mcp_tool_use": _RUNS_NO_TOOLS,
    "mcp_tool_result": _RUNS_NO_TOOLS,
}
"""Blocks that Anthropic has and this server does not read, each with why."""

Block = dict[str, Any]


def messages_of(said: anthropic.CountBody, signing_key: bytes) -> tuple[Message, ...]:
    """The whole conversation, its system prompt first. Raises `BadRequest`."""
    reader = _Reader(signing_key, len(said.messages))
    if said.system:
        reader.system(said.system, "system")
    if not said.messages:
        raise BadRequest("messages", "must not be empty")
    for at, message in enumerate(said.messages):
        reader.read(at, message)
    return reader.end()


class _Reader:
    """Messages in, messages out."""

    def __init__(self, signing_key: bytes, count: int) -> None:
        self._key, self._count = signing_key, count
        self._told: list[Message] = []
        self._asked: set[str] = set()
        self._waiting: dict[str, str] = {}

    def read(self, at: int, message: anthropic.Message) -> None:
        field = f"messages[{at}].content"
        final = at == self._count - 1
        if not message.content and not (final and message.role == "assistant"):
            raise BadRequest(field, "must not be empty")
        match message.role:
            case "system":
                self.system(message.content, field)
            case "user":
                self._user(message.content, field)
            case "assistant":
                self._assistant(message.content, field, final)

    def end(self) -> tuple[Message, ...]:
        for field in self._waiting.values():
            raise BadRequest(field, "no tool_result answers this tool_use")
        return tuple(self._told)

    def system(self, content: str | list[Block], field: str) -> None:
        texts = _texts(content, field)
        if texts:
            self._told.append(Message(Role.SYSTEM, tuple(texts)))

    def _user(self, content: str | list[Block], field: str) -> None:
        if isinstance(content, str):
            self._told.append(Message(Role.USER, (Text(content),)))
            return
        results: list[Part] = []
        shown: list[Part] = []
        rest: list[Part] = []
        for at, block in enumerate(content):
            inner = f"{field}[{at}]"
            match kind_of(block, inner):
                case "text":
                    rest.append(Text(_text(block, inner)))
                case "image":
                    rest.append(_image(block, inner))
                case "tool_result":
                    results.append(self._result(block, inner, shown))
                case kind:
                    raise _misplaced(kind, inner, "user", "text, image and tool_result")
        if results:
            self._told.append(Message(Role.TOOL, tuple(results)))
        if shown or rest:
            self._told.append(Message(Role.USER, (*shown, *rest)))

    def _result(self, block: Block, field: str, shown: list[Part]) -> ToolResult:
        """The texts of a result; its images are `shown` behind all results."""
        said = convert_at(block, anthropic.ToolResultBlock, field)
        if said.tool_use_id not in self._asked:
            raise BadRequest(f"{field}.tool_use_id", f"no tool_use {said.tool_use_id!r} came before")
        if said.tool_use_id not in self._waiting:
            raise BadRequest(f"{field}.tool_use_id", f"the tool_use {said.tool_use_id!r} was answered already")
        del self._waiting[said.tool_use_id]
        blocks: list[Block] = [] if isinstance(said.content, str) else said.content or []
        texts = [said.content] if isinstance(said.content, str) else []
        for at, inner in enumerate(blocks):
            place = f"{field}.content[{at}]"
            match kind_of(inner, place):
                case "text":
                    texts.append(_text(inner, place))
                case "image":
                    shown.append(_image(inner, place))
                case kind:
                    raise _misplaced(kind, place, "", "text and image")
        content = "\n".join(text for text in texts if text)
        return ToolResult(said.tool_use_id, content, is_error=bool(said.is_error))

    def _assistant(self, content: str | list[Block], field: str, final: bool) -> None:
        speech = _Speech(self._key)
        if isinstance(content, str):
            speech.texts.append(content)
        else:
            for at, block in enumerate(content):
                open_ended = final and at == len(content) - 1
                speech.add(block, f"{field}[{at}]", open_ended=open_ended)
        for call, inner in speech.calls:
            if call.id in self._asked:
                raise BadRequest(f"{inner}.id", f"{call.id!r} is there twice")
            self._asked.add(call.id)
            self._waiting[call.id] = inner
        parts = speech.parts()
        if parts:
            self._told.append(Message(Role.ASSISTANT, parts))


class _Speech:
    """An assistant's message under construction."""

    def __init__(self, signing_key: bytes) -> None:
        self.texts: list[str] = []
        self.calls: list[tuple[ToolCall, str]] = []
        self._key = signing_key
        self._thoughts: list[Thinking] = []

    def add(self, block: Block, field: str, *, open_ended: bool) -> None:
        """`open_ended`: the last block of the last message, where a thought without a signature goes on."""
        match kind_of(block, field):
            case "text":
                self.texts.append(_text(block, field))
            case "thinking":
                said = convert_at(block, anthropic.ThinkingBlock, field)
                self._think(said.thinking, said.signature or "", open_ended)
            case "redacted_thinking":
                self._think("", convert_at(block, anthropic.RedactedBlock, field).data, open_ended)
            case "tool_use":
                use = convert_at(block, anthropic.ToolUseBlock, field)
                if use.caller and use.caller.get("type") != "direct":
                    raise BadRequest(f"{field}.caller", _RUNS_NO_TOOLS)
                # As models write them, so that a replayed call is the call that was made.
                arguments = json.dumps(use.input, ensure_ascii=False)
                self.calls.append((ToolCall(use.id, use.name, arguments), field))
            case kind:
                raise _misplaced(kind, field, "assistant", "text, thinking, redacted_thinking and tool_use")

    def _think(self, text: str, signature: str, open_ended: bool) -> None:
        text = text or unseal(self._key, signature) or ""
        if text:
            self._thoughts.append(Thinking(text, bool(signature) or not open_ended, signature or None))

    def parts(self) -> tuple[Part, ...]:
        parts: list[Part] = []
        if len(self._thoughts) == 1:
            parts.append(self._thoughts[0])
        elif self._thoughts:
            text = "\n\n".join(thought.text for thought in self._thoughts)
            parts.append(Thinking(text, self._thoughts[-1].closed))
        text = "".join(self.texts)
        if text:
            parts.append(Text(text))
        return (*parts, *(call for call, _ in self.calls))


def _texts(content: str | list[Block], field: str) -> list[Text]:
    """The texts where nothing else may stand; empty ones say nothing."""
    if isinstance(content, str):
        return [Text(content)] if content else []
    found = []
    for at, block in enumerate(content):
        kind = kind_of(block, f"{field}[{at}]")
        if kind != "text":
            raise _misplaced(kind, f"{field}[{at}]", "", "text")
        found.append(Text(_text(block, f"{field}[{at}]")))
    return [text for text in found if text.text]


def _text(block: Block, field: str) -> str:
    said = convert_at(block, anthropic.TextBlock, field)
    if said.citations:
        raise BadRequest(f"{field}.citations", "citations are not read here; send the text alone")
    return said.text


def _image(block: Block, field: str) -> Image:
    said = convert_at(block, anthropic.ImageBlock, field)
    if said.transformations:
        raise BadRequest(f"{field}.transformations", "images are read as they are, within the model's limit")
    source, at = said.source, f"{field}.source"
    if source.type == "file":
        raise BadRequest(f"{at}.type", "there are no stored files here; send the image as base64")
    if source.type == "url":
        if source.url is None:
            raise BadRequest(f"{at}.url", "is required")
        return image_of(source.url, f"{at}.url")
    if source.data is None:
        raise BadRequest(f"{at}.data", "is required")
    if not (source.media_type or "").startswith("image/"):
        raise BadRequest(f"{at}.media_type", f"images only are read here, got {source.media_type!r}")
    return Image(data=base64_of(source.data, f"{at}.data"))


def _misplaced(kind: str, field: str, role: str, allowed: str) -> BadRequest:
    if kind in CANNOT:
        return BadRequest(f"{field}.type", f"{kind!r}: {CANNOT[kind]}")
    where = f"a message of role {role}" if role else "this place"
    return BadRequest(f"{field}.type", f"{where} holds {allowed}, got {kind!r}")
