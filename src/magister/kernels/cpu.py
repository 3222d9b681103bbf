"""The compiled kernels of this machine's CPU: which libraries there are, which is the best, and whether it is right.

One library per instruction set is built from csrc into the folder `lib` beside this file. Knows no networks: the
compiled decoder is `model.compiled`, which calls the same library.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import NamedTuple

from magister.kernels.cpu_check import faults
from magister.kernels.cpu_library import Config, Library, PackedLinear, Raw, raw

__all__ = [
    "LIBRARIES",
    "NEEDS",
    "Choice",
    "Config",
    "Library",
    "PackedLinear",
    "Raw",
    "available",
    "choose",
    "cpu_flags",
    "load",
    "raw",
    "supported",
]

LIBRARIES = Path(__file__).parent / "lib"
"""Where the build puts the libraries."""

NEEDS = {
    "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx2", "fma", "f16c"},
    "avx2": {"avx2", "fma", "f16c"},
    "neon": {"asimddp", "asimdhp"},
    "generic": set[str](),
}
"""Flags in /proc/cpuinfo that each library asks for, best library first."""


class Choice(NamedTuple):
    """What `choose` found."""

    library: Library | None
    """None where plain torch must do."""
    description: str
    """For the message at start: which instruction set is used, what was passed over and why."""


def choose(isa: str | None = None, folder: Path = LIBRARIES) -> Choice:
    """The best library that this CPU runs, that is built, and that passes its self-test; or the one that `isa` names.

    The self-test takes some milliseconds. A library that fails is not used, and named in the description. ValueError
    where `isa` names one that is not there or fails.
    """
    if isa is not None:
        library = load(isa, folder)
        if found := _faults(library):
            raise ValueError(f"isa is {isa}, but its self-test failed: {'; '.join(found)}")
        return Choice(library, f"compiled kernels: {isa}, as asked for")
    passed: list[str] = []
    for name in supported():
        if not _path(folder, name).exists():
            passed.append(f"{name} is not built")
            continue
        try:
            library = load(name, folder)
        except (OSError, ValueError) as error:
            passed.append(f"{name} does not load ({error})")
            continue
        if not (found := _faults(library)):
            return Choice(library, ", ".join([f"compiled kernels: {name}", *passed]))
        passed.append(f"{name} fails its self-test ({'; '.join(found)})")
    return Choice(None, f"no compiled kernels, plain torch instead: {', '.join(passed)}")


def cpu_flags(text: str | None = None) -> set[str]:
    """What this CPU can do, in the words of /proc/cpuinfo (`text`, for tests). Empty where there is no such file.

    An Apple CPU has no such file and all that the neon library asks for.
    """
    if text is None:
        path = Path("/proc/cpuinfo")
        if not path.exists():
            apple = platform.system() == "Darwin" and platform.machine() == "arm64"
            return set(NEEDS["neon"]) if apple else set()
        text = path.read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(words.split())
    return set()


def supported(flags: set[str] | None = None) -> list[str]:
    """Instruction sets that a CPU with these flags (None: this one) can run, best first."""
    flags = cpu_flags() if flags is None else flags
    return [isa for isa, needs in NEEDS.items() if needs <= flags]


def available(folder: Path = LIBRARIES) -> list[str]:
    """Instruction sets that this CPU can run and that have been built, best first."""
    return [isa for isa in supported() if _path(folder, isa).exists()]


def load(isa: str, folder: Path = LIBRARIES) -> Library:
    """The library of one instruction set, untested. ValueError where the CPU cannot run it or it is not built."""
    if isa not in NEEDS:
        raise ValueError(f"isa is {isa}, must be one of {', '.join(NEEDS)}")
    if isa not in supported():
        lacking = ", ".join(sorted(NEEDS[isa] - cpu_flags()))
        raise ValueError(f"isa is {isa}, but this CPU has no {lacking}")
    if not _path(folder, isa).exists():
        raise ValueError(f"isa is {isa}, but {_path(folder, isa)} is not built: run csrc/build.py")
    return Library(_path(folder, isa))


def _faults(library: Library) -> list[str]:
    """As `faults`, where a library refuses to be tested too."""
    try:
        return faults(library)
    except (AssertionError, RuntimeError, ValueError) as error:
        return [f"{type(error).__name__}: {error}"]


def _path(folder: Path, isa: str) -> Path:
    return folder / f"magister-{isa}.so"
