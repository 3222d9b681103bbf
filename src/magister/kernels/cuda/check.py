"""What the Triton kernels do on this machine's GPU: `python -m magister.kernels.cuda.check [--tune]`.

One JSON line for each equality with a kernel's definition, then one for each timing at the shapes of a 24B network, to
standard output; ends with 1 if an equality fails or there is no GPU. `--tune` also times other tilings. Knows the
kernels, and no network.

Timings are of recorded graphs over more matrices than the GPU's cache holds, medians of seven.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from magister.kernels import reference
from magister.kernels.cuda import attention, linear, missing, sampling
from magister.kernels.quantized import Format, Quantized, dequantize

SHAPES = {
    "qkv": (6144, 5120),
    "o": (5120, 4096),
    "gate_up": (65536, 5120),
    "down": (5120, 32768),
    "head": (131072, 5120),
}
"""Outputs and inputs of the matrices of Magistral Small."""
_BEYOND_CACHE = 512 << 20
"""Bytes that no GPU's cache holds."""

Line = dict[str, object]


class Sizes(NamedTuple):
    """How large the equalities are."""

    outputs: int = 1000
    inputs: int = 4096
    rows: tuple[int, ...] = (1, 7, 16, 17, 64, 300)
    context: int = 3000
    vocab: int = 131072


