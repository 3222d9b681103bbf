"""OpenAI's plain Completions: text or token ids in, text and token ids out. No messages, no thoughts: tokens.

Since it speaks tokens it has names of its own: `read_request` gives a `CompletionAsked`, and what is written are
`Piece`s, one for every chunk of a choice. Errors and models are those of `wire.openai_chat`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from magister.types import FinishReason, Sampling, Usage
from magister.wire.dialect import Stamp
from magister.wire.fault import BadRequest, Fault
from magister.wire.openai_chat.answer import FINISH, usage_of
from magister.wire.openai_chat.body import StreamOptions
from magister.wire.openai_chat.errors import error_body, write_error
from magister.wire.openai_chat.request import sampling_of
from magister.wire.reading import decode, within
from magister.wire.sse import COMMENT, DONE, frame

__all__ = [
    "BODY",
    "KEEPALIVE",
    "NAME",
    "STREAM_TYPE",
    "CompletionAsked",
    "Piece",
    "Writer",
    "read_request",
    "write_error",
]

NAME = "openai_completions"
STREAM_TYPE = "text/event-stream; charset=utf-8"
KEEPALIVE = COMMENT
_MOST_PROMPTS = 128

_encode = msgspec.json.Encoder().encode


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is asked for. Besides OpenAI's own: vLLM's `top_k`, `min_p`, `ignore_eos`, `return_token_ids`,
    `skip_special_tokens`.
    """

    model: str
    prompt: str | list[str | int | list[int]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    ignore_eos: bool | None = None
    return_token_ids: bool | None = None
    skip_special_tokens: bool | None = None
    user: str | None = None


BODY = Body
"""The type that bodies are read with."""


class CompletionAsked(msgspec.Struct, frozen=True, kw_only=True):
    """What a body asks for."""

    model: str
    prompts: tuple[str | tuple[int, ...], ...]
    sampling: Sampling
    given: frozenset[str]
    """Fields of `Sampling` that the client set."""
    stream: bool = False
    usage_at_end: bool = False
    echo: bool = False
    """Whether the prompt stands before each completion."""
    token_ids: bool = False
    """Whether ids are told, of the prompt and of what was said."""
    special_tokens: bool = False
    """Whether special tokens are shown in the text, by their names."""
    labels: dict[str, str] = {}


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """More of one choice."""

    choice: int
    """Number of the prompt times n, plus that of the choice."""
    text: str = ""
    ids: tuple[int, ...] = ()
    tokens: tuple[str, ...] = ()
    """What each id says; along `ids`, where logprobs are asked for."""
    logprobs: tuple[float | None, ...] = ()
    top: tuple[dict[str, float] | None, ...] = ()
    prompt_ids: tuple[int, ...] | None = None
    """Of the choice's prompt, in its first piece."""
    finish: FinishReason | None = None


def read_request(body: bytes) -> CompletionAsked:
    """What a body asks for. Raises `BadRequest`."""
    said = decode(body, Body)
    if said.suffix:
        raise BadRequest("suffix", "this model writes forwards only")
    if said.best_of is not None and said.best_of != (said.n or 1):
        raise BadRequest("best_of", f"must be n, {said.n or 1}, got {said.best_of}: nothing is thrown away here")
    within("logprobs", said.logprobs, 0, 20)
    options = said.stream_options or StreamOptions()
    if said.stream_options is not None and not said.stream:
        raise BadRequest("stream_options", "goes with stream: true")
    # OpenAI writes 16 tokens where nobody says how many.
    sampling = {"max_tokens": 16} | sampling_of(said)
    if said.logprobs is not None:
        sampling |= {"logprobs": True, "top_logprobs": said.logprobs}
    return CompletionAsked(
        model=said.model,
        prompts=_prompts(said.prompt),
        sampling=Sampling(**sampling),
        given=frozenset(sampling),
        stream=bool(said.stream),
        usage_at_end=bool(options.include_usage),
        echo=bool(said.echo),
        token_ids=bool(said.return_token_ids),
        special_tokens=said.skip_special_tokens is False,
        labels={} if said.user is None else {"user": said.user},
    )


def _prompts(said: str | list[str | int | list[int]] | None) -> tuple[str | tuple[int, ...], ...]:
    """One text, one list of ids, or a list of either."""
    if said is None:
        raise BadRequest("prompt", "is required")
    if isinstance(said, str):
        return (said,)
    if not said:
        raise BadRequest("prompt", "must not be empty")
    ids = [one for one in said if isinstance(one, int)]
    if len(ids) == len(said):
        return (_ids(ids, "prompt"),)
    if len(said) > _MOST_PROMPTS:
        raise BadRequest("prompt", f"has {len(said)} prompts, at most {_MOST_PROMPTS} are taken")
    prompts: list[str | tuple[int, ...]] = []
    for at, one in enumerate(said):
        if isinstance(one, int):
            raise BadRequest(f"prompt[{at}]", "is a token's id among prompts; send ids only, or a list of prompts")
        prompts.append(one if isinstance(one, str) else _ids(one, f"prompt[{at}]"))
    return tuple(prompts)


def _ids(said: list[int], field: str) -> tuple[int, ...]:
    if not said:
        raise BadRequest(field, "must not be empty")
    for at, id_ in enumerate(said):
        if id_ < 0:
            raise BadRequest(f"{field}[{at}]", f"must be a token's id, got {id_}")
    return tuple(said)


class Writer:
    """Completions, whole or as a stream."""

    def __init__(self, asked: CompletionAsked, stamp: Stamp) -> None:
        self._asked = asked
        self._begun: set[int] = set()
        self._offsets: dict[int, int] = {}
        head = {"id": f"cmpl-{stamp.id}", "object": "text_completion", "created": stamp.created, "model": stamp.model}
        self._head = _encode(head)[:-1]

    def reply(self, pieces: Iterable[Piece], usages: Sequence[Usage]) -> bytes:
        """The whole completion."""
        joined: dict[int, Piece] = {}
        for piece in pieces:
            old = joined.get(piece.choice)
            joined[piece.choice] = piece if old is None else _join(old, piece)
        choices = [self._choice(joined[number]) for number in sorted(joined)]
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
        offsets, at = [], self._offsets.get(piece.choice, 0)
        for token in piece.tokens:
            offsets.append(at)
            at += len(token)
        self._offsets[piece.choice] = at
        return {
            "tokens": piece.tokens,
            "token_logprobs": piece.logprobs,
            "top_logprobs": piece.top,
            "text_offset": offsets,
        }


def _join(old: Piece, new: Piece) -> Piece:
    return Piece(
        choice=old.choice,
        text=old.text + new.text,
        ids=old.ids + new.ids,
        tokens=old.tokens + new.tokens,
        logprobs=old.logprobs + new.logprobs,
        top=old.top + new.top,
        prompt_ids=old.prompt_ids,
        finish=new.finish or old.finish,
    )
