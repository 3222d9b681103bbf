"""Two systems in turn, A B A B, and what their samples say: medians, and the ratio within each pair.

Pairs, since a shared machine is slow for both or for neither; medians, since a spoilt sample says nothing. Beside each
rate by the clock there is one by processor time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bench.process import Answer, Question


class Sample(NamedTuple):
    """One measurement."""

    value: float
    per_cpu: float | None = None
    """The same over processor seconds, where that has a meaning."""


@dataclass(frozen=True)
class Side:
    """One system in one row."""

    name: str
    samples: Sequence[Sample] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""
    """Why there are no samples."""

    @property
    def median(self) -> float:
        """Of the samples."""
        return statistics.median(sample.value for sample in self.samples)


@dataclass(frozen=True)
class Target:
    """What a row has to reach; exactly one of the three."""

    ratio: float | None = None
    """Ours over the peer's, at least."""
    most: float | None = None
    """Ours, at most."""
    least: float | None = None
    """Ours, at least."""

    def __post_init__(self) -> None:
        assert len(self.named()) == 1

    def named(self) -> dict[str, float]:
        """What is asked, by its name."""
        found = {"ratio": self.ratio, "most": self.most, "least": self.least}
        return {name: value for name, value in found.items() if value is not None}


Rate = Callable[[Question, Answer], Sample]
"""What of an answer counts."""


def decode(question: Question, answer: Answer) -> Sample:
    """Tokens a second after the first one, of one sequence."""
    return Sample((question.tokens - 1) / (answer.total - answer.first), question.tokens / answer.cpu)


def prefill(question: Question, answer: Answer) -> Sample:
    """Tokens of the prompt a second, until the first token is there."""
    tokens = len(question.prompts[0])
    return Sample(tokens / answer.first, tokens / answer.cpu)


def throughput(question: Question, answer: Answer) -> Sample:
    """Generated tokens a second over all sequences, prompts included in the time."""
    tokens = len(question.prompts) * question.n * question.tokens
    return Sample(tokens / answer.total, tokens / answer.cpu)


def prompts(repetition: int, count: int, length: int) -> list[list[int]]:
    """Prompts that nobody has seen: random ids that are ordinary tokens in every vocabulary measured."""
    draw = random.Random(repetition)
    return [[draw.randrange(1500, 4000) for _ in range(length)] for _ in range(count)]


def alternate(sides: Sequence[Callable[[int], Sample]], repetitions: int, warm: int = 1) -> list[tuple[Sample, ...]]:
    """Asks all sides in turn; each gets the number of the repetition. The first `warm` rounds do not count."""
    rounds = [tuple(side(number) for side in sides) for number in range(warm + repetitions)]
    return rounds[warm:]


def record(ours: Side, peer: Side | None, target: Target) -> dict[str, Any]:
    """One row as it is written: all samples, medians, the ratio, and whether the target is reached.

    `reached` is None where the peer gave nothing to compare with.
    """
    found: dict[str, Any] = {"ours": _side(ours), "peer": None if peer is None else _side(peer)}
    found["target"] = target.named()
    reached: bool | None = None
    if target.most is not None and ours.samples:
        reached = ours.median <= target.most
    if target.least is not None and ours.samples:
        reached = ours.median >= target.least
    if peer is not None and peer.samples and ours.samples:
        pairs = list(zip(ours.samples, peer.samples, strict=True))
        found["ratio"] = _round(statistics.median(a.value / b.value for a, b in pairs))
        by_cpu = [a.per_cpu / b.per_cpu for a, b in pairs if a.per_cpu is not None and b.per_cpu]
        found["ratio_per_cpu"] = _round(statistics.median(by_cpu)) if by_cpu else None
        if target.ratio is not None:
            reached = found["ratio"] >= target.ratio
    found["reached"] = reached
    return found


def _side(side: Side) -> dict[str, Any]:
    found: dict[str, Any] = {"name": side.name, "facts": dict(side.facts)}
    if side.refused:
        return {**found, "refused": side.refused}
    by_cpu = [sample.per_cpu for sample in side.samples if sample.per_cpu is not None]
    return {
        **found,
        "median": _round(side.median),
        "samples": [_round(sample.value) for sample in side.samples],
        "per_cpu": _round(statistics.median(by_cpu)) if by_cpu else None,
    }


def _round(value: float) -> float:
    """Four digits: more than any of these figures is worth."""
    return float(f"{value:.4g}")
