"""A chat model that says what it is told to, at once: for tests, and for measuring a server alone.

One of the two sockets like any other model. Knows no tokens: a token is a word here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import lru_cache

from magister.types import ChatRequest, Event, Finish, FinishReason, TextDelta, ThinkingDelta, Usage


@dataclass(frozen=True)
class MockChat:
    """Says the same to everybody: a thought and a text, a word an event."""

    thinking: str = "The user greets."
    text: str = "Hello there, how are you?"
    seconds: float = 0.0
    """Between two words."""

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """See `ChatModel.chat`."""
        prompt = sum(len(message.text.split()) for message in request.messages)
        for choice in range(request.sampling.n):
            for event in _events(self.thinking, self.text, choice, prompt if choice == 0 else 0):
                if self.seconds:
                    await asyncio.sleep(self.seconds)
                yield event


@lru_cache
def _events(thinking: str, text: str, choice: int, prompt: int) -> tuple[Event, ...]:
    """All that is said in one choice."""
    thought, said = _words(thinking), _words(text)
    count = len(thought) + len(said)
    return (
        *(ThinkingDelta(text=word, choice=choice, closed=at == len(thought)) for at, word in enumerate(thought, 1)),
        *(TextDelta(text=word, choice=choice) for word in said),
        Usage(prompt_tokens=prompt, thinking_tokens=len(thought), completion_tokens=count, choice=choice),
        Finish(reason=FinishReason.END, choice=choice),
    )


def _words(text: str) -> list[str]:
    """Words with the blank before them, so that joining them gives the text."""
    words: list[str] = []
    for word in text.split(" "):
        words.append(f" {word}" if words else word)
    return [word for word in words if word]
