"""The only adapter: a token model and a renderer make a chat model.

Renders the request, reads the token model's chunks, and says them as events. Knows nothing of tensors, dialects or
servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from magister.text import Parser, Renderer
from magister.types import (
    Annotation,
    ChatRequest,
    Chunk,
    Event,
    Finish,
    FinishReason,
    ThinkingDelta,
    Timings,
    TokenModel,
    Usage,
)


@dataclass(frozen=True)
class LocalChat:
    """A chat model on this machine."""

    token_model: TokenModel
    renderer: Renderer

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Events of all choices; closing the iterator closes the token model's."""
        # A long prompt or an image takes long enough to tokenise that other streams would notice.
        prompt = await asyncio.to_thread(self.renderer.render, request)
        choices: dict[int, _Choice] = {}
        async with aclosing(self.token_model.generate(prompt, request.sampling)) as chunks:
            async for chunk in chunks:
                if chunk.choice not in choices:
                    parser = self.renderer.parser(prompt, request, chunk.choice)
                    choices[chunk.choice] = _Choice(chunk.choice, parser, len(prompt.ids))
                for event in choices[chunk.choice].read(chunk):
                    yield event
            for choice in choices.values():
                for event in choice.break_off():
                    yield event


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
