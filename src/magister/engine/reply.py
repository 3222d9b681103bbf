"""One choice of a request on its way out: what its next tokens are drawn under, and the chunks they become.

Tokens that may belong to a stop string are held back until it is clear whether they do. Knows no tensors, no blocks and
no threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, takewhile
from math import isfinite
from typing import NamedTuple

from magister.engine.constraints import Found, StopStrings, Thought
from magister.engine.grammar import Grammar
from magister.engine.limits import Limits
from magister.engine.mailbox import Outlet
from magister.engine.prefix import Places
from magister.engine.randomness import choice_seed, uniform
from magister.engine.sampler import Drawn, Report, Row
from magister.engine.sequence import Sequence
from magister.engine.speculation import Confidence, NGrams
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
    outlet: Outlet
    arrived: float
    """`time.perf_counter` at the call."""
    grammar: Grammar | None = None
    """What `sampling.grammar` says, compiled."""


class _Held(NamedTuple):
    drawn: Drawn
    version: int
    size: int


class _Ending(NamedTuple):
    finish: FinishReason | None = None
    found: Found | None = None
    error: str | None = None


_GOES_ON = _Ending()


class Reply:
    """One choice: its sequence, its constraints and what has not been sent yet."""

    def __init__(
        self, request: Request, choice: int, number: int, vocabulary: Vocabulary, limits: Limits, places: Places | None
    ) -> None:
        """`number` names the sequence; `places` are of the prompt's images."""
        prompt, sampling = request.prompt, request.sampling
        self.request = request
        self.sequence = Sequence(
            number=number, ids=list(prompt.ids), prompt_length=len(prompt.ids), images=prompt.images, places=places
        )
        # Nothing comes before a prompt's first token that could make it likely.
        self._lost = False
        self._scores: list[Report] | None = [] if sampling.prompt_logprobs and choice == 0 else None
        self.sequence.unscored = 0 if self._scores is None else len(prompt.ids) - 1
        self._sampling = sampling
        self._choice = choice
        self._seed = choice_seed(request.seed, choice)
        self._end = None if sampling.ignore_end else vocabulary.end
        self._pieces = vocabulary.pieces
        longest = limits.context if sampling.max_tokens is None else len(prompt.ids) + sampling.max_tokens
        self._full = min(limits.context, longest)
        self._thought = _thought(prompt, sampling, vocabulary, self._full - len(prompt.ids))
        self._guide = None if request.grammar is None else request.grammar.follow(prompt.open_at)
        self._stops = StopStrings(sampling.stop) if sampling.stop else None
        self._counts: dict[int, int] = {}
        self._counting = bool(sampling.frequency_penalty or sampling.presence_penalty)
        self._guesser = NGrams(self.sequence.ids) if limits.speculation else None
        self._confidence = Confidence(limits.speculation, limits.row_cost)
        self._held: list[_Held] = []
        self._ending = _GOES_ON
        self.started: float | None = None
        """When a step first worked on it."""
        self.first: float | None = None
        """When it had its first token."""

    @property
    def finished(self) -> bool:
        """Whether its last token has been taken."""
        return self._ending.finish is not None

    @property
    def failed(self) -> bool:
        """Whether there was nothing to draw."""
        return self._ending.finish is FinishReason.ERROR

    def guess(self, streams: int, never: frozenset[int]) -> tuple[int, ...]:
        """Guesses at the next tokens, where they are worth it in a step that decodes `streams` sequences.

        None of `never`, which are not sampled: the prompt may have them, and image tokens cannot be computed alone.
        """
        if self._guesser is None:
            return ()
        # The last token of all needs no guess: it is drawn behind the one before.
        room = self._full - len(self.sequence.ids) - 1
        count = min(self._confidence.guesses(streams), room)
        draft = self._guesser.follow(count) if count > 0 else ()
        if not never.isdisjoint(draft):
            draft = tuple(takewhile(lambda id_: id_ not in never, draft))
        return draft if self._guide is None else self._guide.fit(draft)

    def rows(self, draft: tuple[int, ...] = ()) -> list[Row]:
        """What the next token is drawn under, and then each one after a guess, should the guesses be right."""
        sampling, position = self._sampling, len(self.sequence.ids)
        warm, thought, counts = sampling.temperature > 0, self._thought, self._counts
        masks = None if self._guide is None else self._guide.along(draft)
        if not draft and thought is None and masks is None:
            return [Row(sampling, uniform(self._seed, position) if warm else 0.0, counts)]
        rows: list[Row] = []
        for place in range(len(draft) + 1):
            if place and self._counting:
                counts = counts | {draft[place - 1]: counts.get(draft[place - 1], 0) + 1}
            if place and thought is not None:
                thought = thought.copy()
                thought.push(draft[place - 1])
            luck = uniform(self._seed, position + place) if warm else 0.0
            forced, banned = (None, None) if thought is None else (thought.forced, thought.banned)
            rows.append(Row(sampling, luck, counts, forced, banned, None if masks is None else masks[place]))
        return rows

    def score(self, reports: list[Report]) -> None:
        """Takes what is told of the prompt's next tokens."""
        assert self._scores is not None
        self._scores += reports
        self._lost = self._lost or not all(isfinite(report.logprob) for report in reports)
        self.sequence.unscored -= len(reports)

    def take(self, drawn: list[Drawn | None], draft: tuple[int, ...], version: int) -> int:
        """Takes the outcomes of `rows(draft)` as far as the guesses were right, and as the reply goes on.

        None is a row with nothing to draw. Returns how many guesses were right.
        """
        if self._lost:
            # A number that is none cannot be told, and what follows it is worth nothing.
            drawn = [None]
        elif len(self.sequence.ids) >= self._full:
            # Nothing but the prompt's own probabilities was asked for.
            self._ending = _Ending(FinishReason.LENGTH)
            return 0
        if not draft:
            self._push(drawn[0], version)
            return 0
        right = 0
        for place, one in enumerate(drawn):
            self._push(one, version)
            if self.finished or place == len(draft) or one is None or one.id != draft[place]:
                break
            right += 1
        self._confidence.learn(len(draft), right)
        return right

    def chunks(self, version: int, now: float) -> list[Chunk]:
        """What may be sent now, with `version` the last token's."""
        if self._ending.finish is not None:
            return self._close(version, now)
        return self._send(len(self._held) if self._stops is None else self._before(self._stops.held))

    def _push(self, drawn: Drawn | None, version: int) -> None:
        if drawn is None:
            error = None if self._guide is None else self._guide.error
            self._ending = _Ending(FinishReason.ERROR, error=error or NOTHING_TO_DRAW)
            return
        id_ = drawn.id
        piece = self._pieces[id_]
        ids = self.sequence.ids
        ids.append(id_)
        self._held.append(_Held(drawn, version, len(piece)))
        if self._counting:
            self._counts[id_] = self._counts.get(id_, 0) + 1
        if self._thought is not None:
            self._thought.push(id_)
        if self._guide is not None:
            self._guide.push(id_)
        found = self._stops.push(piece) if self._stops is not None else None
        if id_ == self._end:
            self._ending = _Ending(FinishReason.END)
        elif found is not None:
            self._ending = _Ending(FinishReason.STOP, found)
        elif len(ids) >= self._full:
            self._ending = _Ending(FinishReason.LENGTH)

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
        if ready[0].version == ready[-1].version:
            return [self._chunk(ready, ready[0].version)]
        return [self._chunk(list(tokens), version) for version, tokens in groupby(ready, lambda held: held.version)]

    def _close(self, version: int, now: float) -> list[Chunk]:
        """All that is left. The very last chunk has every byte of the stop string, even of tokens of older weights."""
        found = self._ending.found
        older = sum(held.version != version for held in self._held)
        chunks = self._send(min(older, self._before(0 if found is None else found.trim)))
        assert self.started is not None
        assert self.first is not None
        timings = Timings(
            queued=self.started - self.request.arrived, prefill=self.first - self.started, decode=now - self.first
        )
        return [*chunks, self._chunk(self._held, version, timings)]

    def _chunk(self, tokens: list[_Held], version: int, timings: Timings | None = None) -> Chunk:
        """`timings` are the last chunk's."""
        drawn = [held.drawn for held in tokens]
        ending, found = (_GOES_ON, None) if timings is None else (self._ending, self._ending.found)
        reports = [one.report for one in drawn if one.report is not None]
        scores, self._scores = self._scores, None
        return Chunk(
            choice=self._choice,
            ids=tuple([one.id for one in drawn]),
            logprobs=tuple([report.logprob for report in reports]),
            sampled_logprobs=tuple([report.sampled_logprob for report in reports]),
            forced=tuple([one.forced for one in drawn]),
            version=version,
            entropy=tuple([report.entropy for report in reports]) if self._sampling.logprobs else None,
            top=tuple([report.top for report in reports]) if self._sampling.top_logprobs else None,
            prompt_logprobs=None if scores is None else tuple([one.logprob for one in scores]),
            prompt_top=tuple([one.top for one in scores])
            if scores is not None and self._sampling.top_logprobs
            else None,
            finish=ending.finish,
            trim=0 if found is None else found.trim,
            stop=None if found is None else found.stop,
            error=ending.error,
            cached_tokens=0 if timings is None else self.sequence.cached or 0,
            timings=timings,
        )


def _thought(prompt: Prompt, sampling: Sampling, vocabulary: Vocabulary, room: int) -> Thought | None:
    """The follower of a capped thought; without a cap there is nothing to follow."""
    if sampling.thinking_tokens is None:
        return None
    assert vocabulary.think is not None
    assert vocabulary.end_think is not None
    inside = prompt.open_at is OpenAt.THOUGHT
    return Thought(vocabulary.think, vocabulary.end_think, sampling.thinking_tokens, room, inside)
