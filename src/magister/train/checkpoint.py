"""Checkpoints that survive a full disk and kill -9: written beside, flushed, then renamed.

Holds whatever dictionary the caller trains with; knows nothing of what is in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from magister.model import atomic

NAME = "checkpoint.pt"


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Write `state` as the folder's checkpoint; the previous one stays until the new one is whole on disk.

    Raises `OSError` where it cannot be written; the previous checkpoint is then untouched and no partial file is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / NAME

    def write(new: Path) -> None:
        with new.open("wb") as file:
            torch.save(state, file)

    try:
        # Always the same other name: of however many runs that were killed, at most one unfinished file is left.
        atomic.replace(atomic.File(target, write, new=folder / f"{NAME}.partial"))
    except (OSError, RuntimeError) as error:
        # torch reports a failed write of its zip stream as RuntimeError.
        raise OSError(f"could not write checkpoint {target}: {error}") from error
    return target


def load(folder: Path) -> dict[str, Any] | None:
    """The folder's checkpoint, or None where there is none."""
    target = folder / NAME
    if not target.exists():
        return None
    state: dict[str, Any] = torch.load(target, map_location="cpu", weights_only=True)
    return state
