"""The file of keys: a secret, and for every key its name and its HMAC. It opens nothing by itself.

Written whole and renamed, readable by its owner only.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import msgspec

from magister.server.access import Keys, digest

PREFIX = "sk-magister-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class _File(msgspec.Struct, forbid_unknown_fields=True):
    secret: str
    """Hex."""
    keys: dict[str, str]
    """Name -> digest."""


def read(path: Path) -> Keys:
    """The keys of a file. ValueError where it is none."""
    file = _read(path)
    return Keys(bytes.fromhex(file.secret), {found: name for name, found in file.keys.items()})


def names(path: Path) -> list[str]:
    """Whose keys a file has."""
    return sorted(_read(path).keys)


def add(path: Path, name: str) -> str:
    """A new key of that name, said this once. Makes the file where there is none. ValueError for a bad name."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"name: {name!r} is not made of 1 to 64 letters, digits, '.', '_', '@' and '-'")
    file = _read(path) if path.exists() else _File(secret=secrets.token_hex(32), keys={})
    if name in file.keys:
        raise ValueError(f"name: {name!r} has a key already; remove it first")
    key = PREFIX + secrets.token_urlsafe(32)
    file.keys[name] = digest(bytes.fromhex(file.secret), key)
    _write(path, file)
    return key


def remove(path: Path, name: str) -> None:
    """That key opens nothing from the next start on. ValueError where there is none of that name."""
    file = _read(path)
    if name not in file.keys:
        raise ValueError(f"name: no key is called {name!r}; there are: {', '.join(sorted(file.keys)) or 'none'}")
    del file.keys[name]
    _write(path, file)


def _read(path: Path) -> _File:
    try:
        mode = path.stat().st_mode
        if mode & 0o022:
            raise ValueError(
                f"others may write it (mode {mode & 0o777:o}), so they could let themselves in; chmod 600 it"
            )
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        bytes.fromhex(file.secret)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; `magister keys add NAME --keys {path}` makes one") from None
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{path}: is no file of keys: {said}") from None
    return file


def _write(path: Path, file: _File) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n")
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)
