"""Plain completions: prompts to the token socket, chunks to pieces of text. The one dialect that speaks tokens.

Knows no message and no thought; what special tokens say is their name.
"""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from magister.server.exchange import BROKE_OFF, House, Route, Talk
from magister.server.faults import Rejected
from magister.server.models import Resolved, Served, TextTools
from magister.server.tokens import AT_ONCE, check_length
from magister.types import (
    Chunk,
    FinishReason,
    Prompt,
    Refused,
    Sampling,
    Timings,
    TokenLogprob,
    TokenModel,
    TooLong,
    Usage,
)
from magister.wire import openai_completions as wire
from magister.wire.dialect import Stamp
from magister.wire.fault import BadRequest, Fault, Kind
from magister.wire.openai_completions import CompletionAsked, Piece


class CompletionTalk:
    """See `Talk`; its items are `Piece`s and `Usage`s."""

    def __init__(
        self,
        asked: CompletionAsked,
        resolved: Resolved,
        sampling: Sampling,
        prompts: Sequence[tuple[int, ...]],
        model: TokenModel,
        text: TextTools,
        stamp: Stamp,
    ) -> None:
        self.resolved = resolved
        self.stream = asked.stream
        self.labels = asked.labels
        self._asked = asked
        self._sampling = sampling
        self._prompts = prompts
        self._model = model
        self._text = text
        self._writer = wire.Writer(asked, stamp)
        self._usages: list[Usage] = []
        self._open = len(prompts) * sampling.n

    async def start(self) -> AsyncGenerator[Piece | Usage, None]:
        """All prompts at once, pieces as they come."""
        queue: asyncio.Queue[Piece | Usage | BaseException | None] = asyncio.Queue(256)

        async def one(number: int, ids: tuple[int, ...]) -> None:
            try:
                async with aclosing(self._one(number, ids)) as pieces:
                    async for piece in pieces:
                        await queue.put(piece)
                await queue.put(None)
            except Exception as error:  # noqa: BLE001 - raised again where the pieces are taken
                await queue.put(error)

        tasks = [asyncio.create_task(one(number, ids)) for number, ids in enumerate(self._prompts)]
        try:
            running = len(tasks)
            while running:
                item = await queue.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    running -= 1
                else:
                    yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, number: int, ids: tuple[int, ...]) -> AsyncGenerator[Piece | Usage, None]:
        first = number * self._sampling.n
        voices: dict[int, _Voice] = {}
        scored: Chunk | None = None
        early: list[Chunk] = []
        async with aclosing(self._chunks(number, ids)) as chunks:
            async for coming in chunks:
                early.append(coming)
                if coming.prompt_logprobs is not None:
                    scored = coming
                if self._sampling.prompt_logprobs and scored is None:
                    # The prompt stands before every choice, and only the first choice tells how likely it is.
                    continue
                for chunk in early:
                    if chunk.finish is FinishReason.ERROR:
                        raise Rejected(Fault(kind=Kind.UPSTREAM, message=chunk.error or "the model failed"))
                    if chunk.choice not in voices:
                        voices[chunk.choice] = _Voice(first + chunk.choice, self._text, self._asked, ids)
                        if self._asked.echo:
                            yield voices[chunk.choice].prompt(scored)
                    yield voices[chunk.choice].piece(chunk)
                    if chunk.finish is not None:
                        yield _usage(chunk, len(ids), voices[chunk.choice].count, first)
                early.clear()

    async def _chunks(self, number: int, ids: tuple[int, ...]) -> AsyncGenerator[Chunk, None]:
        """What the model says. Raises what it raises, `prompt` called by the name it has here."""
        field = "prompt" if len(self._prompts) == 1 else f"prompt[{number}]"
        try:
            async with aclosing(self._model.generate(Prompt(ids), self._sampling)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except TooLong as error:
            raise BadRequest(field, str(error), Kind.TOO_LONG) from None
        except Refused as error:
            if error.field not in ("ids", "images"):
                raise
            raise BadRequest(field, str(error).removeprefix("ids: ")) from None

    def usages(self, items: Sequence[Piece | Usage]) -> list[Usage]:
        """See `Talk`."""
        return [item for item in items if isinstance(item, Usage)]

    def whole(self, items: Sequence[Piece | Usage]) -> bytes:
        """See `Talk`."""
        pieces = self._pieces(items)
        if self._open:
            raise Rejected(BROKE_OFF)
        return self._writer.reply(pieces, self._usages)

    def write(self, items: Sequence[Piece | Usage]) -> bytes:
        """See `Talk`."""
        return self._writer.write(self._pieces(items))

    def end(self) -> bytes:
        """See `Talk`."""
        return self._writer.fail(BROKE_OFF) if self.broken else self._writer.end(self._usages)

    @property
    def broken(self) -> bool:
        """See `Talk`."""
        return bool(self._open)

    def fail(self, fault: Fault) -> bytes:
        """See `Talk`."""
        return self._writer.fail(fault)

    def _pieces(self, items: Sequence[Piece | Usage]) -> list[Piece]:
        self._usages += self.usages(items)
        pieces = [item for item in items if isinstance(item, Piece)]
        self._open -= sum(piece.finish is not None for piece in pieces)
        return pieces


class _Voice:
    """One choice: bytes to text, however characters are cut into tokens."""

    def __init__(self, choice: int, text: TextTools, asked: CompletionAsked, ids: tuple[int, ...]) -> None:
        self.count = 0
        """Tokens so far."""
        self._choice = choice
        self._text = text
        self._asked = asked
        self._ids = ids
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = False

    def prompt(self, scored: Chunk | None) -> Piece:
        """The prompt, as if it had been said; `scored` tells how likely each of its tokens is but the first."""
        self._begun = True
        logprobs: tuple[float | None, ...] = ()
        top: tuple[dict[str, float] | None, ...] = ()
        tokens: tuple[str, ...] = ()
        widths: tuple[int, ...] = ()
        if scored is not None:
            tokens, widths = self._shown(self._ids)
            found = scored.prompt_logprobs or ()
            logprobs = (None, *found)
            top = (None, *self._alternatives(scored.prompt_top, len(found)))
        return Piece(
            choice=self._choice,
            text=self._text.plain(self._ids, self._asked.special_tokens).decode("utf-8", "replace"),
            ids=self._ids,
            tokens=tokens,
            widths=widths,
            logprobs=logprobs,
            top=top,
            prompt_ids=self._ids,
        )

    def piece(self, chunk: Chunk) -> Piece:
        """More of it."""
        self.count += len(chunk.ids)
        whole = self._text.plain(chunk.ids, self._asked.special_tokens)
        kept = whole[: len(whole) - chunk.trim] if chunk.trim else whole
        text = self._decoder.decode(kept, final=chunk.finish is not None)
        tokens: tuple[str, ...] = ()
        widths: tuple[int, ...] = ()
        top: tuple[dict[str, float] | None, ...] = ()
        if self._asked.sampling.logprobs:
            tokens, widths = self._shown(chunk.ids)
            top = self._alternatives(chunk.top, len(chunk.ids))
        begun, self._begun = self._begun, True
        return Piece(
            choice=self._choice,
            text=text,
            ids=chunk.ids,
            tokens=tokens,
            widths=widths,
            logprobs=chunk.logprobs if tokens else (),
            top=top,
            prompt_ids=None if begun else self._ids,
            finish=chunk.finish,
        )

    def _shown(self, ids: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """What each id says, and how many characters of that are in the text."""
        special = self._asked.special_tokens
        widths = tuple([len(_shown(self._text.plain((id_,), special))) for id_ in ids])
        return tuple(map(_shown, self._text.token_bytes(ids))), widths

    def _alternatives(
        self, top: tuple[tuple[TokenLogprob, ...], ...] | None, count: int
    ) -> tuple[dict[str, float] | None, ...]:
        if top is None:
            return (None,) * count
        found = []
        for others in top:
            shown = map(_shown, self._text.token_bytes([one.id for one in others]))
            # Parts of characters look alike: of those the likeliest is told, which comes first.
            found.append({said: other.logprob for said, other in reversed([*zip(shown, others, strict=True)])})
        return tuple(found)


def _usage(chunk: Chunk, prompt_tokens: int, tokens: int, first: int) -> Usage:
    """What a choice cost, at its last chunk."""
    alone = chunk.choice == 0
    return Usage(
        prompt_tokens=prompt_tokens if alone else 0,
        cached_tokens=chunk.cached_tokens if alone else 0,
        completion_tokens=tokens,
        timings=chunk.timings or Timings(),
        choice=first + chunk.choice,
    )


def _shown(said: bytes) -> str:
    return said.decode("utf-8", "replace")


async def _split(served: Served, text: TextTools, prompts: Sequence[str | tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The tokens of every prompt. Raises `BadRequest` where one is far too long."""
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    for at, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            check_length(served, [prompt], "prompt" if len(prompts) == 1 else f"prompt[{at}]")

    def split() -> list[tuple[int, ...]]:
        return [text.encode(prompt, True) if isinstance(prompt, str) else prompt for prompt in prompts]

    return split() if sum(map(len, texts)) <= AT_ONCE else await asyncio.to_thread(split)


async def _begin(house: House, body: bytes, request_id: str) -> Talk | bytes:
    asked = wire.read_request(body)
    resolved = house.models.resolve(asked.model)
    served = resolved.served
    if served.tokens is None or served.text is None:
        told = f"{served.card.name} speaks messages only; plain completions need a model of this machine's own"
        raise Rejected(Fault(kind=Kind.INVALID, message=told, field="model"))
    own = {name: value for name, value in served.defaults.items() if name not in asked.given}
    sampling = msgspec.structs.replace(asked.sampling, **own) if own else asked.sampling
    text = served.text
    prompts = await _split(served, text, asked.prompts)
    stamp = Stamp(id=request_id, created=int(time.time()), model=served.card.name)
    return CompletionTalk(asked, resolved, sampling, prompts, served.tokens, text, stamp)


ROUTE = Route(wire.NAME, wire.STREAM_TYPE, wire.KEEPALIVE, _begin, wire.write_error)
"""Plain completions."""
