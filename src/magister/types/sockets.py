"""The two sockets everything composes through, and the one for weights in flight.

Closing an iterator (`contextlib.aclosing`) cancels the work behind it, all the way down.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from magister.types.events import Event
from magister.types.requests import ChatRequest
from magister.types.tokens import Chunk, Prompt, Sampling


class TokenModel(Protocol):
    """Tokens in, tokens out."""

    def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """Chunks of all `sampling.n` sequences, each named by its `choice`, as steps give them.

        Raises, at the first step of the iterator, `TooLong`, `Refused` or `Busy`.
        """
        ...


class ChatModel(Protocol):
    """Messages in, events out."""

    def chat(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Events of all choices; each choice's last one is its `Finish`.

        Raises, at the first step of the iterator, `TooLong`, `Refused`, `Busy` or `Upstream`.
        """
        ...


class Updatable(Protocol):
    """A token model whose weights may be replaced while sequences continue."""

    def publish(self, version: int, tensors: Mapping[str, Any]) -> None:
        """Use these tensors from the next step on; chunks from then on carry `version`."""
        ...
