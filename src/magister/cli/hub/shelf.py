"""Where pulled models are kept, and by which names they go.

Knows paths and names, nothing of what is in the files.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

OFFICIAL = {
    "magistral-small-2509": "mistralai/Magistral-Small-2509",
    "magistral-small-2507": "mistralai/Magistral-Small-2507",
    "magistral-small-2506": "mistralai/Magistral-Small-2506",
}
"""Short names of the published weights."""

PLACE = "MAGISTER_MODELS"
"""The environment variable that names the folder of pulled models."""

_OWNER = "mistralai"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


def folder() -> Path:
    """The folder of all pulled models; it need not exist. `PLACE` names it; without that XDG_DATA_HOME moves it, where
    it is an absolute path."""
    if named := os.environ.get(PLACE, ""):
        return Path(named).expanduser().absolute()
    return data() / "models"


def data() -> Path:
    """The user's folder of what Magister keeps; it need not exist. XDG_DATA_HOME moves it, where it is an absolute
    path."""
    named = os.environ.get("XDG_DATA_HOME", "")
    base = Path(named) if os.path.isabs(named) else Path.home() / ".local" / "share"
    return base / "magister"


def repository(name: str) -> str:
    """The repository that a short name or `owner/name` means. ValueError for what is neither."""
    if "/" not in name and (found := OFFICIAL.get(name.lower())):
        return found
    if not _REPOSITORY.fullmatch(name):
        raise ValueError(f"name: {name!r} is neither owner/name nor one of {', '.join(OFFICIAL)}")
    return name


def is_published(name: str) -> bool:
    """Whether a name is that of published weights, short or whole."""
    return name.lower() in OFFICIAL or name in OFFICIAL.values()


def name_of(repository: str, bits: int) -> str:
    """What a repository is called here when it is kept in so many bits; 16 says as published."""
    owner, name = repository.split("/")
    whole = name if owner.lower() == _OWNER else f"{owner}--{name}"
    return whole.lower() + ("" if bits == 16 else f"-int{bits}")


def find(name: str) -> Path | None:
    """The folder of a pulled model by its own name, or by its repository's or short name if it is there in one
    precision only; None where there is none. ValueError where there are several."""
    if _REPOSITORY.fullmatch(name):
        name = name_of(name, 16)
    if not _NAME.fullmatch(name):
        return None
    at_hand = names()
    wanted = name.lower()
    found = [wanted] if wanted in at_hand else [n for n in at_hand if n in (f"{wanted}-int4", f"{wanted}-int8")]
    if len(found) > 1:
        raise ValueError(f"model: {name} is here as {' and as '.join(found)}; name one of them")
    return folder() / found[0] if found else None


def names() -> list[str]:
    """Models that are here, finished or not."""
    place = folder()
    if not place.is_dir():
        return []
    return sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))
