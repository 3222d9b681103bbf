"""One choice of a request on its way out: what its next token is drawn under, and the chunks its tokens become.

Tokens that may belong to a stop string are held back until it is clear whether they do. Knows no tensors, no blocks and
no threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from magister.engine.constraints import Found, StopStrings, Thought
from magister.engine.mailbox import Mailbox
from magister.engine.randomness import choice_seed, uniform
from magister.engine.sampler import Drawn, Row
from magister.engine.sequence import Sequence
from magister.engine.vocabulary import Vocabulary
from magister.types import Chunk, FinishReason, OpenAt, Prompt, Sampling, Timings

NOTHING_TO_DRAW = "the model's logits are not finite, or every token was ruled out"
"""What is said of a choice whose row of logits gave no token."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Request:
    """One call of `generate`: what was asked, and where the answer goes."""

    prompt: Prompt
    sampling: Sampling
    seed: int
    """`sampling.seed`, or a fresh one."""
    mailbox: Mailbox
    arrived: float
    """`time.perf_counter` at the call."""


class _Held(NamedTuple):
    drawn: Drawn
    version: int
    size: int


class _Ending(NamedTuple):
    finish: FinishReason | None = None
    trim: int = 0
    stop: str | None = None
    error: str | None = None
    timings: Timings | None = None


_GOES_ON = _Ending()


class Reply:
    """One choice: its sequence, its constraints and what has not been sent yet."""

    def __init__(self, request: Request, choice: int, number: int, vocabulary: Vocabulary, context: int) -> None:
        """`number` names the sequence; `context` is the length at which it must end."""
        prompt, sampling = request.prompt, request.sampling
        self.request = request
        self.finished = False
        """Whether the last chunk has been given."""
        self.sequence = Sequence(
            number=number, ids=list(prompt.ids), prompt_length=len(prompt.ids), images=prompt.images
        )
        self._sampling = sampling
        self._choice = choice
        self._seed = choice_seed(request.seed, choice)
        self._end = None if sampling.ignore_end else vocabulary.end
        self._pieces = vocabulary.pieces
        longest = context if sampling.max_tokens is None else len(prompt.ids) + sampling.max_tokens
        self._full = min(context, longest)
        self._thought = _thought(prompt, sampling, vocabulary)
        self._stops = StopStrings(sampling.stop) if sampling.stop else None
        self._counts: dict[int, int] = {}
        self._counting = bool(sampling.frequency_penalty or sampling.presence_penalty)
        self._held: list[_Held] = []
        self._started: float | None = None
        self._first: float | None = None

    def start(self, now: float) -> None:
        """Notes that a step works on it; the first one counts."""
        if self._started is None:
            self._started = now

    def row(self) -> Row:
        """What the next token is drawn under."""
        luck = uniform(self._seed, len(self.sequence.ids)) if self._sampling.temperature else 0.0
        thought = self._thought
        if thought is None:
            return Row(self._sampling, luck, self._counts)
        return Row(self._sampling, luck, self._counts, thought.forced, thought.banned)

    def push(self, drawn: Drawn | None, version: int, now: float) -> list[Chunk]:
        """Takes the next token, or None where there was nothing to draw; gives what may be sent now."""
        if self._first is None:
            self._first = now
        if drawn is None:
            return self._close(FinishReason.ERROR, None, version, now)
        id_ = drawn.id
        piece = self._pieces[id_]
        self.sequence.ids.append(id_)
        self._held.append(_Held(drawn, version, len(piece)))
        if self._counting:
            self._counts[id_] = self._counts.get(id_, 0) + 1
        if self._thought is not None:
            self._thought.push(id_)
        found = self._stops.push(piece) if self._stops is not None else None
        if id_ == self._end:
            return self._close(FinishReason.END, None, version, now)
        if found is not None:
            return self._close(FinishReason.STOP, found, version, now)
        if len(self.sequence.ids) >= self._full:
            return self._close(FinishReason.LENGTH, None, version, now)
        return self._send(self._before(0 if self._stops is None else self._stops.held))

    def _before(self, keep: int) -> int:
        """How many held tokens end before the last `keep` bytes."""
        count = len(self._held)
        while keep > 0:
            count -= 1
            keep -= self._held[count].size
        return count

    def _send(self, count: int) -> list[Chunk]:
        """The first `count` held tokens as chunks, one for each version of the weights."""
        if not count:
            return []
        ready, self._held = self._held[:count], self._held[count:]
        return [self._chunk(list(tokens), version) for version, tokens in groupby(ready, lambda held: held.version)]

    def _close(self, reason: FinishReason, found: Found | None, version: int, now: float) -> list[Chunk]:
        """All that is left. The very last chunk has every byte of the stop string, even of tokens of older weights."""
        self.finished = True
        trim = 0 if found is None else found.trim
        older = sum(held.version != version for held in self._held)
        chunks = self._send(min(older, self._before(trim)))
        assert self._started is not None
        assert self._first is not None
        timings = Timings(
            queued=self._started - self.request.arrived, prefill=self._first - self._started, decode=now - self._first
        )
        error = NOTHING_TO_DRAW if reason is FinishReason.ERROR else None
        ending = _Ending(reason, trim, None if found is None else found.stop, error, timings)
        return [*chunks, self._chunk(self._held, version, ending)]

    def _chunk(self, tokens: list[_Held], version: int, ending: _Ending = _GOES_ON) -> Chunk:
        drawn = [held.drawn for held in tokens]
        reports = [one.report for one in drawn if one.report is not None]
        return Chunk(
            choice=self._choice,
            ids=tuple([one.id for one in drawn]),
            logprobs=tuple([report.logprob for report in reports]),
            sampled_logprobs=tuple([report.sampled_logprob for report in reports]),
            forced=tuple([one.forced for one in drawn]),
            version=version,
            entropy=tuple([report.entropy for report in reports]) if self._sampling.logprobs else None,
            top=tuple([report.top for report in reports]) if self._sampling.top_logprobs else None,
            finish=ending.finish,
            trim=ending.trim,
            stop=ending.stop,
            error=ending.error,
            timings=ending.timings,
        )


def _thought(prompt: Prompt, sampling: Sampling, vocabulary: Vocabulary) -> Thought | None:
    """The follower of a capped thought; without a cap there is nothing to follow."""
    if sampling.thinking_tokens is None:
        return None
    assert vocabulary.think is not None
    assert vocabulary.end_think is not None
    inside = prompt.open_at is OpenAt.THOUGHT
    return Thought(vocabulary.think, vocabulary.end_think, sampling.thinking_tokens, inside)
