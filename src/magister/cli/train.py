"""`magister train sft RECIPE`."""

from __future__ import annotations

import sys
from pathlib import Path

from magister.cli import compose
from magister.train import curve, nano


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
    if recipe != "nano":
        print(f"magister train sft: {recipe!r} is no recipe; there is: nano", file=sys.stderr)
        return 2
    config = nano.NanoRun(
        seed=seed, tokens=tokens, rows_per_batch=rows, device=device, compile=compile, rate_scale=rate_scale
    )
    nano.run(config, folder, warm=compose.find(warm) if warm else None)
    picture = curve.draw(folder)
    print(f"{folder / 'nano'}: the trained checkpoint\n{picture}: its loss curve")
    return 0
