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
from magister.cli.flags import Flags
from magister.cli.placement import Placement
from magister.types import (
    ChatRequest,
    Event,
    Image,
    Message,
    Part,
    Refused,
    Reply,
    Sampling,
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
    stop: str | tuple[str, ...]
    logprobs: bool
    top_logprobs: int
    n: int
    ignore_end: bool
    grammar: str | None


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
        if not self._close.alive:
            raise RuntimeError(f"the model {self.name} is closed")
        events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        future = asyncio.run_coroutine_threadsafe(self._pump(request, events), self._loop)
        future.add_done_callback(lambda _: events.put(None))
        try:
            while (event := events.get()) is not None:
                yield event
            future.result()
        finally:
            future.cancel()

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

    async def _pump(self, request: ChatRequest, events: queue.SimpleQueue[Event | None]) -> None:
        async with aclosing(self.loaded.chat.chat(request)) as stream:
            async for event in stream:
                events.put(event)

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
            if not all(isinstance(message, Message) for message in messages):
                raise ValueError("prompt: must be a string or a sequence of magister.types.Message")
            if pictures:
                raise ValueError("images: belong into the messages of a conversation")
        if system is not None:
            messages = (system_message(system), *messages)
        sampling = read_sampling(self.loaded.form.sampling, options)
        return ChatRequest(messages=messages, model=self.name, sampling=sampling, system_prompt=system_prompt)


def read_sampling(base: Sampling, options: SamplingOptions) -> Sampling:
    """`base` with the options given; one stop string may stand for a tuple of one.

    Raises `Refused` for an unknown option or one of the wrong type.
    """
    unknown = set(options) - set(Sampling.__struct_fields__)
    if unknown:
        raise Refused("sampling", f"has no {', '.join(sorted(unknown))}")
    given: dict[str, object] = {name: getattr(base, name) for name in Sampling.__struct_fields__} | dict(options)
    if isinstance(given["stop"], str):
        given["stop"] = (given["stop"],)
    try:
        return msgspec.convert(given, Sampling)
    except msgspec.ValidationError as error:
        raise Refused("sampling", str(error)) from error


def load(model: str = "nano", **how: Unpack[Flags]) -> LocalModel:
    """A model by name (`nano`) or by the path of a checkpoint, ready to chat.

    `device`: auto, cpu, cuda; `dtype`: auto, fp32, bf16, fp16; `context`: tokens of prompt and answer to make room for,
    None for as many as the checkpoint is made for and memory holds; `kv`: of keys and values, auto, fp32, bf16, int8;
    `kernels`: on a CPU, auto, torch, or an instruction set; `threads`: of the compiled kernels; `speculation`: tokens
    guessed ahead at most. See `placement.Placement`. Raises `ValueError` for a choice that there is not, for what is no
    checkpoint, a broken one, or one that this machine cannot hold, `TypeError` for another name.
    """
    return LocalModel(compose.load(model, Placement(**how)))


def _shut(loop: asyncio.AbstractEventLoop, thread: threading.Thread, loaded: compose.Loaded) -> None:
    # The engine first: that fails whatever is in flight, so that nobody waits for a loop that has stopped.
    loaded.engine.close()
    if threading.current_thread() is thread:
        loop.stop()
        return
    asyncio.run_coroutine_threadsafe(_end_tasks(), loop).result(timeout=10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)
    loop.close()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
