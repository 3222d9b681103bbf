"""Where the benchmark keeps what it makes: everything under `.bench/`, which git ignores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
"""Of the repository."""


@dataclass(frozen=True)
class Places:
    """Folders of one benchmark."""

    base: Path = ROOT / ".bench"

    @property
    def environments(self) -> Path:
        """A virtual environment for each peer."""
        return self.base / "envs"

    @property
    def weights(self) -> Path:
        """Checkpoints, made once."""
        return self.base / "weights"

    @property
    def logs(self) -> Path:
        """What the systems say while they run."""
        return self.base / "logs"

    @property
    def results(self) -> Path:
        """One file of JSON lines a run."""
        return self.base / "results"
