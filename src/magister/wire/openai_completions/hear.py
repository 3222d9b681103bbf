"""Plain Completions of a server of this dialect -> pieces, of a stream or of a whole reply."""

from __future__ import annotations

from typing import Any

import msgspec

from magister.types import FinishReason, Upstream, Usage
from magister.wire.openai_chat.hear import UsageSaid
from magister.wire.openai_completions.answer import Piece
from magister.wire.sse import FrameReader

_REASONS = {"stop": FinishReason.END, "length": FinishReason.LENGTH}


class _Logprobs(msgspec.Struct):
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None

    def piece(self) -> Piece:
        """In the project's words. A choice that ended otherwise than by its model or its limit has failed."""
        told = self.logprobs or _Logprobs()
        return Piece(
            choice=self.index,
            text=self.text or "",
            ids=tuple(self.token_ids or ()),
            tokens=tuple(told.tokens or ()),
            logprobs=tuple(told.token_logprobs or ()),
            top=tuple(told.top_logprobs or ()),
            prompt_ids=None if self.prompt_token_ids is None else tuple(self.prompt_token_ids),
            finish=_REASONS.get(self.finish_reason, FinishReason.ERROR) if self.finish_reason else None,
        )


class _Said(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: UsageSaid | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Said).decode


def _said(data: bytes) -> _Said:
    try:
        said = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Upstream(f"what came is none of this dialect: {error}") from None
    if said.error:
        raise Upstream(str(said.error.get("message") if isinstance(said.error, dict) else said.error))
    return said


def read_events() -> Reader:
    """One stream."""
    return Reader()


class Reader:
    """Bytes in, pieces out, however the bytes are cut."""

    def __init__(self) -> None:
        self._frames = FrameReader()
        self._open: set[int] = set()
        self._done = False
        self._told = False
        self._broken: Upstream | None = None

    def feed(self, data: bytes) -> list[Piece | Usage]:
        """Pieces complete so far, and the cost of all choices. Raises `Upstream` once what came before is taken."""
        if self._broken is not None:
            raise self._broken
        out: list[Piece | Usage] = []
        try:
            for one in self._frames.feed(data):
                self._frame(one.data, out)
        except Upstream as error:
            self._broken = error
            if not out:
                raise
        return out

    def end(self) -> list[Piece | Usage]:
        """What was held back. Raises `Upstream` where the stream broke off before its end."""
        if self._broken is not None:
            raise self._broken
        out: list[Piece | Usage] = []
        for one in self._frames.end():
            self._frame(one.data, out)
        if self._open or not self._told:
            raise Upstream("the reply broke off before its end")
        return out

    def _frame(self, data: bytes, out: list[Piece | Usage]) -> None:
        if data == b"[DONE]" or self._done:
            self._done = True
            return
        said = _said(data)
        for choice in said.choices or ():
            self._told = True
            piece = choice.piece()
            if piece.finish is None:
                self._open.add(piece.choice)
            else:
                self._open.discard(piece.choice)
            out.append(piece)
        if said.usage is not None:
            out.append(said.usage.usage())


def read_reply(body: bytes) -> tuple[list[Piece], Usage]:
    """A whole completion: a piece for each choice, and the cost of all. Raises `Upstream` for what is none."""
    said = _said(body)
    if not said.choices:
        raise Upstream("the reply has no choices")
    return [choice.piece() for choice in said.choices], (said.usage or UsageSaid()).usage()
