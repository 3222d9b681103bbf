"""Chat Completions of a server of this dialect -> events, or a whole reply.

Reads Mistral's streams and replies too, which have the same frames: contents may be strings or lists of chunks, costs
may come with the last choice or after it. A thought is closed by what comes after it. Fields nobody knows are skipped:
every server of this dialect has some.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from magister.types import (
    Event,
    EventToken,
    Finish,
    FinishReason,
    Reply,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCallDelta,
    Upstream,
    Usage,
    fold,
)
from magister.wire.sse import FrameReader

_REASONS = {
    "stop": FinishReason.END,
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
}
_BYTE = Annotated[int, msgspec.Meta(ge=0, le=255)]


class _Alternative(msgspec.Struct):
    logprob: float
    token: str = ""
    raw: list[_BYTE] | None = msgspec.field(default=None, name="bytes")
    token_id: int = -1

    def data(self) -> bytes:
        return self.token.encode() if self.raw is None else bytes(self.raw)


class _Token(_Alternative):
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Chunk(msgspec.Struct):
    """One chunk of a content; of a thought, one of its texts."""

    type: str = "text"
    text: str = ""
    thinking: str | list[_Chunk] = ""
    closed: bool | None = None
    signature: str | None = None


class _Detail(msgspec.Struct):
    """OpenRouter's piece of a thought, which stands beside `reasoning`; its signature comes last."""

    signature: str | None = None


class _Message(msgspec.Struct):
    content: str | list[_Chunk] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[_Detail] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Message | None = None
    message: _Message | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Thought(msgspec.Struct):
    reasoning_tokens: int | None = None


