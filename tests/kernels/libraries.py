"""The compiled kernels under test: those of the sources as they are now, built where there is a compiler."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from magister.kernels import cpu

ROOT = Path(__file__).parent.parent.parent


@functools.cache
def builder() -> ModuleType:
    """csrc/build.py."""
    spec = importlib.util.spec_from_file_location("magister_csrc_build", ROOT / "csrc" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def library(isa: str = "") -> cpu.Library:
    """The library of an instruction set (empty: the best of this CPU); skips the test where there can be none."""
    isa = isa or cpu.supported()[0]
    if isa not in cpu.supported():
        pytest.skip(f"this CPU has no {isa}")
    if builder().find_compiler() is None:
        pytest.skip("no C++ compiler")
    return cpu.Library(builder().build(isa))
