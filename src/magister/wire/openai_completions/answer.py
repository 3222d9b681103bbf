"""Pieces of completions -> plain Completions, whole or as a stream. Knows no tokenizer: pieces say what tokens say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from magister.types import FinishReason, Usage
from magister.wire.dialect import Stamp
from magister.wire.fault import Fault
from magister.wire.openai_chat.answer import FINISH, LEAST_LOGPROB, usage_of
from magister.wire.openai_chat.errors import error_body
from magister.wire.openai_completions.request import CompletionAsked
from magister.wire.sse import COMMENT, DONE, frame

NAME = "openai_completions"
STREAM_TYPE = "text/event-stream; charset=utf-8"
KEEPALIVE = COMMENT

_encode = msgspec.json.Encoder().encode


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """More of one choice."""

    choice: int
    """Number of the prompt times n, plus that of the choice."""
    text: str = ""
    ids: tuple[int, ...] = ()
    tokens: tuple[str, ...] = ()
    """What each id says; along `ids`, where logprobs are asked for."""
    widths: tuple[int, ...] = ()
    """Characters that each shows in the text, where that is not what it says: special tokens have names, and show none.
    """
    logprobs: tuple[float | None, ...] = ()
    top: tuple[dict[str, float] | None, ...] = ()
    prompt_ids: tuple[int, ...] | None = None
    """Of the choice's prompt, in its first piece."""
    finish: FinishReason | None = None


class Writer:
    """Completions, whole or as a stream."""

    def __init__(self, asked: CompletionAsked, stamp: Stamp) -> None:
        self._asked = asked
        self._written: dict[int, int] = {}
        """Characters of each choice so far."""
        head = {"id": f"cmpl-{stamp.id}", "object": "text_completion", "created": stamp.created, "model": stamp.model}
        self._head = _encode(head)[:-1]

    def reply(self, pieces: Iterable[Piece], usages: Sequence[Usage]) -> bytes:
        """The whole completion: the stream's choices, each joined."""
        joined: dict[int, dict[str, Any]] = {}
        for piece in pieces:
            said = self._choice(piece)
            joined[piece.choice] = _join(joined[piece.choice], said) if piece.choice in joined else said
        choices = [joined[number] for number in sorted(joined)]
        return self._head + b',"choices":%b,"usage":%b}' % (_encode(choices), _encode(usage_of(usages)))

    def write(self, pieces: Iterable[Piece]) -> bytes:
        """Frames of some pieces."""
        return b"".join(
            b'data: %b,"choices":[%b]}\n\n' % (self._head, _encode(self._choice(piece))) for piece in pieces
        )

    def end(self, usages: Sequence[Usage]) -> bytes:
        """The cost, if it was asked for, and the mark of the end."""
        if not self._asked.usage_at_end:
            return DONE
        return b'data: %b,"choices":[],"usage":%b}\n\n' % (self._head, _encode(usage_of(usages))) + DONE

    def fail(self, fault: Fault) -> bytes:
        """The error's frame; nothing may follow."""
        return frame(error_body(fault))

    def _choice(self, piece: Piece) -> dict[str, Any]:
        said: dict[str, Any] = {
            "index": piece.choice,
            "text": piece.text,
            "logprobs": self._logprobs(piece) if self._asked.sampling.logprobs else None,
            "finish_reason": None if piece.finish is None else FINISH[piece.finish],
        }
        if self._asked.token_ids:
            said["token_ids"] = piece.ids
            if piece.prompt_ids is not None:
                said["prompt_token_ids"] = piece.prompt_ids
        return said

    def _logprobs(self, piece: Piece) -> dict[str, Any]:
        """Offsets are characters of the text. Within a piece they are those of its tokens, as far as there is text:
        a token may say a part of a character, or nothing that is shown.
        """
        at = self._written.get(piece.choice, 0)
        most = self._written[piece.choice] = at + len(piece.text)
        offsets = []
        for width in piece.widths or map(len, piece.tokens):
            offsets.append(min(at, most))
            at += width
        return {
            "tokens": piece.tokens,
            "token_logprobs": [None if one is None else max(one, LEAST_LOGPROB) for one in piece.logprobs],
            "top_logprobs": [
                one and {token: max(logprob, LEAST_LOGPROB) for token, logprob in one.items()} for one in piece.top
            ],
            "text_offset": offsets,
        }


def _join(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Two pieces of a choice, one after the other."""
    both = old | {"text": old["text"] + new["text"], "finish_reason": new["finish_reason"] or old["finish_reason"]}
    if new["logprobs"] is not None:
        both["logprobs"] = {name: [*old["logprobs"][name], *new["logprobs"][name]] for name in new["logprobs"]}
    if "token_ids" in new:
        both["token_ids"] = (*old["token_ids"], *new["token_ids"])
    return both
