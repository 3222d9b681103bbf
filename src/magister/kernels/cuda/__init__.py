"""The hot spots as Triton kernels, for NVIDIA GPUs from Ampere on. Each equals its definition in `kernels.reference`,
`kernels.quantized` or, for draws, `engine.sampler`.

The modules of this package import triton when they are imported; this one does not, and neither does anything outside
it until a GPU is in use. `docs/gpu.md` says what has run on which hardware.
"""

from __future__ import annotations

import importlib.util

import torch


def missing() -> str | None:
    """Why these kernels cannot run here, in one line; None if they can."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    capability = torch.cuda.get_device_capability()
    if capability < (8, 0):
        return f"the GPU has compute capability {capability[0]}.{capability[1]}, the kernels ask for 8.0 (Ampere)"
    return None
