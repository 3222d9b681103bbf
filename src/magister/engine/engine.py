"""A model behind the token socket: one thread that steps while there is work, and any number of callers beside it.

Everything that touches sequences, blocks or weights happens on the engine's own thread, one act after another: admit,
cancel, publish, step. An act asked for during a step comes before the next one. Knows no messages and no text.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch

from magister.engine import prefix
from magister.engine.checks import check_prompt, check_sampling
from magister.engine.fit import check_fit, check_runner, never_sampled
from magister.engine.grammar import Grammars
from magister.engine.limits import Limits
from magister.engine.mailbox import Mailbox, Outlet, ring
from magister.engine.reply import Reply, Request
from magister.engine.runner import Runner, TorchRunner
from magister.engine.sampler import Drawn, Row, Sampler, score
from magister.engine.scheduler import Scheduler
from magister.engine.sequence import Span
from magister.engine.stepper import Stepper
from magister.engine.vocabulary import Vocabulary
from magister.model.cache import KVFormat
from magister.model.network import Model
from magister.types import Busy, Chunk, Prompt, Sampling

_RETRY_AFTER = 1.0
"""Seconds that a caller turned away is told to wait."""
_SEND_EVERY = 0.002
"""Seconds between two wakings of the callers, unless a reply begins or ends: waking costs more than many a small step.
"""


class Load(NamedTuple):
    """How much an engine is doing, and has done since its start."""

    running: int
    """Sequences that hold blocks."""
    waiting: int
    """Sequences in line."""
    free_blocks: int
    """Blocks that nobody holds, idle ones included."""
    preemptions: int
    """How often a sequence lost its blocks to an older one."""
    idle_blocks: int
    """Blocks that nobody holds and whose contents can still be found."""
    steps: int
    """Steps taken."""
    tokens: int
    """Tokens computed, guesses included."""
    guessed: int
    """Tokens guessed ahead."""
    right: int
    """Guesses that were right."""


class Engine:
    """A `TokenModel` and `Updatable` over a model in this process. Use as a context manager, or `close` it.

    Callers may be on several event loops and threads. Close the iterator (`contextlib.aclosing`) to cancel: its blocks
    are free before the next step. A failure of a step reaches every caller in flight; the engine itself goes on.
    """

    def __init__(
        self,
        model: Model | Runner,
        vocabulary: Vocabulary,
        limits: Limits,
        *,
        kv: KVFormat | None = None,
        version: int = 0,
    ) -> None:
        """Takes the memory of the cache at once. ValueError where model, vocabulary and limits do not fit together.

        A torch model must be left alone from here on; new weights come by `publish`. `version` names those it has. `kv`
        is the format of its keys and values, None its own; a runner brings both.
        """
        check_fit(model.config, vocabulary, limits)
        if isinstance(model, Model):
            self._runner: Runner = TorchRunner(model, limits.blocks, limits.block_size, kv)
        else:
            check_runner(model, limits, kv)
            self._runner = model
        self.vocabulary = vocabulary
        self.limits = limits
        self._grammars = Grammars(vocabulary)
        self._vision = model.config.vision
        self._version = version
        self._mixed: set[str] = set()
        """Tensors whose replacement failed half-way."""
        self._epoch = 0
        self._never = never_sampled(model.config, vocabulary)
        self._sampler = Sampler(model.config.decoder.vocab_size, self._never, self._runner.device)
        self._scheduler = Scheduler(limits, prefix.root(version, 0))
        self._replies: dict[int, Reply] = {}
        self._next_number = 0
        self._steps = self._fails = self._tokens = self._guessed = self._right = 0
        self._unsent: list[Reply] = []
        self._sent = 0.0
        self._stepper = Stepper(self._step, self._fail, "magister-engine")
        self._lock = threading.Lock()
        self._open = 0

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """See `TokenModel.generate`. RuntimeError if a step failed or the engine was closed.

        What several steps gave a choice while nobody looked comes as one chunk.
        """
        if sampling.grammar is not None:
            await asyncio.to_thread(self.prepare, sampling)
        mailbox = Mailbox()
        request = self.submit(prompt, sampling, mailbox)
        unfinished = sampling.n
        try:
            while unfinished:
                for chunk in await mailbox.take():
                    unfinished -= chunk.finish is not None
                    yield chunk
        finally:
            if unfinished:
                self.cancel(request)

    def prepare(self, sampling: Sampling) -> None:
        """Compiles a request's grammar, which `submit` then finds done; from any thread. Raises `Refused`."""
        check_sampling(sampling, self.vocabulary)
        if sampling.grammar is not None:
            self._grammars.compile(sampling.grammar)

    def submit(self, prompt: Prompt, sampling: Sampling, outlet: Outlet) -> Request:
        """What `generate` begins with, for a caller that reads many requests together: chunks go where it says.

        Raises what `generate` raises. The caller must `cancel` what it does not read to its end.
        """
        check_sampling(sampling, self.vocabulary)
        check_prompt(prompt, self.vocabulary, self.limits.context, self._vision)
        request = Request(
            prompt=prompt,
            sampling=sampling,
            seed=secrets.randbits(63) if sampling.seed is None else sampling.seed,
            outlet=outlet,
            arrived=time.perf_counter(),
            grammar=None if sampling.grammar is None else self._grammars.compile(sampling.grammar),
        )
        self._enter(request)
        return request

    def cancel(self, request: Request) -> None:
        """Ends a request; its blocks are free before the next step. One that has ended stays so."""
        if not self._stepper.closed:
            try:
                self._stepper.submit(partial(self._cancel, request))
            except RuntimeError:
                # Closed since we looked: then nothing is left to cancel.
                return

    @property
    def pulse(self) -> tuple[int, int, int]:
        """Steps taken, sequences in flight, failures since the last step; at any time, without waiting for a step."""
        return self._steps, self._open, self._fails

    def publish(self, version: int, tensors: Mapping[str, Any]) -> None:
        """See `Updatable.publish`. Names are those of a native checkpoint; parameters not named stay as they are.

        Returns when the tensors have been copied, so that the caller may change them again; that takes until the step
        in progress ends. What sequences have in the cache stays theirs, and is not shared with later ones. ValueError
        for an unknown name, a wrong shape, and what is no tensor. Where copying fails half-way, every step fails until
        the same tensors have been published whole.
        """
        shapes = self._runner.shapes
        for name, tensor in tensors.items():
            if name not in shapes:
                raise ValueError(f"{name}: the model has no such tensor")
            if not isinstance(tensor, torch.Tensor):
                raise ValueError(f"{name}: is a {type(tensor).__name__}, must be a tensor")
            if tuple(tensor.shape) != shapes[name]:
                raise ValueError(f"{name}: has shape {tuple(tensor.shape)}, must have {shapes[name]}")
        self._stepper.ask(self._replace, version, tensors)

    def load(self) -> Load:
        """What is going on between two steps. Asserts on the way that no block is lost or held by the wrong ones."""
        return self._stepper.ask(self._audit)

    def close(self) -> None:
        """Ends everything: callers in flight get an error, the thread ends. Waits for the step in progress."""
        self._stepper.close(partial(self._fail, RuntimeError("the engine was closed")))

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
            if not self._stepper.closed and self._open + n > room:
                raise Busy(f"{self._open} sequences are in flight, {n} more exceed {room}", _RETRY_AFTER)
            self._stepper.submit(partial(self._admit, request))
            self._open += n

    # What the engine's thread does.

    def _admit(self, request: Request) -> None:
        try:
            replies = self._replies_to(request)
        except Exception as error:  # noqa: BLE001 - its own caller is told, and nobody else has a part in it
            with self._lock:
                self._open -= request.sampling.n
            request.outlet.fail(error)
            return
        for reply in replies:
            self._replies[reply.sequence.number] = reply
            self._scheduler.add(reply.sequence)

    def _replies_to(self, request: Request) -> list[Reply]:
        prompt, places = request.prompt, None
        if self._vision is not None and prompt.images:
            places = prefix.Places(prompt.ids, prompt.images, self._vision.image_token_id, self._vision.token_pixels)
        replies = []
        for choice in range(request.sampling.n):
            replies.append(Reply(request, choice, self._next_number, self.vocabulary, self.limits, places))
            self._next_number += 1
        self._scheduler.hash_prompts([reply.sequence for reply in replies])
        return replies

    def _cancel(self, request: Request) -> None:
        for reply in [reply for reply in self._replies.values() if reply.request is request]:
            self._drop(reply)

    def _replace(self, version: int, tensors: Mapping[str, Any]) -> None:
        self._send()
        self._epoch += 1
        self._scheduler.renew(prefix.root(version, self._epoch))
        self._mixed |= tensors.keys()
        self._runner.replace(tensors)
        self._mixed -= tensors.keys()
        self._version = version

    def _audit(self) -> Load:
        scheduler = self._scheduler
        scheduler.audit()
        assert len(self._replies) == len(scheduler.running) + len(scheduler.waiting)
        assert self._runner.remembered <= self._replies.keys()
        return Load(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            free_blocks=scheduler.pool.available,
            preemptions=scheduler.preemptions,
            idle_blocks=scheduler.pool.idle,
            steps=self._steps,
            tokens=self._tokens,
            guessed=self._guessed,
            right=self._right,
        )

    def _fail(self, error: BaseException) -> None:
        """Hands `error` to everyone in flight and starts afresh: what a failed step left behind cannot be trusted."""
        self._fails += 1
        # A reply that has ended has left `_replies`, but its caller still waits for what is unsent.
        for request in dict.fromkeys([reply.request for reply in (*self._replies.values(), *self._unsent)]):
            request.outlet.fail(error)
        with self._lock:
            self._open -= len(self._replies)
        self._runner.forget(self._replies)
        self._replies = {}
        self._unsent = []
        self._epoch += 1
        self._scheduler = Scheduler(self.limits, prefix.root(self._version, self._epoch))

    def _step(self) -> bool:
        """One step, if there is work; whether there is more."""
        scheduler = self._scheduler
        if not scheduler.busy:
            return False
        if self._mixed:
            raise RuntimeError(f"publishing failed half-way: {len(self._mixed)} tensors are of no version")
        if self.limits.speculation:
            self._guess()
        spans = scheduler.plan()
        if self._unsent and any(span.rows == 0 or span.stop - span.start > span.rows for span in spans):
            # A prompt may take long, and nobody shall wait for it with a token on the way.
            self._send()
        now = time.perf_counter()
        replies = [self._replies[span.sequence.number] for span in spans]
        rows: list[Row] = []
        for span, reply in zip(spans, replies, strict=True):
            if reply.started is None:
                reply.started = now
            if span.rows > span.scored:
                rows += reply.rows(span.draft)
        with torch.inference_mode():
            logits_bv = self._runner.run(spans)
            if any(span.scored for span in spans):
                logits_bv = _score(spans, replies, logits_bv)
            drawn = self._sampler.draw(logits_bv, rows)
        self._take(spans, replies, drawn)
        self._steps += 1
        self._fails = 0
        return scheduler.busy

    def _guess(self) -> None:
        decoding = [sequence for sequence in self._scheduler.running if sequence.remaining == 1]
        for sequence in decoding:
            sequence.draft = self._replies[sequence.number].guess(len(decoding), self._never)

    def _take(self, spans: list[Span], replies: list[Reply], drawn: list[Drawn | None]) -> None:
        """Books a step that has been computed, and sends what is due."""
        now = time.perf_counter()
        due = now - self._sent >= _SEND_EVERY
        place = 0
        for span, reply in zip(spans, replies, strict=True):
            self._tokens += span.stop - span.start
            rows = span.rows - span.scored
            if not rows:
                self._scheduler.commit(span, span.stop)
                continue
            if reply.first is None:
                reply.first, due = now, True
            right = reply.take(drawn[place : place + rows], span.draft, self._version)
            place += rows
            stop = span.stop
            if span.draft:
                self._guessed += len(span.draft)
                self._right += right
                # A reply that ended among its guesses has fewer ids than were right.
                stop = min(stop - len(span.draft) + right, len(span.sequence.ids))
            if not reply.failed:
                self._scheduler.commit(span, stop)
            self._unsent.append(reply)
            if reply.finished:
                due = True
                self._drop(reply)
        if due:
            self._send(now)

    def _send(self, now: float | None = None) -> None:
        """Puts what replies have to say into their mailboxes and wakes the callers. Drops requests of closed loops."""
        self._sent = time.perf_counter() if now is None else now
        requests: dict[int, Request] = {}
        for reply in dict.fromkeys(self._unsent):
            chunks = reply.chunks(self._version, self._sent)
            if chunks and reply.request.outlet.put(chunks):
                requests[id(reply.request)] = reply.request
        if requests:
            dead = ring([request.outlet for request in requests.values()])
            for request in [request for request in requests.values() if request.outlet in dead]:
                self._cancel(request)
        # Only now: whoever cannot be told what is unsent is told by `_fail` of what hindered it.
        self._unsent = []

    def _drop(self, reply: Reply) -> None:
        """Forgets a reply; one that is forgotten already stays so."""
        number = reply.sequence.number
        if self._replies.pop(number, None) is None:
            return
        self._scheduler.remove(reply.sequence, keep=not reply.failed)
        self._runner.forget([number])
        with self._lock:
            self._open -= 1


def _score(spans: list[Span], replies: list[Reply], logits_bv: torch.Tensor) -> torch.Tensor:
    """Tells replies how likely their prompts are. The rows that are left, to draw from."""
    left: list[int] = []
    place = 0
    for span, reply in zip(spans, replies, strict=True):
        if span.scored:
            sequence = span.sequence
            first = sequence.prompt_length - sequence.unscored
            ids = sequence.ids[first : first + span.scored]
            reply.score(score(logits_bv[place : place + span.scored], ids, reply.request.sampling.top_logprobs))
        left += range(place + span.scored, place + span.rows)
        place += span.rows
    return logits_bv[left]