class UsageSaid(msgspec.Struct):
    """What is told of the cost."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Thought | None = None

    def usage(self) -> Usage:
        """In the project's words."""
        return Usage(
            prompt_tokens=self.prompt_tokens or 0,
            cached_tokens=(self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0,
            completion_tokens=self.completion_tokens or 0,
            thinking_tokens=(self.completion_tokens_details and self.completion_tokens_details.reasoning_tokens) or 0,
        )


class _Said(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: UsageSaid | None = None
    error: Any = None
    object: str = ""
    message: Any = None


_decode = msgspec.json.Decoder(_Said).decode


def _said(data: bytes) -> _Said:
    try:
        said = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Upstream(f"what came is none of this dialect: {error}") from None
    told = said.error if said.error else {"message": said.message} if said.object == "error" else None
    if told is not None:
        raise Upstream(str(told.get("message") if isinstance(told, dict) else told))
    return said


class _Voice:
    """One choice being read."""

    def __init__(self, number: int) -> None:
        self.finish: Finish | None = None
        self._number = number
        self._thinks = False
        self._signature: str | None = None

    def hear(self, said: _Message, logprobs: _Logprobs | None) -> list[Event]:
        """A delta, or a whole message."""
        out: list[Event] = []
        self._thought(said.reasoning or said.reasoning_content, out)
        for detail in said.reasoning_details or ():
            self._signature = detail.signature or self._signature
        if isinstance(said.content, str):
            self._text(said.content, out)
        else:
            for chunk in said.content or ():
                self._chunk(chunk, out)
        self._text(said.refusal, out)
        for at, call in enumerate(said.tool_calls or ()):
            self._close(out)
            out.append(self._call(call, at))
        tokens = tuple(map(_token, (logprobs and logprobs.content) or ()))
        return _with_tokens(out, tokens, self._number) if tokens else out

    def end(self, said: _Choice) -> list[Event]:
        """Its end, which is told last, after the cost."""
        out: list[Event] = []
        reason = _REASONS.get(said.finish_reason or "", FinishReason.ERROR)
        error, stop = None, None
        if reason is FinishReason.ERROR:
            error = f"the model ended with {said.finish_reason}"
        elif reason is FinishReason.END and isinstance(said.stop_reason, str):
            reason, stop = FinishReason.STOP, said.stop_reason
        if reason.complete:
            self._close(out)
        self.finish = Finish(reason=reason, choice=self._number, stop=stop, error=error)
        return out

    def _chunk(self, chunk: _Chunk, out: list[Event]) -> None:
        if chunk.type != "thinking":
            self._text(chunk.text, out)
            return
        thought = chunk.thinking
        text = thought if isinstance(thought, str) else "".join(one.text for one in thought)
        self._thought(text, out)
        self._signature = chunk.signature or self._signature
        # Some servers call every piece of a thought closed; one that adds nothing can only mean its end.
        if chunk.closed and not text:
            self._close(out)

    def close(self) -> list[Event]:
        """A thought that is told to be closed, whatever ends the choice."""
        out: list[Event] = []
        self._close(out)
        return out

    def _thought(self, text: str | None, out: list[Event]) -> None:
        if text:
            self._thinks = True
            out.append(ThinkingDelta(text=text, choice=self._number))

    def _text(self, text: str | None, out: list[Event]) -> None:
        if text:
            self._close(out)
            out.append(TextDelta(text=text, choice=self._number))

    def _close(self, out: list[Event]) -> None:
        if self._thinks:
            self._thinks = False
            out.append(ThinkingDelta(text="", choice=self._number, closed=True, signature=self._signature))
            self._signature = None

    def _call(self, call: _Call, at: int) -> ToolCallDelta:
        function = call.function or _Function()
        given = function.arguments or ""
        return ToolCallDelta(
            index=at if call.index is None else call.index,
            id=call.id or "",
            name=function.name or "",
            arguments=given if isinstance(given, str) else msgspec.json.encode(given).decode(),
            choice=self._number,
        )


def _token(said: _Token) -> EventToken:
    return EventToken(
        id=said.token_id,
        bytes=said.data(),
        logprob=said.logprob,
        sampled_logprob=said.logprob,
        top=tuple(TokenLogprob(one.token_id, one.logprob, one.data()) for one in said.top_logprobs or ()),
    )


def _with_tokens(out: list[Event], tokens: tuple[EventToken, ...], choice: int) -> list[Event]:
    """The tokens with the first delta that says something; with one of their own where none does."""
    for at, event in enumerate(out):
        said = (isinstance(event, TextDelta | ThinkingDelta) and event.text) or isinstance(event, ToolCallDelta)
        if said:
            out[at] = msgspec.structs.replace(event, tokens=tokens)
            return out
    return [*out, TextDelta(text="", choice=choice, tokens=tokens)]


def read_events() -> Reader:
    """One stream. Of tokens, what is not told is -1 (the id), or what is told beside it (the sampled logprob)."""
    return Reader()


class Reader:
    """See `EventReader`. Costs and ends are told when all has come: then it is known what all choices cost."""

    def __init__(self) -> None:
        self._frames = FrameReader()
        self._voices: dict[int, _Voice] = {}
        self._usage: UsageSaid | None = None
        self._done = False
        self._broken: Upstream | None = None

    def feed(self, data: bytes) -> list[Event]:
        """Events complete so far; what breaks the stream is raised once they are taken."""
        if self._broken is not None:
            raise self._broken
        out: list[Event] = []
        try:
            for one in self._frames.feed(data):
                self._frame(one.data, out)
        except Upstream as error:
            self._broken = error
            if not out:
                raise
        return out

    def end(self) -> list[Event]:
        """The end, where no mark of it came: each choice's own is enough."""
        if self._broken is not None:
            raise self._broken
        out: list[Event] = []
        for one in self._frames.end():
            self._frame(one.data, out)
        if not self._done:
            self._close(out)
        return out

    def _frame(self, data: bytes, out: list[Event]) -> None:
        if self._done:
            return
        if data == b"[DONE]":
            self._close(out)
            return
        said = _said(data)
        self._usage = said.usage or self._usage
        for choice in said.choices or ():
            voice = self._voices.setdefault(choice.index, _Voice(choice.index))
            out += voice.hear(choice.delta or _Message(), choice.logprobs)
            if choice.finish_reason:
                out += voice.end(choice)

    def _close(self, out: list[Event]) -> None:
        self._done = True
        out += _ends(self._voices, self._usage)


def _ends(voices: dict[int, _Voice], usage: UsageSaid | None) -> Sequence[Event]:
    """Cost and end of every choice; the cost of all is the first one's. Raises `Upstream` where there are none."""
    finishes = [voices[number].finish for number in sorted(voices)]
    if not finishes or None in finishes:
        raise Upstream("the reply broke off before its end")
    out: list[Event] = []
    for finish in finishes:
        assert finish is not None
        if usage is not None:
            out.append(usage.usage() if finish.choice == min(voices) else Usage(choice=finish.choice))
        out.append(finish)
    return out


def read_reply(body: bytes) -> Reply:
    """A whole completion. Raises `Upstream` for what is none."""
    said = _said(body)
    out: list[Event] = []
    voices: dict[int, _Voice] = {}
    for choice in said.choices or ():
        voice = voices.setdefault(choice.index, _Voice(choice.index))
        message = choice.message or _Message()
        out += voice.hear(message, choice.logprobs)
        chunks = message.content if isinstance(message.content, list) else []
        if any(chunk.type == "thinking" and chunk.closed for chunk in chunks):
            out += voice.close()
        out += voice.end(choice)
    return fold([*out, *_ends(voices, said.usage)])
