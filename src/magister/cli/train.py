"""`magister train sft RECIPE`."""

from __future__ import annotations

import math
import os
import shutil
import sys
from pathlib import Path

from magister.cli import places


def run(
    recipe: str,
    folder: Path,
    tokens: int,
    warm: str | None,
    rate_scale: float,
    rows: int,
    seed: int,
    device: str,
    compile: bool,
) -> int:
    """Train; returns the exit code."""
    fault = _fault(recipe, tokens, rate_scale, rows) or (_no_compiler() if compile and device == "cpu" else "")
    if fault:
        print(f"magister train sft: {fault}", file=sys.stderr)
        return 2
    # Now that it is worth PyTorch's seconds.
    import torch

    from magister.train import curve, nano

    if device == "cuda" and not torch.cuda.is_available():
        print("magister train sft: --device cuda: PyTorch finds no CUDA device here", file=sys.stderr)
        return 2
    config = nano.NanoRun(
        seed=seed, tokens=tokens, rows_per_batch=rows, device=device, compile=compile, rate_scale=rate_scale
    )
    drawn = curve.can_draw()
    if not drawn:
        print(f"loss curve skipped: it needs matplotlib ({curve.INSTALL})", file=sys.stderr)
    try:
        nano.run(config, folder, warm=places.find(warm) if warm else None, typed=warm or "")
    except KeyboardInterrupt as stop:
        print(f"magister train sft: {stop}" if stop.args else "magister train sft: interrupted", file=sys.stderr)
        return 130
    print(f"{folder / 'nano'}: the trained checkpoint")
    if drawn:
        print(f"{curve.draw(folder)}: its loss curve")
    return 0


def _fault(recipe: str, tokens: int, rate_scale: float, rows: int) -> str:
    """What is wrong with the values, in words; empty where nothing is."""
    if recipe != "nano":
        return f"{recipe!r} is no recipe; there is: nano"
    for name, value in (("--tokens", tokens), ("--rows", rows)):
        if value < 1:
            return f"{name} must be at least 1, got {value}"
    if not 0 < rate_scale < math.inf:
        return f"--rate-scale must be a number above 0, got {rate_scale:g}"
    return ""


def _no_compiler() -> str:
    """What is missing where torch's compiler has no C++ compiler to call; empty where it has one."""
    wanted = os.environ.get("CXX", "g++")
    return "" if shutil.which(wanted) else f"--compile needs a C++ compiler on a CPU, and there is no {wanted}"
