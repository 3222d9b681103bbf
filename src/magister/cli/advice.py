"""Which of several ways to run a model is advised, in a sentence and in commands. Knows no machine but in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from magister.cli.fit import Fit, Precision
from magister.cli.hub import shelf
from magister.cli.places import called
from magister.model.cache import KVFormat
from magister.model.config import ModelConfig
from magister.model.count import count_parameters

GIB = 1 << 30

SHARD = 5_000_000_000
"""Bytes of a published shard at the most, beside which a pulled model must have room."""

PLEASANT = 5.0
"""Tokens a second from which more bits are advised rather than more speed."""


class Place(NamedTuple):
    """Where a model may run."""

    name: str
    """cpu or cuda."""
    free: int
    """Bytes."""
    bandwidth: float
    """Bytes a second that its memory is read with."""
    compiled: bool
    """Whether compiled kernels compute there."""


class Subject(NamedTuple):
    """What is asked about."""

    name: str
    config: ModelConfig
    path: Path | None
    """Where it is; None where it is not here."""


class Row(NamedTuple):
    """One way to run a model."""

    precision: Precision
    kv: KVFormat
    fit: Fit
    speed: float
    """Tokens a second, mean over a thought."""
    how: str
    """How the speed is known: measured, or estimated."""


def choose(found: list[Row]) -> Row | None:
    """The way to advise: most bits that still answer pleasantly, else the fastest; the cache in int8 only where it must
    be. None where nothing fits."""
    possible = [row for row in found if row.fit.fits]
    pleasant = [row for row in possible if row.speed >= PLEASANT]
    if pleasant:
        return max(pleasant, key=lambda row: (row.precision.read, row.kv is not KVFormat.INT8))
    return min(possible, key=lambda row: (row.precision.read, row.kv is KVFormat.INT8), default=None)


def verdict(subject: Subject, ways: list[tuple[Place, list[Row]]], context: int | None, disk: int) -> str:
    """What to do, in a sentence and the commands for it; the first place where something fits is taken."""
    for place, found in ways:
        best = choose(found)
        if best is not None:
            where = "on the GPU" if place.name == "cuda" else "on the CPU"
            room = f"with up to {best.fit.longest:,} tokens of context"
            said = f"{subject.name} runs {where} in {best.precision.name}, {room}:"
            return "\n".join([said, *_commands(subject, best, context, disk)])
    place, found = ways[-1]
    least = min((row for row in found), key=lambda row: row.fit.missing)
    return (
        f"{subject.name} does not fit: in {least.precision.name} with keys and values in {least.kv} it needs "
        f"{least.fit.needed:,} bytes for {least.fit.context:,} tokens, {place.free:,} are available; "
        f"{least.fit.missing:,} more are needed."
    )


def _commands(subject: Subject, best: Row, context: int | None, disk: int) -> list[str]:
    flags = f" --context {context}" if context else ""
    flags += " --kv int8" if best.kv is KVFormat.INT8 else ""
    plan = best.precision.plan
    if subject.path is not None:
        if plan is None:
            return [f"    magister chat --model {subject.name}{flags}"]
        target = f"{called(subject.path)}-int{plan.bits}"
        made = f"    magister quantize {subject.name} {target} --bits {plan.bits}"
        return [made, f"    magister chat --model {target}{flags}"]
    name = subject.name if shelf.is_published(subject.name) else next(iter(shelf.OFFICIAL))
    bits = plan.bits if plan else 16
    kept = shelf.name_of(shelf.repository(name), bits)
    said = [f"    magister pull {name} --bits {bits}", f"    magister chat --model {kept}{flags}"]
    needed = best.precision.weights + SHARD if plan else 2 * count_parameters(subject.config).total
    if disk < needed:
        said.append(f"The disk has {disk:,} bytes free, pulling needs about {needed:,}; --to names another place.")
    return said
