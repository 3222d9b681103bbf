"""`training.json` beside the weights: every training run they come from, oldest first.

Knows nothing of how a run is made; it reads the log that the run left.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from magister.train.progress import read_log

NAME = "training.json"


def begin(out: Path, warm: Path | None) -> None:
    """Start the history of fresh training in `out` with the runs of the weights it begins with."""
    _write(out, _read(warm))


def add(out: Path, warm: Path | None, folder: Path, command: str, device: str) -> None:
    """Add what `folder`'s log has beyond the runs told so far; nothing where it has nothing more.

    A finished run that is trained further becomes two runs, the second with the steps it added.
    """
    runs = _read(out)
    done = sum(run["steps"] for run in runs[len(_read(warm)) :])
    log = read_log(folder)
    earlier, added = log[:done], log[done:]
    if not added:
        return
    before = [earlier[-1].tokens if earlier else 0, *(record.tokens for record in added)]
    seconds = sum((r.tokens - b) / r.tokens_per_second for b, r in zip(before, added, strict=False))
    last = added[-50:]
    entry = {
        "command": command,
        "tokens": added[-1].tokens - before[0],
        "steps": len(added),
        "hours": round(seconds / 3600, 2),
        "loss": round(sum(record.loss for record in last) / len(last), 4),
        "device": device,
    }
    _write(out, [*runs, entry])


def _read(folder: Path | None) -> list[dict[str, Any]]:
    path = folder / NAME if folder else None
    if path is None or not path.exists():
        return []
    runs: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return runs


def _write(folder: Path, runs: list[dict[str, Any]]) -> None:
    (folder / NAME).write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")
