"""The loss curve of a run as a picture."""

from __future__ import annotations

from pathlib import Path

from magister.train.progress import read_log

INSTALL = "pip install '.[train]'"
"""What brings matplotlib, from the repository's root."""


def can_draw() -> bool:
    """Whether matplotlib can be imported here."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def draw(folder: Path) -> Path:
    """Draw `log.jsonl` into `loss.png` beside it.

    Raises `ValueError` where matplotlib is not installed (extra `train`).
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(f"drawing the loss curve needs matplotlib: {INSTALL}") from error
    records = read_log(folder)
    smooth, value = [], records[0].loss
    for record in records:
        value = 0.98 * value + 0.02 * record.loss
        smooth.append(value)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    millions = [record.tokens / 1e6 for record in records]
    axes.plot(millions, [record.loss for record in records], color="0.8", linewidth=0.6, label="every step")
    axes.plot(millions, smooth, color="tab:orange", label="smoothed")
    axes.set_yscale("log")
    axes.set_xlabel("million tokens trained on")
    axes.set_ylabel("loss (nats a learned token)")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    target = folder / "loss.png"
    figure.savefig(target, dpi=110)
    return target
