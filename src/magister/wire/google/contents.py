"""Google's contents -> messages: turns of user and model, thoughts among their parts, calls and responses matched.

A model's turns that follow one another are one message, for clients replay a stream frame by frame. A thought that
comes back without its text is unsealed from the signature of another part. Knows no sampling.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from magister.types import Image, Message, Part, Role, Text, Thinking, ToolCall, ToolResult
from magister.wire.fault import BadRequest
from magister.wire.google import body as google
from magister.wire.reading import base64_of, image_of, join
from magister.wire.signature import unseal

_URL_SAFE = str.maketrans("+/", "-_")

_CANNOT = {
    "executable_code": "this server runs no code",
    "code_execution_result": "this server runs no code",
    "tool_call": "this server runs no tools of its own",
    "tool_response": "this server runs no tools of its own",
    "video_metadata": "this server reads no video",
    "media_resolution": "images are read at their own size, within the model's limit",
    "media_processing": "images are read at their own size, within the model's limit",
    "audio_metadata": "this server hears no audio",
    "audio_transcription": "this server hears no audio",
    "speech_metadata": "this server hears no audio",
    "document_metadata": "this server reads no documents",
    "spreadsheet_metadata": "this server reads no documents",
    "part_metadata": "there is no place for it in a prompt",
}


def messages_of(said: google.Body, signing_key: bytes) -> tuple[Message, ...]:
    """The whole conversation, its instruction first. Raises `BadRequest`."""
    reader = _Reader(signing_key)
    if isinstance(said.system_instruction, str):
        reader.told.append(Message(Role.SYSTEM, (Text(said.system_instruction),)))
    elif said.system_instruction is not None:
        parts = _parts(said.system_instruction)
        texts = [_text(part, f"systemInstruction.parts[{at}]") for at, part in enumerate(parts)]
        if any(text.text for text in texts):
            reader.told.append(Message(Role.SYSTEM, tuple(texts)))
    if not said.contents:
        raise BadRequest("contents", "must not be empty")
    if isinstance(said.contents, google.Content):
        reader.read(said.contents, "contents")
    else:
        for at, content in enumerate(said.contents):
            reader.read(content, f"contents[{at}]")
    return reader.end()


def _parts(content: google.Content) -> Sequence[google.Part]:
    if content.parts is None:
        return ()
    return [content.parts] if isinstance(content.parts, google.Part) else content.parts


class _Speech:
    """A model's turn under construction."""

    def __init__(self) -> None:
        self.thinking: list[str] = []
        self.signature: str | None = None
        self.sealed: dict[str, str] = {}
        """Thoughts that came under seal, by their seal."""
        self.texts: list[str] = []
        self.calls: list[ToolCall] = []

    def message(self) -> Message:
        parts: list[Part] = []
        if "".join(self.thinking) or (self.thinking and not self.sealed):
            parts.append(Thinking("".join(self.thinking), signature=self.signature))
        elif self.sealed:
            # Without their text, thoughts of several calls are told apart by nothing else.
            parts.append(Thinking("\n\n".join(self.sealed.values()), signature=next(reversed(self.sealed))))
        if "".join(self.texts):
            parts.append(Text("".join(self.texts)))
        return Message(Role.ASSISTANT, (*parts, *self.calls))


