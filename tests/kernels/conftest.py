"""Triton kernels run on the GPU where there is one, else on the CPU in Triton's interpreter. Importing triton settles
it, so it is chosen here.
"""

from __future__ import annotations

import os
import sys

import torch

if not torch.cuda.is_available():
    assert "triton" not in sys.modules or "TRITON_INTERPRET" in os.environ, "triton was imported before its tests"
    os.environ["TRITON_INTERPRET"] = "1"
