"""`magister quantize`: a checkpoint in fewer bits, in a folder that every other command reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from magister.cli import places
from magister.cli.machine import SPARE, free_disk, usable_cores
from magister.cli.progress import bar_of
from magister.kernels.quantized import Quantized
from magister.model import compressed_tensors, sources
from magister.model.config import ModelConfig
from magister.model.count import count_parameters
from magister.model.disk import alone
from magister.model.quantize import Plan
from magister.model.quantized_files import COMPANIONS, Writer, is_quantized


def run(source: str, destination: Path, plan: Plan) -> int:
    """Write `destination`, or go on where an earlier run stopped; returns the exit code."""
    path = places.find(source)
    config = sources.read_config(path)
    _check_source(path, source)
    plan.check(config)
    size = _weights(path)
    check_disk(destination, plan.bytes(config, _kept(size, config)))
    began = time.monotonic()
    with alone(destination), _one_thread():
        writer = Writer(destination, config, plan, path.resolve().name, workers=usable_cores())
        if writer.finished:
            print(f"{destination} is whole already: {_weights(destination):,} bytes")
            return 0
        with _progress(count_parameters(config).total) as advance:
            for name, tensor in sources.stream(path):
                if isinstance(tensor, Quantized):
                    raise ValueError(f"{name} in {source} is quantised already; quantise the original")
                writer.add(name, tensor)
                advance(tensor.numel())
            writer.finish([path / name for name in COMPANIONS if (path / name).is_file()])
    made, parameters = _weights(destination), count_parameters(config).total
    print(
        f"{destination}: {size:,} bytes became {made:,} ({made / size:.0%}, {8 * made / parameters:.2f} bits a weight) "
        f"in {time.monotonic() - began:.0f} s"
    )
    return 0


def _check_source(path: Path, source: str) -> None:
    """ValueError unless it is a folder whose weights are floats."""
    if path.is_file():
        raise ValueError(f"{source} is one file; what is quantised is a folder in native or Hugging Face layout")
    if not is_original(path):
        raise ValueError(f"{source} is quantised already; quantise the original, in native or Hugging Face layout")


def is_original(path: Path) -> bool:
    """Whether it is what `run` takes: a folder of floats."""
    plain = any(path.glob("consolidated*.safetensors")) or any(path.glob("model*.safetensors"))
    return plain and not (is_quantized(path) or compressed_tensors.detect(path))


def check_disk(destination: Path, needed: int) -> None:
    """ValueError where the rest of a folder that takes `needed` bytes will not fit on its disk."""
    there = _weights(destination) if destination.is_dir() else 0
    wanted, free = needed - there + SPARE, free_disk(destination)
    if free < wanted:
        raise ValueError(f"{destination}: needs about {wanted:,} bytes of disk, {free:,} are free")


def _weights(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _kept(size: int, config: ModelConfig) -> torch.dtype:
    """What the source's numbers seem to be, from its size: what stays as it is takes as much again."""
    return torch.float32 if size > 3 * count_parameters(config).total else torch.bfloat16


@contextmanager
def _one_thread() -> Iterator[None]:
    """One of torch's threads for each of ours: the search is many small operations, which one thread does best."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("quantising"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with bar_of(*columns) as progress:
        task = progress.add_task("", total=total)
        yield lambda weights: progress.advance(task, weights)
