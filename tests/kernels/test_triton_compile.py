"""The Triton kernels compile for GPUs that are not here, with wide loads, tensor cores and next to no
spilled registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
SHARED = 99 * 1024
"""Bytes of shared memory that a program may have on the smallest of Ampere and Ada; Hopper has more."""


@pytest.mark.skipif(not (TOOLS / "ptxas").exists(), reason="this triton brings no NVIDIA compiler")
def test_kernels_compile_for_ampere_and_hopper() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "error", str(Path(__file__).parent / "compile_for.py"), "80", "90"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    names = "linear_tiles add_splits attend_tiles merge_splits write_slots chunk_peaks chunk_masses pick"
    assert {line["kernel"] for line in lines} == set(names.split())
    for line in lines:
        assert line["shared"] <= SHARED, line
        assert line["stack"] <= 16, line
        assert line["byte_loads"] == 0, line
        if line["kernel"] in ("linear_tiles", "attend_tiles"):
            assert line["async_16"], line
            assert line["tensor_cores"], line
