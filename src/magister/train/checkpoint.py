"""Checkpoints that survive a full disk and kill -9: written beside, flushed, then renamed.

Holds whatever dictionary the caller trains with; knows nothing of what is in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from magister.model.disk import flush

NAME = "checkpoint.pt"


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Write `state` as the folder's checkpoint; the previous one stays until the new one is whole on disk.

    Raises `OSError` where it cannot be written; the previous checkpoint is then untouched and no partial file is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, partial = folder / NAME, folder / f"{NAME}.partial"
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
        flush(partial)
    except (OSError, RuntimeError) as error:
        # torch reports a failed write of its zip stream as RuntimeError.
        partial.unlink(missing_ok=True)
        raise OSError(f"could not write checkpoint {target}: {error}") from error
    partial.replace(target)
    flush(folder)
    return target


def load(folder: Path) -> dict[str, Any] | None:
    """The folder's checkpoint, or None where there is none."""
    target = folder / NAME
    if not target.exists():
        return None
    state: dict[str, Any] = torch.load(target, map_location="cpu", weights_only=True)
    return state
