"""What a person sees of a training run, and what a plot is made from later.

A bar on a terminal, a line now and then elsewhere; every step's figures go to `log.jsonl`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from magister.model.disk import flush


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One optimiser step."""

    step: int
    tokens: int
    """Trained on so far, padding left out."""
    loss: float
    """Mean negative log-likelihood of the learned tokens, in nats."""
    gradient_norm: float
    seconds: float
    """Of wall clock since this process began training."""
    tokens_per_second: float
    """Over this step."""


class Watch:
    """Shows and logs steps; a context manager."""

    def __init__(self, folder: Path, total_steps: int, done_steps: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _drop_after(folder / "log.jsonl", done_steps)
        self._log = (folder / "log.jsonl").open("a", encoding="utf-8")
        self._terminal = sys.stderr.isatty()
        self._last_line = 0.0
        self._total, self._done = total_steps, done_steps
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            disable=not self._terminal,
        )
        self._task: TaskID = self._bar.add_task("starting", total=total_steps, completed=done_steps)
        self._loss: float | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._log.close()

    def record(self, record: StepRecord) -> None:
        """Show and log one step."""
        self._log.write(json.dumps(asdict(record)) + "\n")
        self._loss = record.loss if self._loss is None else 0.95 * self._loss + 0.05 * record.loss
        shown = f"loss {self._loss:.4f}  {record.tokens_per_second:,.0f} tokens/s  {record.tokens / 1e6:.2f}M tokens"
        self._bar.update(self._task, completed=record.step, description=shown)
        now = time.monotonic()
        if not self._terminal and now - self._last_line > 30:
            self._last_line = now
            left = (self._total - record.step) * record.seconds / max(1, record.step - self._done)
            print(
                f"step {record.step}/{self._total}  {shown}  about {left / 60:.0f} min left",
                file=sys.stderr,
                flush=True,
            )
            self._log.flush()

    def flush(self) -> None:
        """Have every step recorded so far written to disk; a checkpoint must not be ahead of its log."""
        self._log.flush()
        flush(Path(self._log.name))


def read_log(folder: Path) -> list[StepRecord]:
    """All steps logged so far."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [StepRecord(**json.loads(line)) for line in lines]


def _drop_after(path: Path, step: int) -> None:
    """Steps after the checkpoint that training resumes from will be taken again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        # A kill may leave the last line torn.
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
