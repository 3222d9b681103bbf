"""How fast this machine's memory is read, how fast a small model decodes, and which GPUs there are: what only a try can
tell. Speeds of memory are bytes a second.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from magister.cli import compose
from magister.cli.face import LocalModel
from magister.cli.placement import Placement
from magister.model.cache import KVFormat

_PASSES = 5
_TOKENS, _SECONDS = 64, 0.4
_ROWS = 8192


class Gpu(NamedTuple):
    """One CUDA device."""

    name: str
    total: int
    """Bytes of memory."""
    free: int
    """Bytes of it that are free."""
    bandwidth: float
    """Measured."""


def read_bandwidth(threads: int, size: int = 256 << 20) -> float:
    """How fast so many threads read memory: the median of a few products of a matrix of `size` bytes with a vector,
    which is what decoding does. The matrix must be larger than the processor's cache. Takes about half a second."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        matrix = torch.ones(_ROWS, max(1, size // (4 * _ROWS)))
        vector, out = torch.ones(matrix.shape[1]), torch.empty(_ROWS)
        torch.mv(matrix, vector, out=out)
        return _median(matrix.nbytes, [_timed_product(matrix, vector, out) for _ in range(_PASSES)])
    finally:
        torch.set_num_threads(before)


def decoding(model: Path, device: str, kv: KVFormat, most: int) -> float:
    """Tokens a second of one stream of the checkpoint at `model`, which is loaded for it: the mean over what it says in
    about half a second, at most `most` tokens with what it was asked."""
    how = Placement(device=device, kv=asked_kv(device, kv), context=most)
    with LocalModel(compose.load(str(model), how)) as local:
        room = most - local.chat("Go on", max_tokens=1).usage.prompt_tokens
        first = _speed(local, min(room, _TOKENS))
        return _speed(local, max(2, min(room, int(first * _SECONDS))))


def asked_kv(device: str, kv: KVFormat) -> str:
    """What to ask for so as to get keys and values in `kv`: a GPU's kernels read int8, and unasked the network's own
    numbers, which may be float16, too."""
    return str(kv) if device == "cpu" or kv is KVFormat.INT8 else "auto"


def _speed(model: LocalModel, tokens: int) -> float:
    usage = model.chat("Go on", max_tokens=tokens, ignore_end=True).usage
    return (usage.completion_tokens - 1) / max(usage.timings.decode, 1e-9)


def gpus() -> list[Gpu]:
    """The CUDA devices that PyTorch finds."""
    found = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        speed = _gpu_bandwidth(number, min(1 << 30, free // 4))
        found.append(Gpu(torch.cuda.get_device_name(number), total, free, speed))
    return found


def _timed_product(matrix: torch.Tensor, vector: torch.Tensor, out: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.mv(matrix, vector, out=out)
    return time.perf_counter() - began


def _gpu_bandwidth(number: int, size: int) -> float:
    event: Any = torch.cuda.Event
    with torch.cuda.device(number):
        buffer = torch.ones(max(1, size // 4), device="cuda")
        times = []
        for _ in range(_PASSES + 1):
            begin, end = event(enable_timing=True), event(enable_timing=True)
            begin.record()
            buffer.sum()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1000)
        return _median(buffer.nbytes, times[1:])


def _median(size: int, seconds: list[float]) -> float:
    return size / statistics.median(seconds)
