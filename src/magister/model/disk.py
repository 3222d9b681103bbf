"""Folders written by one process at a time, and files that are on disk before anything relies on them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def flush(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to disk. Raises `OSError` where it cannot."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def alone(destination: Path) -> Iterator[None]:
    """The folder to write, made if need be, for this process alone. ValueError where another is at work in it."""
    destination.mkdir(parents=True, exist_ok=True)
    folder = os.open(destination, os.O_RDONLY)
    try:
        try:
            # The folder itself, so that no file of a lock comes to lie in it.
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another run is at work in {destination}; wait for it, or stop it") from error
        except OSError:
            # Some network disks know no locks of folders: there nobody is kept out.
            pass
        yield
    finally:
        os.close(folder)
