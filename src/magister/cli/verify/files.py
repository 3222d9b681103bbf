"""Checksums of a checkpoint's files: against those that came with it, where some did; else only told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from magister.cli.hub.source import PULLED
from magister.cli.verify.check import Check, faults, holds, told
from magister.model import quantized_files

_SHORT = 16
"""Digits of a digest that is only told."""


def checks(path: Path) -> list[Check]:
    """One line for files that must have a digest, or one for each file whose digest nobody has said."""
    if quantized_files.is_quantized(path):
        return _quantized(path)
    if (path / PULLED).is_file():
        return _pulled(path)
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".gguf"))
    return [
        told(
            f"{file.name}, {file.stat().st_size:,} bytes", f"sha256 {digest(file)[:_SHORT]}..., nothing to compare with"
        )
        for file in files
    ]


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _quantized(path: Path) -> list[Check]:
    """ValueError of the index goes through: then there is no checkpoint to verify."""
    index, found = quantized_files.read_index(path), []
    for part, facts in index["parts"].items():
        try:
            quantized_files.verify(path / part, facts["bytes"], facts["sha256"])
        except ValueError as error:
            found.append(str(error))
    source = index["source"]
    fine = f"{len(index['parts'])} parts are what {quantized_files.INDEX} says"
    made = holds("made from", True, f"{source['name']}, tensors {source['sha256'][:_SHORT]}...")
    return [*faults("checksums", found, fine), made]


def _pulled(path: Path) -> list[Check]:
    said = json.loads((path / PULLED).read_text(encoding="utf-8"))
    found = []
    for name, wanted in said.get("sha256", {}).items():
        if not (path / name).is_file():
            found.append(f"{name} is missing")
        elif (now := digest(path / name)) != wanted:
            found.append(f"{name} has sha256 {now}, was pulled as {wanted}")
    fine = f"{len(said.get('sha256', {}))} files are what was pulled"
    made = holds("pulled from", True, f"{said['repository']}@{said['commit'][:12]}")
    return [*faults("checksums", found, fine), made]
