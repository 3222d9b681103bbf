"""Compiles the Triton kernels for a GPU that is not here and says what became of them, one JSON line a kernel.

    python tests/kernels/compile_for.py 80 90

The launches are the real ones, on tensors of a 24B network's shapes in the CPU's memory; only the last step, running,
is left out. Run by `test_triton_compile`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from magister.kernels.cuda import attention, linear, sampling
from magister.kernels.quantized import Format

TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
WORK = attention.Work(
    torch.zeros(2, 64, dtype=torch.int32),
    torch.ones(4, 2, dtype=torch.int32),
    torch.ones(4, 2, dtype=torch.int32),
    deep=1,
)


class Absent:
    """What Triton asks of a driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        # What was compiled is kept by device.
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return device


def matrix(layout: Format, outputs: int, inputs: int, group: int, mins: bool) -> linear.Placed:
    """One whose numbers are never looked at."""
    values = torch.empty(outputs, inputs // (2 if layout is Format.INT4 else 1), dtype=torch.uint8)
    scales = torch.empty(inputs // group, outputs, dtype=torch.float16)
    return linear.Placed(layout, values, scales, scales if mins else None, group)


def launches() -> Iterator[tuple[str, Callable[[], object]]]:
    """Each with the name of what it stands for."""
    for layout, group, mins, rows in (
        (Format.INT4, 128, False, 1),
        (Format.INT4, 32, True, 64),
        (Format.INT8, 128, False, 512),
        (Format.FP8, 5120, False, 1),
    ):
        placed, x = matrix(layout, 5120, 5120, group, mins), torch.empty(rows, 5120, dtype=torch.bfloat16)
        yield f"{layout} groups of {group}, {rows} rows", partial(linear.linear, x, placed)
    q, cache = torch.empty(8, 32, 128, dtype=torch.bfloat16), torch.empty(1024, 8, 128, dtype=torch.int8)
    scales, slots = torch.empty(1024, 8), torch.zeros(8, dtype=torch.int32)
    exact = attention.Pages(cache.bfloat16(), cache.bfloat16(), None, None, 16)
    yield "attention, bfloat16", partial(attention.attend, q, exact, WORK)
    few = WORK._replace(many=WORK.many[:, :0])
    yield "attention, int8", partial(attention.attend, q, attention.Pages(cache, cache, scales, scales, 16), few)
    yield "new keys, int8", partial(attention.write, q[:, :8], slots, cache, scales)
    ones = torch.ones(4)
    yield "sampling", partial(sampling.draw, torch.empty(4, 131072), ones, ones.double(), ones)


def resources(kernel: Any) -> dict[str, int]:
    """What ptxas gave it, and how wide it loads."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        text = subprocess.run([str(TOOL), "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    numbers = {name.lower(): int(re.findall(rf"{name}:(\d+)", text)[-1]) for name in ("REG", "STACK")}
    ptx = kernel.asm["ptx"]
    return {
        **numbers,
        "shared": kernel.metadata.shared,
        "async_16": len(re.findall(r"cp\.async\.cg\.[^;]*0x10,", ptx)),
        "async_4": len(re.findall(r"cp\.async\.ca", ptx)),
        "byte_loads": len(re.findall(r"ld\.global(?:\.\w+)*\.[bus]8", ptx)),
        "tensor_cores": len(re.findall(r"mma\.sync|wgmma\.mma_async", ptx)),
    }


def main(capabilities: list[int]) -> None:
    made: list[tuple[str, Any]] = []
    compile_ = triton.JITFunction.run

    def compile_only(self: Any, *arguments: Any, **options: Any) -> None:
        options["warmup"] = True
        made.append((self.fn.__name__, compile_(self, *arguments, **options)))

    triton.JITFunction.run = compile_only
    for capability in capabilities:
        triton.runtime.driver.set_active(Absent(capability))
        for name, launch in launches():
            made.clear()
            launch()
            for kernel_name, kernel in made:
                line = {"for": name, "capability": capability, "kernel": kernel_name, **resources(kernel)}
                sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]])
