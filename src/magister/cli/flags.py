"""Flags that several commands have: where and how a model is computed. Each is a field of `Placement`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="Of weights that are not quantised; auto: as stored.")
]
Context = Annotated[
    int | None, typer.Option(min=2, help="Tokens to make room for. Default: what the model and memory allow.")
]
KeyValuePrecision = Annotated[Literal["auto", "fp32", "bf16", "int8"], typer.Option(help="Of keys and values.")]
KernelChoice = Annotated[
    str, typer.Option(help="On a CPU: auto, torch, or an instruction set (avx512, avx2, neon, generic).")
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Of the compiled kernels. Default: one for a small model, else all cores.")
]
Speculation = Annotated[
    int, typer.Option(min=0, help="Tokens guessed ahead at most, from what was said before. Never changes the reply.")
]
