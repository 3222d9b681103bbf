"""The only adapter: a token model and a renderer make a chat model.

Renders the request, reads the token model's chunks, and says them as events. Where a conversation grows past its
context, the oldest thoughts are left out of the prompt first. Knows nothing of tensors, dialects or servers.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from magister.text import Parser, Renderer
from magister.text.formats import Tags
from magister.text.grammar import AnswerGrammar
from magister.types import (
    Annotation,
    ChatRequest,
    Chunk,
    Effort,
    Event,
    Finish,
    FinishReason,
    Message,
    Prompt,
    Refused,
    Role,
    Sampling,
    Thinking,
    ThinkingDelta,
    Timings,
    TokenModel,
    Usage,
)

_SHARES: dict[Effort, float | None] = {
    Effort.NONE: 0.0,
    Effort.MINIMAL: 1 / 32,
    Effort.LOW: 1 / 8,
    Effort.MEDIUM: 1 / 4,
    Effort.HIGH: 1 / 2,
    Effort.XHIGH: 3 / 4,
    Effort.MAX: None,
}
"""Of the context, what a thought of an effort may take; None for all there is."""

_UNCUT = (Effort.HIGH, Effort.XHIGH)
"""Efforts that a thought which cannot be cut comes close enough to."""


@dataclass(frozen=True)
class LocalChat:
    """A chat model on this machine."""

    token_model: TokenModel
    renderer: Renderer
    context: int | None = None
    """Tokens of prompt and answer that the token model has room for. Where it is None no effort can become a number of
    tokens, and no thought is left out of a long prompt.
    """

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Events of all choices; closing the iterator closes the token model's."""
        if request.sampling.prompt_logprobs:
            raise Refused("prompt_logprobs", "a reply's events have no place for them; ask the token model")
        request = self._with_effort(request)
        # A long prompt or an image takes long enough to tokenise that other streams would notice.
        prompt, dropped = await asyncio.to_thread(self._render, request)
        grammar = self.renderer.grammar(prompt, request)
        sampling = request.sampling
        if grammar is not None:
            sampling = msgspec.structs.replace(sampling, grammar=grammar.text)
        choices: dict[int, _Choice] = {}
        async with aclosing(_generate(self.token_model, prompt, sampling, grammar)) as chunks:
            async for chunk in chunks:
                if dropped:
                    # Not before: what the token model refuses must be the first thing a caller hears.
                    yield Annotation(kind="dropped_thoughts", data={"count": dropped})
                    dropped = 0
                if chunk.choice not in choices:
                    parser = self.renderer.parser(prompt, request, chunk.choice)
                    choices[chunk.choice] = _Choice(chunk.choice, parser, len(prompt.ids))
                for event in choices[chunk.choice].read(chunk):
                    yield event
            for choice in choices.values():
                for event in choice.break_off():
                    yield event

    def count(self, request: ChatRequest) -> int:
        """Tokens of a request's prompt. Raises as `chat` does for what cannot be rendered."""
        return len(self._render(request)[0].ids)

    def _with_effort(self, request: ChatRequest) -> ChatRequest:
        """An effort as a number of tokens, a share of the context; a number that was given stays."""
        effort = request.effort
        if effort is None or request.sampling.thinking_tokens is not None:
            return request
        share = _SHARES[effort]
        if share is None or (self.renderer.format.tags is Tags.TEXT and effort in _UNCUT):
            return request
        if self.renderer.format.tags is Tags.TEXT:
            raise Refused("effort", f"{effort}: this model writes its thought as text, so it cannot be cut")
        if self.context is None:
            raise Refused("effort", f"{effort}: the size of the context is not known here; give a number of tokens")
        sampling = msgspec.structs.replace(request.sampling, thinking_tokens=int(self.context * share))
        return msgspec.structs.replace(request, sampling=sampling)

    def _render(self, request: ChatRequest) -> tuple[Prompt, int]:
        """The prompt, and how many of the oldest thoughts had to be left out for it to fit."""
        prompt = self.renderer.render(request)
        if self.context is None:
            return prompt, 0
        most = request.sampling.max_tokens
        limit = self.context - (self.context // 4 if most is None else min(most, self.context // 2))
        places = _earlier_thoughts(request) if len(prompt.ids) > limit else []
        if not places:
            return prompt, 0
        # The fewest that make it fit; all of them where nothing does.
        fits = range(1, len(places) + 1)
        count = min(
            bisect_left(fits, True, key=lambda n: len(self._without(request, places[:n]).ids) <= limit) + 1, len(places)
        )
        return self._without(request, places[:count]), count

    def _without(self, request: ChatRequest, places: list[int]) -> Prompt:
        messages = [
            Message(message.role, tuple(part for part in message.parts if not isinstance(part, Thinking)))
            if at in places
            else message
            for at, message in enumerate(request.messages)
        ]
        return self.renderer.render(msgspec.structs.replace(request, messages=tuple(messages)))


async def _generate(
    model: TokenModel, prompt: Prompt, sampling: Sampling, grammar: AnswerGrammar | None
) -> AsyncGenerator[Chunk, None]:
    """The token model's chunks. What it refuses of a grammar that was made here is said of the field behind it."""
    async with aclosing(model.generate(prompt, sampling)) as chunks:
        try:
            async for chunk in chunks:
                yield chunk
        except Refused as error:
            if grammar is None or error.field != "grammar":
                raise
            raise grammar.blame(str(error).removeprefix("grammar: ")) from error


def _earlier_thoughts(request: ChatRequest) -> list[int]:
    """Places of the assistant's messages before the last user's that have more than a thought, oldest first."""
    if not request.keep_thinking:
        return []
    last = max((at for at, message in enumerate(request.messages) if message.role is Role.USER), default=0)
    return [
        at
        for at, message in enumerate(request.messages[:last])
        if message.role is Role.ASSISTANT and message.thinking and (message.text or message.tool_calls)
    ]


class _Choice:
    """One choice's parser, and what the choice costs."""

    def __init__(self, number: int, parser: Parser, prompt_tokens: int) -> None:
        self._number = number
        self._parser = parser
        self._prompt_tokens = prompt_tokens
        self._completion_tokens = 0
        self._finished = False

    def read(self, chunk: Chunk) -> Iterator[Event]:
        assert not self._finished, f"choice {self._number} goes on after its finish"
        self._completion_tokens += len(chunk.ids)
        for event in self._parser.feed(chunk):
            yield event
            if isinstance(event, ThinkingDelta) and event.closed:
                data = {"tokens": self._parser.thinking_tokens}
                yield Annotation(kind="thought", data=data, choice=self._number)
        if chunk.finish is not None:
            self._finished = True
            yield self._usage(chunk.cached_tokens, chunk.timings or Timings())
            yield self._finish(chunk, chunk.finish)

    def break_off(self) -> Iterator[Event]:
        """What is left of a choice whose token model fell silent: no `Finish`, for none came."""
        if not self._finished:
            yield from self._parser.end()
            yield self._usage(0, Timings())

    def _usage(self, cached_tokens: int, timings: Timings) -> Usage:
        first = self._number == 0
        return Usage(
            prompt_tokens=self._prompt_tokens if first else 0,
            cached_tokens=cached_tokens if first else 0,
            thinking_tokens=self._parser.thinking_tokens,
            completion_tokens=self._completion_tokens,
            timings=timings,
            choice=self._number,
        )

    def _finish(self, chunk: Chunk, reason: FinishReason) -> Finish:
        if reason is FinishReason.END and self._parser.calls:
            reason = FinishReason.TOOL_CALLS
        return Finish(reason=reason, choice=self._number, stop=chunk.stop, error=chunk.error)
