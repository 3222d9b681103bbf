"""What the figures were measured on: the machine in words without its name, its memory's speed, and how busy it was."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

from bench.environments import Unavailable, cpu_flags
from bench.places import ROOT, Places
from bench.process import Pins

TELLING = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""Flags of a CPU that decide which kernels run."""


def describe() -> dict[str, Any]:
    """CPU, units, cores, memory."""
    flags = cpu_flags()
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "units": [flag for flag in TELLING if flag in flags],
        "without": [flag for flag in TELLING if flag not in flags],
        "cores": os.cpu_count(),
        "memory_gib": round(int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) / 2**20),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit that is measured, with a + where files have been changed since; empty outside of a repository."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip()


def usable_cores() -> tuple[int, ...]:
    """Numbers of the cores that this process may use."""
    return (
        tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else (*range(os.cpu_count() or 1),)
    )


def load_average() -> float:
    """Processes that wanted to run in the last minute."""
    return round(os.getloadavg()[0], 1)


def read_bandwidth(places: Places, pins: Pins, megabytes: int = 1024, passes: int = 5) -> float:
    """Bytes a second that so many threads on these cores read from memory: the median of some passes."""
    return _median_of(_program(places, "read_bandwidth"), pins, pins.threads, megabytes, passes)


def byte_products(places: Places, pins: Pins, passes: int = 5) -> float:
    """Multiplications and additions of bytes a second that one core does with AVX2 and nothing around them: the median
    of some passes. Raises `Unavailable` on a processor without it, or with a better unit for this.
    """
    flags = cpu_flags()
    if "avx2" not in flags or flags & {"avx_vnni", "avx512_vnni", "amx_int8"}:
        raise Unavailable("the kernels here do not multiply bytes with AVX2")
    return _median_of(_program(places, "byte_products"), pins, passes)


def _median_of(program: Path, pins: Pins, *arguments: int) -> float:
    command = ["taskset", "-c", ",".join(map(str, pins.cores)), str(program), *map(str, arguments)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return statistics.median(float(line) for line in lines)


def _program(places: Places, name: str) -> Path:
    """One of the programs beside this file, compiled once for this CPU."""
    source, program = ROOT / "bench" / f"{name}.cpp", places.base / name.replace("_", "-")
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("g++") or shutil.which("clang++")
        if compiler is None:
            raise Unavailable("no C++ compiler, so the machine's own speed is not measured")
        places.base.mkdir(parents=True, exist_ok=True)
        flags = ["-O3", "-march=native", "-std=c++20", "-pthread"]
        subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True)
    return program


def _field(path: str, name: str) -> str | None:
    file = Path(path)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)
