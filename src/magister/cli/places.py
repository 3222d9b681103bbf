"""Where checkpoints are and by which names they go. Paths and names only: no torch, nothing of what is in the files."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from magister.cli.hub import shelf

SHIPPED = ("nano",)
"""Checkpoints in the package."""


def find(model: str) -> Path:
    """The folder of a shipped or pulled checkpoint by name, or of one by its path; a path comes before a pulled name.

    Raises `ValueError` where there is neither.
    """
    if model in SHIPPED:
        return Path(str(resources.files("magister") / "checkpoints" / model))
    path = Path(model).expanduser()
    if model and path.exists():
        return path
    if (pulled := shelf.find(model)) is not None:
        return pulled
    known = ", ".join([*SHIPPED, *shelf.names()])
    hint = f"; `magister pull {model}` fetches it" if shelf.is_published(model) else ""
    raise ValueError(f"model: {model!r} is neither a folder nor one of {known}{hint}")


def beside(path: Path) -> Path:
    """The folder of what belongs to a checkpoint besides its weights: itself, or that of a checkpoint in one file."""
    return path if path.is_dir() else path.parent


def called(path: Path) -> str:
    """What a checkpoint is called by its place: a folder's name, whole, or a file's without its ending."""
    return path.resolve().name if path.is_dir() else path.stem


def served_name(model: str, path: Path, said: str) -> str:
    """What a checkpoint is called: the name it was asked for by; for a path, what it says of itself, else the path."""
    if not Path(model).expanduser().exists() or model in SHIPPED:
        return model
    return said if (beside(path) / "magister.json").is_file() else called(path)