class _Reader:
    """Contents in, messages out."""

    def __init__(self, signing_key: bytes) -> None:
        self.told: list[Message] = []
        self._key = signing_key
        self._speech: _Speech | None = None
        self._calls = 0
        self._waiting: list[ToolCall] = []

    def read(self, content: google.Content, field: str) -> None:
        parts = _parts(content)
        if not parts:
            raise BadRequest(f"{field}.parts", "must not be empty")
        for at, part in enumerate(parts):
            _refuse(part, f"{field}.parts[{at}]")
        match content.role or "user":
            case "model":
                self._speech = self._speech or _Speech()
                for at, part in enumerate(parts):
                    self._say(self._speech, part, f"{field}.parts[{at}]")
            case "user" | "function" as role:
                self._flush()
                self._hear(parts, field, role)
            case role:
                raise BadRequest(f"{field}.role", f"must be user, model or function, got {role!r}")

    def end(self) -> tuple[Message, ...]:
        self._flush()
        return tuple(self.told)

    def _flush(self) -> None:
        if self._speech is not None and (message := self._speech.message()).parts:
            self.told.append(message)
        self._speech = None

    def _say(self, speech: _Speech, part: google.Part, field: str) -> None:
        sealed = part.thought_signature or ""
        # Clients decode and encode it, not always in the same alphabet. A foreign one is no error.
        thought = unseal(self._key, sealed.translate(_URL_SAFE)) if sealed else None
        if thought is not None:
            speech.sealed[sealed] = thought
        if part.function_call is not None:
            said = part.function_call
            why = {name: "calls are sent whole" for name in ("partial_args", "will_continue") if getattr(said, name)}
            for name in why:
                raise BadRequest(join(f"{field}.functionCall", google.camel(name)), why[name])
            # As models write them, so that a replayed call is the call that was made.
            arguments = json.dumps(said.args or {}, ensure_ascii=False)
            call = ToolCall(said.id or f"call_{self._calls}", said.name, arguments)
            self._calls += 1
            self._waiting.append(call)
            speech.calls.append(call)
        elif part.thought:
            speech.thinking.append(_text(part, field).text)
            speech.signature = part.thought_signature or speech.signature
        else:
            speech.texts.append(_text(part, field).text)

    def _hear(self, parts: Sequence[google.Part], field: str, role: str) -> None:
        results: list[Part] = []
        rest: list[Part] = []
        for at, part in enumerate(parts):
            if part.function_response is not None:
                results.append(self._result(part.function_response, f"{field}.parts[{at}].functionResponse"))
            elif role == "function":
                raise BadRequest(f"{field}.parts[{at}]", "a turn of role function holds functionResponse only")
            else:
                rest.append(_user_part(part, f"{field}.parts[{at}]"))
        if results:
            self.told.append(Message(Role.TOOL, tuple(results)))
        if rest:
            self.told.append(Message(Role.USER, tuple(rest)))

    def _result(self, said: google.FunctionResponse, field: str) -> ToolResult:
        for name in ("parts", "will_continue", "scheduling"):
            if getattr(said, name):
                raise BadRequest(join(field, google.camel(name)), "a response is one whole object here")
        waiting = next((c for c in self._waiting if (c.id == said.id if said.id else c.name == said.name)), None)
        if waiting is not None:
            self._waiting.remove(waiting)
        elif not said.id:
            raise BadRequest(f"{field}.name", f"no call of {said.name!r} waits for its response; give its id")
        call_id = said.id or (waiting.id if waiting else "")
        response = said.response or {}
        # Google's own keys for what a function gave back.
        if set(response) in ({"output"}, {"error"}):
            value = response.get("output", response.get("error"))
            content = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            return ToolResult(call_id, content, is_error="error" in response)
        return ToolResult(call_id, msgspec.json.encode(response).decode())


def _refuse(part: google.Part, field: str) -> None:
    for name, why in _CANNOT.items():
        if getattr(part, name):
            raise BadRequest(join(field, google.camel(name)), why)
    data = (part.text, part.inline_data, part.file_data, part.function_call, part.function_response)
    held = sum(one is not None for one in data)
    if held > 1 or (not held and not part.thought_signature):
        told = "needs one of text, inlineData, fileData, functionCall and functionResponse"
        raise BadRequest(field, f"{told}, has {held}")


def _text(part: google.Part, field: str) -> Text:
    for name in ("inline_data", "file_data", "function_call", "function_response"):
        if getattr(part, name) is not None:
            raise BadRequest(join(field, google.camel(name)), "has no place in this turn")
    return Text(part.text or "")


def _user_part(part: google.Part, field: str) -> Part:
    if part.thought:
        raise BadRequest(f"{field}.thought", "only the model's turns hold thoughts")
    if part.inline_data is not None:
        _check_image(part.inline_data.mime_type, f"{field}.inlineData.mimeType")
        return Image(data=base64_of(part.inline_data.data, f"{field}.inlineData.data"))
    if part.file_data is not None:
        _check_image(part.file_data.mime_type or "image/", f"{field}.fileData.mimeType")
        return image_of(part.file_data.file_uri, f"{field}.fileData.fileUri")
    return _text(part, field)


def _check_image(kind: str, field: str) -> None:
    if not kind.startswith("image/"):
        raise BadRequest(field, f"images only are read here, got {kind!r}")
