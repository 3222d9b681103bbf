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
from typing import Any

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


def write_safetensors(path: Path, flat: Mapping[str, Tensor]) -> tuple[int, str]:
    """A safetensors file; returns its bytes and its sha256. OSError as `replace`.

    Written here so that the digest comes with it and nothing is copied first.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    # Wide numbers first, so that all of them lie on multiples of their own size.
    ordered = sorted(flat.items(), key=lambda item: -item[1].element_size())
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()

    def write(new: Path) -> None:
        with new.open("wb") as file:
            for piece in (len(text).to_bytes(8, "little"), text):
                digest.update(piece)
                file.write(piece)
            for _, tensor in ordered:
                for view in memory(tensor):
                    digest.update(view)
                    file.write(view)

    size = 8 + len(text) + end
    replace(path, write, size)
    return size, digest.hexdigest()


def write_json(path: Path, what: Mapping[str, Any]) -> None:
    """A JSON object. OSError as `replace`."""
    text = json.dumps(what, indent=2) + "\n"
    replace(path, lambda new: new.write_text(text, encoding="utf-8"), len(text))


def replace(path: Path, write: Callable[[Path], object], size: int = 0) -> None:
    """Has `write` make the file under another name beside `path`, and moves it there when it is on disk.

    OSError where the system refuses; where there is no room, with the bytes of `size`.
    """
    new = unfinished(path, os.getpid())
    try:
        write(new)
        flush(new)
        new.replace(path)
        flush(path.parent)
    except OSError as error:
        new.unlink(missing_ok=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"{path} needs {size:,} bytes, {free:,} are free ({error.strerror}); what was done before is kept"
        ) from error
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def unfinished(path: Path, process: int) -> Path:
    """Where `process` writes what is to become `path`."""
    return path.with_name(f".{path.name}.{process}.tmp")


def memory(tensor: Tensor) -> Iterator[memoryview]:
    """A tensor's bytes, in pieces of some megabytes."""
    flat = tensor.detach().contiguous().flatten().view(torch.uint8)
    for piece in torch.split(flat, _CHUNK):
        yield piece.numpy().data
