"""Files that appear whole or not at all: written under another name, flushed to disk, renamed.

A disk that is full is said in numbers, and leaves neither a half file nor a changed one. Knows nothing of what the
files are for.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from magister.model.disk import flush

_CHUNK = 16 << 20
_CODES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3",
}


class File(NamedTuple):
    """A file that is to be, and how it is made."""

    path: Path
    write: Callable[[Path], object]
    """Makes it under the name it is given."""
    size: int | None = None
    """Its bytes, where they are known before."""
    new: Path | None = None
    """Where it is made, in the same folder; None: under a name of this process."""


class Safetensors:
    """A safetensors file to be written: its size is known at once, its digest afterwards.

    Written here so that the digest comes with it and nothing is copied first.
    """

    def __init__(self, flat: Mapping[str, Tensor]) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        # Wide numbers first, so that all of them lie on multiples of their own size.
        self._ordered = sorted(flat.items(), key=lambda item: -item[1].element_size())
        end = 0
        for name, tensor in self._ordered:
            start, end = end, end + tensor.nbytes
            header[name] = {
                "dtype": _CODES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [start, end],
            }
        text = json.dumps(header, separators=(",", ":")).encode()
        self._header = text + b" " * (-len(text) % 8)
        self.size = 8 + len(self._header) + end
        self.digest = hashlib.sha256()

    def write(self, path: Path) -> None:
        """Makes the file, once."""
        with path.open("wb") as file:
            for piece in self._pieces():
                self.digest.update(piece)
                file.write(piece)

    def _pieces(self) -> Iterator[bytes | memoryview]:
        yield len(self._header).to_bytes(8, "little")
        yield self._header
        for _, tensor in self._ordered:
            yield from memory(tensor)


def write_safetensors(path: Path, flat: Mapping[str, Tensor]) -> tuple[int, str]:
    """A safetensors file; returns its bytes and its sha256. OSError as `replace`."""
    made = Safetensors(flat)
    replace(File(path, made.write, made.size))
    return made.size, made.digest.hexdigest()


def write_json(path: Path, what: Mapping[str, Any]) -> None:
    """A JSON object. OSError as `replace`."""
    replace(json_file(path, what))


def json_file(path: Path, what: Mapping[str, Any]) -> File:
    """A JSON object that is to be a file."""
    text = (json.dumps(what, indent=2) + "\n").encode()
    return File(path, lambda new: new.write_bytes(text), len(text))


def replace(*files: File) -> None:
    """Makes each file under another name, and moves all to their own when all are on disk. Files that describe each
    other are given together.

    OSError where the system refuses; where there is no room, with the bytes that were needed. Nothing is then left of
    what was made, and what was there before stays.
    """
    made = [(file, file.new or unfinished(file.path, os.getpid())) for file in files]
    try:
        for file, new in made:
            _make(file, new)
        for file, new in made:
            new.replace(file.path)
        for folder in {file.path.parent for file in files}:
            flush(folder)
    finally:
        for _, new in made:
            new.unlink(missing_ok=True)


def _make(file: File, new: Path) -> None:
    try:
        file.write(new)
        flush(new)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        # First, so that what it took itself is among what is free.
        new.unlink(missing_ok=True)
        free = shutil.disk_usage(file.path.parent).free
        size = "more" if file.size is None else f"{file.size:,}"
        raise OSError(
            f"{file.path} needs {size} bytes, {free:,} are free ({error.strerror}); what was done before is kept"
        ) from error


def unfinished(path: Path, process: int) -> Path:
    """Where `process` writes what is to become `path`."""
    return path.with_name(f".{path.name}.{process}.tmp")


def memory(tensor: Tensor) -> Iterator[memoryview]:
    """A tensor's bytes, in pieces of some megabytes."""
    flat = tensor.detach().contiguous().flatten().view(torch.uint8)
    for piece in torch.split(flat, _CHUNK):
        yield piece.numpy().data
