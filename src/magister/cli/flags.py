"""What several commands are told: which model, where and how it is computed. Each flag is a field of `Placement`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypedDict

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
    Literal["auto", "torch", "avx512", "avx2", "neon", "generic"],
    typer.Option(help="On a CPU: auto, torch, or an instruction set."),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Of the compiled kernels. Default: one for a small model, else all cores.")
]
Speculation = Annotated[
    int, typer.Option(min=0, help="Tokens guessed ahead at most, from what was said before. Never changes the reply.")
]


class Flags(TypedDict, total=False):
    """The flags as typed, for `Placement(**flags)`, which needs PyTorch; what is not there is its own choice."""

    device: str
    dtype: str
    context: int | None
    kv: str
    kernels: str
    threads: int | None
    speculation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model, by which names, and how it is to run."""

    model: str = "nano"
    name: str = ""
    """By which the model goes; empty for its own."""
    answers: tuple[str, ...] = ()
    """`NAME=MODEL`, each: names that another model answers for."""
    placement: Flags = field(default_factory=Flags)
