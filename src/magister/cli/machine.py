"""This machine as a program finds it: processor, memory, swap, disk, with the limits of the group it runs in.

Reads the system's own files and imports no torch; a GPU and the memory's speed are `measure`'s affair. `root` is the
file system's root, another one for tests. Sizes are bytes.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")


class Memory(NamedTuple):
    """Main memory."""

    total: int
    """Of the machine, or what its group may have, where that is less."""
    available: int
    """What can be taken without swapping and without being killed."""
    group: str | None
    """The control group whose limit that is; None where it is the machine's own memory."""
    swap: int
    """Room for pages that are not in use; a model that decodes uses all of its pages."""


class Processor(NamedTuple):
    """The CPU."""

    model: str
    cores: int
    """Of the machine."""
    usable: int
    """That this process may use."""
    cache: int
    """Of the last level; 0 where the system does not say."""


def processor(root: Path = ROOT) -> Processor:
    """The CPU that this process runs on."""
    model = platform.processor() or platform.machine()
    for line in _lines(root / "proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "Hardware") and value.strip():
            model = value.strip()
            break
    sizes = [_size(text) for path in _caches(root) for text in _lines(path)]
    return Processor(model, os.cpu_count() or 1, usable_cores(root), max(sizes, default=0))


def usable_cores(root: Path = ROOT) -> int:
    """Cores that this process may use: those it is pinned to, or fewer where its group's quota is less."""
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [pinned]
    for folder in _groups(root, "cpu"):
        words = " ".join(_lines(folder / "cpu.max")).split()
        if not words:
            words = [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and words[0].isdigit() and int(words[1]):
            quotas.append(max(1, math.ceil(int(words[0]) / int(words[1]))))
    return min(quotas)


def memory(root: Path = ROOT) -> Memory:
    """Main memory. Where the system does not say what is available, half of the total."""
    said: dict[str, int] = {}
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        said[name] = int(value.split()[0]) * 1024
    total = said.get("MemTotal") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = Memory(total, said.get("MemAvailable", total // 2), None, said.get("SwapFree", 0))
    for folder in _groups(root, "memory"):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
        if limit is None or used is None or limit >= total:
            continue
        # Pages of files that were read once are given up before anything is refused.
        available = max(0, limit - used + _inactive(folder))
        if available < found.available:
            found = found._replace(total=limit, available=available, group=str(folder))
    return found


SPARE = 64 << 20
"""Bytes of disk left over at least: descriptions, the vocabulary, and what else the system writes meanwhile."""


def free_disk(folder: Path) -> int:
    """Free bytes where `folder` is, or will be."""
    standing = folder.absolute()
    while not standing.exists():
        standing = standing.parent
    return shutil.disk_usage(standing).free


def _groups(root: Path, controller: str) -> list[Path]:
    """Folders of the control groups that this process is in, those above them too: version 2 and version 1."""
    found: list[Path] = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif controller in controllers.split(","):
            mounts = [root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup" / controller]
        else:
            continue
        inside = Path(path.lstrip("/"))
        for mount in mounts:
            # Inside a container the path may be that of the host, with nothing at it: then the mount itself is ours.
            found += [folder for level in (inside, *inside.parents) if (folder := mount / level).is_dir()]
    return list(dict.fromkeys(found))


def _inactive(folder: Path) -> int:
    names = ("inactive_file", "total_inactive_file")
    pairs = [line.split() for line in _lines(folder / "memory.stat")]
    return max((int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] in names), default=0)


def _number(*paths: Path) -> int | None:
    """The number in the first of these files that there is; None for none and for "max"."""
    for path in paths:
        if lines := _lines(path):
            return int(lines[0]) if lines[0].isdigit() else None
    return None


def _caches(root: Path) -> list[Path]:
    return sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size"))


def _size(text: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    number = text.rstrip("KMG")
    return int(number) * units.get(text[-1:], 1) if number.isdigit() else 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
