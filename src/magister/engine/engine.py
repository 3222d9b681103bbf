"""A model behind the token socket: one thread that steps while there is work, and any number of callers beside it.

Everything that touches sequences, blocks or weights happens on the engine's own thread, one act after another: admit,
cancel, publish, step. The queue of a one-thread executor is that order, so an act asked for during a step comes before
the next one. Knows no messages and no text.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import torch
from torch import Tensor

from magister.engine.checks import check_prompt, check_sampling
from magister.engine.limits import Limits
from magister.engine.mailbox import Mailbox
from magister.engine.reply import Reply, Request
from magister.engine.runner import Runner
from magister.engine.sampler import Sampler
from magister.engine.scheduler import Scheduler
from magister.engine.vocabulary import Vocabulary
from magister.model.network import Model, native_parameters
from magister.types import Busy, Chunk, Prompt, Sampling

P = ParamSpec("P")
T = TypeVar("T")

_RETRY_AFTER = 1.0
"""Seconds that a caller turned away is told to wait."""


class Load(NamedTuple):
    """How much an engine is doing."""

    running: int
    """Sequences that hold blocks."""
    waiting: int
    """Sequences in line."""
    free_blocks: int
    """Blocks that nobody holds."""
    preemptions: int
    """How often a sequence lost its blocks to an older one, since the start."""


class Engine:
    """A `TokenModel` and `Updatable` over a model in this process. Use as a context manager, or `close` it.

    Callers may be on several event loops and threads. Close the iterator (`contextlib.aclosing`) to cancel: its blocks
    are free before the next step. A failure of a step reaches every caller in flight; the engine itself goes on.
    """

    def __init__(self, model: Model, vocabulary: Vocabulary, limits: Limits, *, version: int = 0) -> None:
        """Takes the memory of the cache at once. ValueError where model, vocabulary and limits do not fit together.

        The model must be left alone from here on; new weights come by `publish`. `version` names those it has.
        """
        decoder, vision = model.config.decoder, model.config.vision
        if len(vocabulary.pieces) > decoder.vocab_size:
            raise ValueError(f"pieces has {len(vocabulary.pieces)} tokens, the model {decoder.vocab_size}")
        if limits.context > decoder.max_position_embeddings:
            raise ValueError(f"context is {limits.context}, the model holds {decoder.max_position_embeddings}")
        never = vocabulary.never | set(range(len(vocabulary.pieces), decoder.vocab_size))
        if vision is not None:
            never |= {vision.image_token_id, vision.image_break_token_id, vision.image_end_token_id}
        self.vocabulary = vocabulary
        self.limits = limits
        self._vision = vision
        self._version = version
        self._runner = Runner(model, limits.blocks, limits.block_size)
        self._sampler = Sampler(decoder.vocab_size, never, self._runner.device)
        self._scheduler = Scheduler(limits)
        self._replies: dict[int, Reply] = {}
        self._next_number = 0
        self._stepping = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="magister-engine")
        self._lock = threading.Lock()
        self._open = 0
        self._closed = False

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """See `TokenModel.generate`. RuntimeError if a step failed or the engine was closed."""
        check_sampling(sampling, self.vocabulary)
        check_prompt(prompt, self.vocabulary, self.limits.context, self._vision)
        request = Request(
            prompt=prompt,
            sampling=sampling,
            seed=secrets.randbits(63) if sampling.seed is None else sampling.seed,
            mailbox=Mailbox(),
            arrived=time.perf_counter(),
        )
        self._enter(request)
        unfinished = sampling.n
        try:
            while unfinished:
                for chunk in await request.mailbox.take():
                    unfinished -= chunk.finish is not None
                    yield chunk
        finally:
            if unfinished:
                self._leave(request)

    def publish(self, version: int, tensors: Mapping[str, Any]) -> None:
        """See `Updatable.publish`. Names are those of a native checkpoint; parameters not named stay as they are.

        Returns when the tensors have been copied, so that the caller may change them again; that takes until the step
        in progress ends. What sequences have in the cache stays. ValueError for an unknown name or a wrong shape.
        """
        parameters = dict(native_parameters(self._runner.model))
        for name, tensor in tensors.items():
            if name not in parameters:
                raise ValueError(f"{name}: the model has no such tensor")
            if tensor.shape != parameters[name].shape:
                raise ValueError(f"{name}: has shape {tuple(tensor.shape)}, must have {tuple(parameters[name].shape)}")
        self._ask(self._replace, version, [(parameters[name], tensor) for name, tensor in tensors.items()])

    def load(self) -> Load:
        """What is going on between two steps. Asserts on the way that no block is lost or held twice."""
        return self._ask(self._audit)

    def close(self) -> None:
        """Ends everything: callers in flight get an error, the thread ends. Waits for the step in progress."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            ended = self._executor.submit(self._fail, RuntimeError("the engine was closed"))
        ended.result()
        self._executor.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What callers' threads do.

    def _enter(self, request: Request) -> None:
        n = request.sampling.n
        with self._lock:
            room = self.limits.running + self.limits.waiting
            if not self._closed and self._open + n > room:
                raise Busy(f"{self._open} sequences are in flight, {n} more exceed {room}", _RETRY_AFTER)
            self._submit(self._admit, request).add_done_callback(self._watch)
            self._open += n

    def _leave(self, request: Request) -> None:
        with self._lock:
            if not self._closed:
                self._submit(self._cancel, request).add_done_callback(self._watch)

    def _ask(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Has the engine's thread do something between two steps, and waits for it."""
        with self._lock:
            future = self._submit(act, *args, **kwargs)
        return future.result()

    def _submit(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        assert self._lock.locked()
        if self._closed:
            raise RuntimeError("the engine is closed")
        return self._executor.submit(act, *args, **kwargs)

    def _watch(self, future: Future[None]) -> None:
        """Sees to it that no failure on the engine's thread leaves a caller waiting."""
        error = future.exception()
        if error is not None:
            self._executor.submit(self._fail, error)

    # What the engine's thread does.

    def _admit(self, request: Request) -> None:
        for choice in range(request.sampling.n):
            reply = Reply(request, choice, self._next_number, self.vocabulary, self.limits.context)
            self._next_number += 1
            self._replies[reply.sequence.number] = reply
            self._scheduler.add(reply.sequence)
        self._step_soon()

    def _cancel(self, request: Request) -> None:
        for reply in [reply for reply in self._replies.values() if reply.request is request]:
            self._drop(reply)

    def _replace(self, version: int, pairs: list[tuple[Tensor, Tensor]]) -> None:
        with torch.no_grad():
            for parameter, tensor in pairs:
                parameter.copy_(tensor)
        self._version = version

    def _audit(self) -> Load:
        scheduler = self._scheduler
        scheduler.audit()
        assert len(self._replies) == len(scheduler.running) + len(scheduler.waiting)
        assert self._runner.remembered <= self._replies.keys()
        return Load(len(scheduler.running), len(scheduler.waiting), scheduler.pool.available, scheduler.preemptions)

    def _fail(self, error: BaseException) -> None:
        """Hands `error` to everyone in flight and starts afresh: what a failed step left behind cannot be trusted."""
        for reply in self._replies.values():
            reply.request.mailbox.fail(error)
        with self._lock:
            self._open -= len(self._replies)
        self._runner.forget(self._replies)
        self._replies = {}
        self._scheduler = Scheduler(self.limits)

    def _step_soon(self) -> None:
        if not self._stepping and self._scheduler.busy:
            self._stepping = True
            self._executor.submit(self._turn).add_done_callback(self._watch)

    def _turn(self) -> None:
        self._stepping = False
        if self._scheduler.busy:
            with torch.inference_mode():
                self._step()
            self._step_soon()

    def _step(self) -> None:
        spans = self._scheduler.plan()
        now = time.perf_counter()
        for span in spans:
            self._replies[span.sequence.number].start(now)
        replies = [self._replies[span.sequence.number] for span in spans if span.samples]
        logits_bv = self._runner.run(spans)
        drawn = self._sampler.draw(logits_bv, [reply.row() for reply in replies])
        for span in spans:
            self._scheduler.commit(span)
        now = time.perf_counter()
        for reply, token in zip(replies, drawn, strict=True):
            self._deliver(reply, reply.push(token, self._version, now))

    def _deliver(self, reply: Reply, chunks: list[Chunk]) -> None:
        if reply.finished:
            self._drop(reply)
        if chunks and not reply.request.mailbox.put(chunks):
            self._cancel(reply.request)

    def _drop(self, reply: Reply) -> None:
        """Forgets a reply; one that is forgotten already stays so, as when its request ended earlier in this step."""
        number = reply.sequence.number
        if self._replies.pop(number, None) is None:
            return
        self._scheduler.remove(reply.sequence)
        self._runner.forget([number])
        with self._lock:
            self._open -= 1
