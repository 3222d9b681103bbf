"""`magister doctor`: what this machine is, what fits it, how fast that will be, and the command to type.

A figure is either measured, here and now, or an estimate from the measured speed of memory; which one, is said.
"""

from __future__ import annotations

import io
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from magister.cli import advice, fit, machine, measure, places, quantize
from magister.cli.advice import GIB, Place, Row, Subject
from magister.cli.hub import shelf
from magister.cli.placement import counted_kv, is_small
from magister.cli.stored import looked_up, stored
from magister.kernels import cpu
from magister.model import weights
from magister.model.cache import KVFormat
from magister.model.config import MAGISTRAL_SMALL
from magister.model.quantize import Plan

WIDTH = 100
"""Columns of the report where the terminal does not say that it has more."""


class Machine(NamedTuple):
    """What was found out about this one."""

    processor: machine.Processor
    memory: machine.Memory
    gpus: list[measure.Gpu]
    one: float
    """Bytes a second that one thread reads from memory."""
    everyone: float
    """The same of all threads that may be used."""
    kernels: cpu.Choice
    disk: int
    """Free bytes where pulled models go."""


def run(name: str | None, context: int | None) -> int:
    """Print the report; returns the exit code, 1 where a model that was named does not fit in any way."""
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    subjects = [_subject(name)] if name else [_subject("magistral-small"), _subject("nano")]
    here = _look_around()
    console.print(_machine(here))
    fits = False
    for subject in subjects:
        most = subject.config.decoder.max_position_embeddings
        if context is not None and context > most:
            words = f"{subject.name} takes {most:,} tokens at the most, --context asks for {context:,}.\n"
            console.print(words, markup=False)
            continue
        ways = [(place, rows(subject, place, context)) for place in _places(here, subject)]
        for place, found in ways:
            console.print(_table(subject, place, found))
            if most < fit.THOUGHT:
                words = f"{subject.name} takes {most:,} tokens at the most: minutes are for comparison."
                console.print(words, markup=False)
        fits |= any(row.fit.fits for _, found in ways for row in found)
        console.print(advice.verdict(subject, ways, context, here.disk), soft_wrap=True, markup=False)
        console.print()
    console.print(_how(bool(here.gpus)), soft_wrap=True)
    return 0 if fits or name is None else 1


def rows(subject: Subject, place: Place, context: int | None) -> list[Row]:
    """Every way to run a model at a place: as it is on disk, or in each precision; keys and values in each format. A
    small model that is here is tried out, in fewer bits too."""
    config, path, choices = subject.config, subject.path, fit.precisions(subject.config)
    if path is not None:
        as_it_is = stored(path, config, None, compiled=place.compiled)
        choices = [as_it_is, *(choice for choice in choices if choice.plan and quantize.is_original(path))]
    small = is_small(config)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for precision in choices:
            for kv in (_own_kv(subject, place), KVFormat.INT8):
                room = fit.fit(config, precision, kv, context, place.free)
                if small and path is not None and room.fits:
                    made = path if precision.plan is None else _quantized(path, precision.plan, Path(scratch))
                    how, speed = "measured", measure.decoding(made, place.name, kv, min(room.longest, fit.THOUGHT))
                else:
                    token = fit.token_bytes(config.decoder, kv)
                    how, speed = "estimated", fit.tokens_per_second(precision, token, place.bandwidth)
                found.append(Row(precision, kv, room, speed, how))
    return found


def _own_kv(subject: Subject, place: Place) -> KVFormat:
    """What keys and values are held in there unasked."""
    if place.name == "cuda":
        # As wide as the embeddings, which stay as they are in every precision.
        return counted_kv("auto", torch.bfloat16 if subject.path is None else looked_up(subject.path))
    return KVFormat.FP32 if is_small(subject.config) else KVFormat.BF16


def _quantized(path: Path, plan: Plan, scratch: Path) -> Path:
    """A copy in fewer bits, made once."""
    made = scratch / f"int{plan.bits}"
    if not made.exists():
        with redirect_stdout(io.StringIO()):
            quantize.run(str(path), made, plan)
    return made


