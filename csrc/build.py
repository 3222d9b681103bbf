"""Builds the compiled kernels: one shared library per instruction set, next to the Python that loads them.

Run as `python csrc/build.py`, or by the build of the package (hatch_build.py). Plain Python and a C++17 compiler; knows
nothing of what the sources compute.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent
LIBRARIES = SOURCES.parent / "src" / "magister" / "kernels" / "lib"

_AVX2 = ["-mavx2", "-mfma", "-mf16c"]
# GCC 12 takes the undefined lanes of its own intrinsics for a mistake.
_AVX512 = [
    *_AVX2,
    "-Wno-uninitialized",
    "-Wno-maybe-uninitialized",
    "-mavx512f",
    "-mavx512bw",
    "-mavx512vl",
    "-mavx512dq",
    "-mavx512vnni",
]
_FLAGS = {
    "x86_64": {"generic": [], "avx2": _AVX2, "avx512": _AVX512},
    "aarch64": {"generic": [], "neon": ["-march=armv8.2-a+dotprod+fp16"]},
}
_MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}

# Contraction is off so that one expression has one rounding wherever it is inlined; kernels that mean a fused
# multiply-add say so.
_COMMON = "-std=c++17 -O3 -fPIC -fvisibility=hidden -ffp-contract=off -fno-math-errno -pthread -Wall -Wextra"


def isas(machine: str = "") -> list[str]:
    """Instruction sets that have a library on `machine` (empty: this one), weakest first. Unknown machines: generic."""
    return list(_flags(machine))


def find_compiler() -> str | None:
    """The C++ compiler: what $CXX names, else c++, g++ or clang++, whichever is there."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name):
            return name
    return None


def build(
    isa: str, out: Path = LIBRARIES, *, compiler: str | None = None, machine: str = "", strict: bool = False
) -> Path:
    """Compiles the library of one instruction set into folder `out` and answers its path.

    Only what is older than its source is compiled, in `out/objects`. `strict` makes warnings errors. Errors: ValueError
    for an instruction set that `machine` has not; RuntimeError, with the compiler's words, where there is none or it
    fails.
    """
    flags = _flags(machine).get(isa)
    if flags is None:
        raise ValueError(f"isa is {isa}, must be one of {', '.join(_flags(machine))}")
    compiler = compiler or find_compiler()
    if compiler is None:
        raise RuntimeError("no C++ compiler: set CXX or install g++ or clang++")
    objects = out / "objects" / isa
    objects.mkdir(parents=True, exist_ok=True)
    shared = max(part.stat().st_mtime for part in [*SOURCES.glob("*.hpp"), *SOURCES.glob("*.h"), Path(__file__)])
    generic = ["-DMG_GENERIC"] if isa == "generic" else []
    command = [compiler, *_COMMON.split(), *(["-Werror"] if strict else []), *flags, f'-DMG_ISA="{isa}"', *generic]

    def compiled(source: Path) -> Path:
        made = objects / f"{source.stem}.o"
        if not made.exists() or made.stat().st_mtime <= max(shared, source.stat().st_mtime):
            _run([*command, "-c", str(source)], made)
        return made

    with ThreadPoolExecutor(_cores()) as pool:
        made = list(pool.map(compiled, sorted(SOURCES.glob("*.cpp"))))
    library = out / f"magister-{isa}.so"
    if not library.exists() or library.stat().st_mtime <= max(part.stat().st_mtime for part in made):
        static = [] if platform.system() == "Darwin" else ["-static-libstdc++", "-static-libgcc"]
        _run([compiler, "-shared", "-pthread", *static, *map(str, made)], library)
    return library


def _run(command: list[str], out: Path) -> None:
    """Runs a compiler. Its result appears whole or not at all: a process may have the old library mapped."""
    new = out.with_name(f".{os.getpid()}-{out.name}")
    try:
        done = subprocess.run([*command, "-o", str(new)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed on {out.name}:\n{done.stderr[:4000]}")
        new.replace(out)
    finally:
        new.unlink(missing_ok=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _flags(machine: str) -> dict[str, list[str]]:
    return _FLAGS.get(_MACHINES.get((machine or platform.machine()).lower(), ""), {"generic": []})


def main(arguments: Sequence[str]) -> int:
    """The command line. 1 if a library could not be built."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--isa", action="append", help="an instruction set; may be given again; default: all")
    parser.add_argument("--out", type=Path, default=LIBRARIES, help="folder of the libraries")
    parser.add_argument("--compiler", help="default: $CXX, else c++, g++ or clang++")
    parser.add_argument("--machine", default="", help="x86_64 or aarch64, for a cross compiler; default: this one")
    parser.add_argument("--strict", action="store_true", help="take the compiler's warnings for errors")
    chosen = parser.parse_args(arguments)
    for isa in chosen.isa or isas(chosen.machine):
        try:
            library = build(isa, chosen.out, compiler=chosen.compiler, machine=chosen.machine, strict=chosen.strict)
            print(library)
        except (RuntimeError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
