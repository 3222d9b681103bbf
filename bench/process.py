"""A system in a process of its own, asked over pipes; between questions it is stopped, so that it takes no core.

Its processor time is that of its whole session, since some systems compute in children.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from bench.environments import Unavailable
from bench.places import ROOT


class Question(NamedTuple):
    """Prompts to continue all at once."""

    prompts: Sequence[Sequence[int]]
    tokens: int
    """Generated for each sequence, no more and no fewer."""
    n: int = 1
    """Sequences of each prompt."""


class Answer(NamedTuple):
    """What one question took."""

    first: float
    """Seconds until the first token of the first sequence."""
    total: float
    """Seconds until the last token of the last sequence."""
    cpu: float
    """Seconds of processor time, over all cores."""
    peak_bytes: int
    """The most memory held so far, mapped files included."""
    extra: Mapping[str, int]
    """The system's own counts."""


class Pins(NamedTuple):
    """What a process may compute on."""

    cores: tuple[int, ...]
    threads: int


class Worker:
    """One of `bench.workers`, loaded. Use as a context manager."""

    def __init__(
        self,
        python: Path,
        module: str,
        settings: Mapping[str, Any],
        pins: Pins,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts it and waits until its model is loaded. `Unavailable`, with its last words, where that fails."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._module = module
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [str(python), "-m", f"bench.workers.{module}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": str(pins.threads), **(environment or {})},
                start_new_session=True,
                preexec_fn=lambda: _pin(pins.cores),
            )
        self.facts = self._tell({**settings, "threads": pins.threads})
        self._send_signal(signal.SIGSTOP)

    def ask(self, question: Question) -> Answer:
        """Lets it run for one question. `Unavailable` if it dies of it."""
        self._send_signal(signal.SIGCONT)
        before = self._cpu()
        answer = self._tell(question._asdict())
        cpu = self._cpu() - before
        self._send_signal(signal.SIGSTOP)
        return Answer(**answer, cpu=cpu)

    def close(self) -> None:
        """Ends it and its children."""
        if self._process.poll() is None:
            self._send_signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tell(self, what: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            line = ""
        else:
            line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            words = [line for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if line]
            self.close()
            raise Unavailable(f"{self._module} ended with {code}: {words[-1] if words else 'it said nothing'}")
        found: dict[str, Any] = json.loads(line)
        return found

    def _send_signal(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def _cpu(self) -> float:
        """Seconds of processor time of the session so far; processes that ended within it are left out."""
        seconds = 0.0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                if int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[3]) == self._process.pid:
                    # Linux numbers the clock of a process so; the ticks in `stat` are too coarse for a few tokens.
                    seconds += time.clock_gettime((~int(stat.parent.name) << 3) | 2)
            except OSError:
                continue  # ended meanwhile
        return seconds


def _pin(cores: tuple[int, ...]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