def _look_around() -> Machine:
    processor, memory = machine.processor(), machine.memory()
    size = min(max(256 << 20, 4 * processor.cache), max(16 << 20, memory.available // 8))
    one = measure.read_bandwidth(1, size)
    everyone = one if processor.usable == 1 else measure.read_bandwidth(processor.usable, size)
    disk = machine.free_disk(shelf.folder())
    return Machine(processor, memory, measure.gpus(), one, everyone, cpu.choose(), disk)


def _places(here: Machine, subject: Subject) -> list[Place]:
    bandwidth = here.one if is_small(subject.config) else here.everyone
    compiled = here.kernels.library is not None
    return [
        *(Place("cuda", gpu.free, gpu.bandwidth, compiled=False) for gpu in here.gpus[:1]),
        Place("cpu", here.memory.available, bandwidth, compiled),
    ]


def _subject(name: str) -> Subject:
    """A shape by name, or a checkpoint by path; a name that is here is a checkpoint. ValueError for neither."""
    if name == "magistral-small" or (shelf.is_published(name) and shelf.find(name) is None):
        # The two earlier releases are the text network alone.
        text_only = name.lower().endswith(("-2506", "-2507"))
        return Subject(name, replace(MAGISTRAL_SMALL, vision=None) if text_only else MAGISTRAL_SMALL, None)
    path: Path = places.find(name)
    return Subject(name, weights.read_config(path), path)


def _machine(here: Machine) -> Table:
    processor, memory = here.processor, here.memory
    table = Table(title="This machine", show_header=False, title_justify="left")
    table.add_row("processor", f"{processor.model}, {processor.cores} cores, {processor.usable} for this program")
    table.add_row("it could run", f"kernels for {', '.join(cpu.supported())}")
    table.add_row("it will run", here.kernels.description)
    group = f", as its group allows ({memory.group})" if memory.group else ""
    table.add_row("memory", f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} available{group}")
    table.add_row("swap", f"{memory.swap / GIB:.1f} GiB free, not counted on: a model that swaps is not usable")
    speeds = f"{here.one / 1e9:.1f} GB/s with one thread"
    if processor.usable > 1:
        speeds += f", {here.everyone / 1e9:.1f} with {processor.usable}"
    table.add_row("reading memory", f"{speeds} (measured)")
    table.add_row("disk", f"{here.disk / GIB:.1f} GiB free at {escape(str(shelf.folder()))}")
    for gpu in here.gpus:
        sizes = f"{gpu.total / GIB:.1f} GiB, {gpu.free / GIB:.1f} free"
        table.add_row("GPU", f"{gpu.name}, {sizes}, {gpu.bandwidth / 1e9:.0f} GB/s (measured)")
    if not here.gpus:
        table.add_row("GPU", "none that PyTorch finds")
    return table


def _table(subject: Subject, place: Place, found: list[Row]) -> Table:
    where = "GPU" if place.name == "cuda" else "CPU"
    title = f"{escape(subject.name)} on the {where}, {place.free / GIB:.1f} GiB available"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    left = ("weights", "cache", "fits", "")
    for column in ("weights", "GiB", "cache", "fits", "longest context", "tokens/s", "", "minutes"):
        table.add_column(column, justify="left" if column in left else "right", no_wrap=True)
    for row in found:
        minutes = fit.THOUGHT / row.speed / 60
        table.add_row(
            row.precision.name,
            f"{row.precision.weights / GIB:.2f}",
            str(row.kv),
            "yes" if row.fit.fits else f"lacks {row.fit.missing / GIB:.1f} GiB",
            f"{row.fit.longest:,}",
            f"{row.speed:.1f}",
            row.how,
            f"{minutes:.1f}" if minutes >= 1 else f"{minutes:.2f}",
        )
    return table


def _how(gpu: bool) -> str:
    said = (
        f"Cache: of keys and values. Minutes: for a thought of {fit.THOUGHT:,} tokens, of one stream. Measured: "
        "decoded here, for half a second. Estimated: the bytes that a token reads (weights, and the cache of half a "
        f"thought) at {fit.EFFICIENCY:.0%} of the speed at which memory was read just now. Other programs that use the "
        "memory slow all of it down."
    )
    return said + (" No estimate for a GPU has been compared with a run yet." if gpu else "")
