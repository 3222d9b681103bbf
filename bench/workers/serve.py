"""How a system being measured is asked: one JSON line in, one JSON line out, on the pipes the process was given.

The first line in are the settings, its answer the facts of the system; every further line asks it to generate.
Knows no system.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol


class Timed(NamedTuple):
    """What one question took; seconds from the moment it was asked."""

    first: float
    """Until the first token of the first sequence."""
    total: float
    """Until the last token of the last sequence."""
    extra: Mapping[str, int] = MappingProxyType({})
    """Counts of the system's own, for example tokens computed."""


class Subject(Protocol):
    """A system with a model loaded."""

    facts: dict[str, Any]
    """Version, precision, threads and whatever else tells this run from others."""

    def generate(self, prompts: list[list[int]], tokens: int, n: int) -> Timed:
        """Continue all prompts at once, greedily, by exactly so many tokens each, `n` times each prompt."""
        ...


def serve(make: Callable[[dict[str, Any]], Subject]) -> None:
    """Answer until the input ends. What the system prints goes to stderr, since stdout is for answers."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(what: dict[str, Any]) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    started = time.perf_counter()
    subject = make(json.loads(sys.stdin.readline()))
    answer({**subject.facts, "load_seconds": round(time.perf_counter() - started, 3)})
    for line in sys.stdin:
        question = json.loads(line)
        timed = subject.generate(question["prompts"], question["tokens"], question["n"])
        answer({"first": timed.first, "total": timed.total, "peak_bytes": peak_bytes(), "extra": dict(timed.extra)})


def peak_bytes() -> int:
    """The most memory this process has held, mapped files included (VmHWM); 0 where the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")), 0)
    except FileNotFoundError:
        return 0
