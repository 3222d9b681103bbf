"""The Python face: `magister.load("nano").chat("What is 17 * 24?")`, synchronous, with asynchronous twins.

Everything runs on one event loop in a thread of its own, so that it works from scripts, notebooks and
inside other event loops alike.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict, Unpack

import msgspec

from magister.cli import compose
from magister.types import (
    ChatRequest,
    Event,
    Image,
    Message,
    Part,
    Reply,
    SystemPrompt,
    Text,
    Usage,
    fold,
    user,
)
from magister.types import (
    system as system_message,
)


class SamplingOptions(TypedDict, total=False):
    """`types.Sampling`'s fields that a caller may set by keyword."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    frequency_penalty: float
    presence_penalty: float
    logit_bias: dict[int, float]
    seed: int | None
    max_tokens: int | None
    thinking_tokens: int | None
    stop: tuple[str, ...]
    logprobs: bool
    top_logprobs: int
    n: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole reply; all choices are in `reply`."""

    model: str
    reply: Reply

    @property
    def thinking(self) -> str:
        """The thought of the first choice; empty where there was none."""
        return self.reply.message.thinking

    @property
    def answer(self) -> str:
        """The text after the thought."""
        return self.reply.message.text

    @property
    def message(self) -> Message:
        """The reply as a message, to go on with in a conversation."""
        return self.reply.message

    @property
    def finish_reason(self) -> str:
        """Why it ended: end, stop, length, tool_calls, error."""
        reason = self.reply.choices[0].finish
        return "" if reason is None else reason.value

    @property
    def usage(self) -> Usage:
        """Tokens and timings of the first choice."""
        return self.reply.choices[0].usage

    def __str__(self) -> str:
        return self.answer


Prompted = str | Sequence[Message]
"""A user's words, or a whole conversation."""


class LocalModel:
    """A model in this process. Use as a context manager, or `close` it; a forgotten one is closed on collection."""

    def __init__(self, loaded: compose.Loaded) -> None:
        self.name = loaded.name
        self.loaded = loaded
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name="magister-face", daemon=True)
        thread.start()
        self._close = weakref.finalize(self, _shut, self._loop, thread, loaded)

    def chat(
        self,
        prompt: Prompted,
        *,
        system: str | None = None,
        images: Iterable[str | Path | bytes] = (),
        system_prompt: SystemPrompt = SystemPrompt.ADD,
        **sampling: Unpack[SamplingOptions],
    ) -> Answer:
        """The whole answer to `prompt`.

        `images` are paths or the bytes of image files, put before the words. Raises `ValueError` for what the model
        cannot take (`types.Refused`, `types.TooLong`).
        """
        return Answer(
            self.name, fold(self.stream(prompt, system=system, images=images, system_prompt=system_prompt, **sampling))
        )

    def stream(
        self,
        prompt: Prompted,
        *,
        system: str | None = None,
        images: Iterable[str | Path | bytes] = (),
        system_prompt: SystemPrompt = SystemPrompt.ADD,
        **sampling: Unpack[SamplingOptions],
    ) -> Generator[Event, None, None]:
        """The answer's events as they come. Closing the iterator stops the work."""
        request = self._request(prompt, system, images, system_prompt, sampling)
        events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
        task = asyncio.run_coroutine_threadsafe(self._pump(request, events), self._loop)
        try:
            while (event := events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            task.cancel()

    async def achat(
        self,
        prompt: Prompted,
        *,
        system: str | None = None,
        images: Iterable[str | Path | bytes] = (),
        system_prompt: SystemPrompt = SystemPrompt.ADD,
        **sampling: Unpack[SamplingOptions],
    ) -> Answer:
        """`chat`, awaited on the caller's loop."""
        stream = self.astream(prompt, system=system, images=images, system_prompt=system_prompt, **sampling)
        return Answer(self.name, fold([event async for event in stream]))

    async def astream(
        self,
        prompt: Prompted,
        *,
        system: str | None = None,
        images: Iterable[str | Path | bytes] = (),
        system_prompt: SystemPrompt = SystemPrompt.ADD,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncGenerator[Event, None]:
        """`stream`, on the caller's loop. Close it (`contextlib.aclosing`) to stop the work."""
        request = self._request(prompt, system, images, system_prompt, sampling)
        async with aclosing(self.loaded.chat.chat(request)) as events:
            async for event in events:
                yield event

    def close(self) -> None:
        """Stop the engine and free its memory."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _pump(self, request: ChatRequest, events: queue.SimpleQueue[Event | BaseException | None]) -> None:
        try:
            async with aclosing(self.loaded.chat.chat(request)) as stream:
                async for event in stream:
                    events.put(event)
            events.put(None)
        except (ValueError, RuntimeError, OSError) as error:
            events.put(error)

    def _request(
        self,
        prompt: Prompted,
        system: str | None,
        images: Iterable[str | Path | bytes],
        system_prompt: SystemPrompt,
        options: SamplingOptions,
    ) -> ChatRequest:
        pictures = [Image(picture if isinstance(picture, bytes) else Path(picture).read_bytes()) for picture in images]
        if isinstance(prompt, str):
            parts: list[Part] = [*pictures, Text(prompt)]
            messages: tuple[Message, ...] = (user(*parts),)
        else:
            messages = tuple(prompt)
            if pictures:
                raise ValueError("images: belong into the messages of a conversation")
        if system is not None:
            messages = (system_message(system), *messages)
        sampling = msgspec.structs.replace(self.loaded.form.sampling, **options)
        return ChatRequest(messages=messages, model=self.name, sampling=sampling, system_prompt=system_prompt)


def load(model: str = "nano", *, device: str = "auto", dtype: str = "auto") -> LocalModel:
    """A model by name (`nano`) or by the path of a checkpoint folder, ready to chat.

    `device`: auto, cpu, cuda; `dtype`: auto, fp32, bf16, fp16. Raises `ValueError` for what is no checkpoint, a broken
    one, or one that this machine cannot hold.
    """
    return LocalModel(compose.load(model, device=device, dtype=dtype))


def _shut(loop: asyncio.AbstractEventLoop, thread: threading.Thread, loaded: compose.Loaded) -> None:
    loop.call_soon_threadsafe(loop.stop)
    if threading.current_thread() is not thread:
        thread.join(timeout=10)
    loop.close()
    loaded.engine.close()