def random_matrix(layout: Format, outputs: int, inputs: int, group: int, device: str) -> Quantized:
    """Random numbers and scales; int4 in groups of 32 has mins, as Q4_K has."""
    scales = torch.rand(outputs, inputs // group, device=device).mul_(0.02).add_(0.001).half()
    mins = None
    if layout is Format.INT4:
        values = torch.randint(0, 256, (outputs, inputs // 2), dtype=torch.uint8, device=device)
        mins = -8 * scales if group == 32 else None
    elif layout is Format.INT8:
        values = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8, device=device)
    else:
        values = torch.randn(outputs, inputs, device=device).to(torch.float8_e4m3fn)
    return Quantized(layout, values, scales, group, mins)


def equalities(device: str, sizes: Sizes) -> Iterator[Line]:
    """Each kernel against its definition, and a row of a batch against the row alone."""
    layouts = [(Format.INT4, 128), (Format.INT4, 32), (Format.INT8, 128), (Format.FP8, sizes.inputs)]
    for (layout, group), dtype in itertools.product(layouts, (torch.bfloat16, torch.float32)):
        matrix = random_matrix(layout, sizes.outputs, sizes.inputs, group, device)
        placed = linear.place(matrix, device)
        for rows in sizes.rows:
            x = torch.randn(rows, sizes.inputs, device=device).to(dtype)
            y, wanted = linear.linear(x, placed), x.double() @ dequantize(matrix, dtype).double().t()
            bound = 2.0**-8 if dtype is torch.bfloat16 else 1e-6
            name = f"linear {layout} group {group} {dtype} rows {rows}"
            yield _line(name, _error(y, wanted), bound)
            if 1 < rows <= 16:
                yield _line(f"{name}: a row alone", _error(linear.linear(x[1:2], placed), y[1:2]), 0.0)
    for head_dim in (64, 128):
        yield from _attention_equalities(device, sizes.context, head_dim)
    yield _sampling_equality(device, sizes.vocab)


def _attention_equalities(device: str, context: int, head_dim: int) -> Iterator[Line]:
    """One token after a long past, and a chunk of a prompt after a shorter one, over shuffled pages."""
    page, groups, heads = 16, 2, 8
    blocks = -(-context // page)
    table = torch.randperm(2 * blocks)[:blocks].to(torch.int32)
    cache = [torch.randn(2 * blocks * page, groups, head_dim, device=device) for _ in range(2)]
    slots = (table[:, None] * page + torch.arange(page)).flatten()[:context].to(device)
    chunk = min(40, context // 2)
    fresh = [attention.Fresh(0, context - 1, context), attention.Fresh(1, context // 2 - chunk, context // 2)]
    few, many = (torch.tensor(part, dtype=torch.int32, device=device).t() for part in attention.cut_work(fresh, 4))
    work = attention.Work(table.repeat(2, 1).to(device), few.contiguous(), many.contiguous(), deep=1)
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        pages = attention.Pages(cache[0].to(dtype), cache[1].to(dtype), None, None, page)
        q = torch.randn(1 + chunk, heads, head_dim, device=device).to(dtype)
        out = attention.attend(q, pages, work)
        for row, start, stop in fresh:
            k, v = (part[slots[:stop]].double()[None] for part in (pages.k, pages.v))
            mask = torch.full((stop - start, stop), -torch.inf, dtype=torch.float64, device=device).triu(start + 1)
            own = slice(row, row + stop - start)
            wanted = reference.attention(q[own].double()[None], k, v, mask)[0]
            yield _line(f"attention {head_dim} {dtype} tokens {start}..{stop}", _error(out[own], wanted, 1.0), bound)


def _sampling_equality(device: str, vocab: int) -> Line:
    """How many of the draws are another token than the definition's, at luck clear of the borders."""
    rows = 16
    logits = torch.randn(rows, vocab, device=device) * 4
    luck = torch.rand(rows, dtype=torch.float64, device=device)
    ids = sampling.draw(logits, torch.ones(rows, device=device), luck, torch.zeros(rows, device=device)).ids_b
    sums = logits.double().softmax(-1).cumsum(-1)
    low, high = (torch.searchsorted(sums, (luck + shift)[:, None], right=True)[:, 0] for shift in (-1e-6, 1e-6))
    return _line(f"sampling {vocab}", float(((ids < low) | (ids > high)).sum()), 0.0)


def timings(device: str) -> Iterator[Line]:
    """First figures. GB/s count each weight, key and value once."""
    source = torch.empty(_BEYOND_CACHE, dtype=torch.uint8, device=device)
    seconds = _timed([lambda: source.clone()])
    yield {"timing": "copy", "gb_s": 2 * source.numel() / seconds / 1e9}
    for (name, (outputs, inputs)), (layout, group) in itertools.product(
        SHAPES.items(), ((Format.INT4, 128), (Format.INT8, 128), (Format.FP8, 0))
    ):
        matrices = _matrices(layout, outputs, inputs, group or inputs, device)
        for rows in (1, 16, 512):
            x = torch.randn(rows, inputs, device=device, dtype=torch.bfloat16)
            seconds = _timed([_product(x, matrix) for matrix in matrices])
            figures = {
                "gb_s": matrices[0].bytes / seconds / 1e9,
                "tflop_s": 2 * rows * outputs * inputs / seconds / 1e12,
            }
            yield {"timing": f"{name} {layout}", "rows": rows, "us": seconds * 1e6, **figures}
    for batch, context, dtype in itertools.product((1, 16), (1024, 8192, 32768), (torch.bfloat16, torch.int8)):
        yield _attention_timing(batch, context, dtype, device)
    logits = torch.randn(64, 131072, device=device, dtype=torch.bfloat16)
    ones, luck = torch.ones(64, device=device), torch.rand(64, dtype=torch.float64, device=device)
    seconds = _timed([lambda: sampling.draw(logits, ones, luck, ones * 0)])
    yield {"timing": "sampling", "rows": 64, "us": seconds * 1e6}


def tunings(device: str) -> Iterator[Line]:
    """Other tilings for one row of int4, the likeliest first choices on hardware."""
    choices = itertools.product((32, 64, 128), (32, 64, 128), (2, 4, 8), (3, 5), (256, 1024))
    for name in ("o", "gate_up"):
        matrices = _matrices(Format.INT4, *SHAPES[name], 128, device)
        x = torch.randn(1, SHAPES[name][1], device=device, dtype=torch.bfloat16)
        lines: list[tuple[float, Line]] = []
        for block_o, block_c, warps, stages, programs in choices:
            tiling = linear.Tiling(block_o, 16, block_c, warps, stages, programs)
            seconds = _timed([_product(x, matrix, tiling) for matrix in matrices])
            lines.append((seconds, {"tiling": name, **tiling._asdict(), "gb_s": matrices[0].bytes / seconds / 1e9}))
        yield from (line for _, line in sorted(lines, key=lambda pair: pair[0])[:5])


def _matrices(layout: Format, outputs: int, inputs: int, group: int, device: str) -> list[linear.Placed]:
    """The same one at as many places as it takes to leave the cache."""
    first = linear.place(random_matrix(layout, outputs, inputs, group, device), device)
    copies = [
        linear.Placed(layout, first.values.clone(), first.scales.clone(), first.mins, group)
        for _ in range(_BEYOND_CACHE // first.bytes)
    ]
    return [first, *copies]


def _product(x: Tensor, matrix: linear.Placed, tiling: linear.Tiling | None = None) -> Callable[[], Tensor]:
    return lambda: linear.linear(x, matrix, tiling)


def _attention_timing(batch: int, context: int, dtype: torch.dtype, device: str) -> Line:
    """Decoding, 32 query heads on 8 key heads of 128, over as many layers as it takes to leave the cache."""
    page = 16
    slots = batch * context
    order = torch.randperm(slots // page, device=device).to(torch.int32).view(batch, -1)
    counting = torch.arange(batch, dtype=torch.int32, device=device)
    few = torch.stack((counting, counting, torch.ones_like(counting), torch.full_like(counting, context - 1)))
    work = attention.Work(order, few, few[:, :0], deep=1)
    bytes_ = 2 * slots * 8 * (128 * dtype.itemsize + (4 if dtype is torch.int8 else 0))
    calls = []
    for _ in range(max(1, _BEYOND_CACHE // bytes_)):
        k, v = (torch.ones(slots, 8, 128, dtype=dtype, device=device) for _ in range(2))
        scales = torch.ones(slots, 8, device=device) if dtype is torch.int8 else None
        q = torch.randn(batch, 32, 128, device=device, dtype=torch.bfloat16)
        calls.append(_attention(q, attention.Pages(k, v, scales, scales, page), work))
    seconds = _timed(calls)
    line = {"timing": "attention", "rows": batch, "context": context, "cache": str(dtype)}
    return {**line, "us": seconds * 1e6, "gb_s": bytes_ / seconds / 1e9}


def _attention(q: Tensor, pages: attention.Pages, work: attention.Work) -> Callable[[], Tensor]:
    return lambda: attention.attend(q, pages, work)


def _timed(calls: Sequence[Callable[[], Tensor | sampling.Draws]]) -> float:
    """Seconds a call, all of them recorded one after the other in one graph."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(aside):
        for call in calls:
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    times: list[float] = []
    for _ in range(10):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / len(calls))
    return sorted(times[3:])[3]


def _error(y: Tensor, wanted: Tensor, scale: float | None = None) -> float:
    """The largest difference, relative to `scale` or to the largest number wanted."""
    return float((y.double() - wanted.double()).abs().max() / (scale or wanted.double().abs().max()))


def _line(name: str, error: float, bound: float) -> Line:
    return {"equality": name, "error": error, "bound": bound, "ok": error <= bound}


def main(arguments: Sequence[str]) -> int:
    """The command."""
    reason = missing()
    if reason is not None:
        sys.stdout.write(json.dumps({"missing": reason}) + "\n")
        return 1
    torch.manual_seed(0)
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    sys.stdout.write(json.dumps({"device": name, "capability": capability, "torch": torch.__version__}) + "\n")
    fine = True
    parts = [equalities("cuda", Sizes()), timings("cuda"), tunings("cuda") if "--tune" in arguments else iter(())]
    for line in itertools.chain(*parts):
        fine = fine and line.get("ok", True) is True
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
