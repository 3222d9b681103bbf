"""Triton's decorator with types, and the one difference between its compiler and its interpreter that kernels must
know.

Knows no kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import triton
import triton.language as tl


class Kernel(Protocol):
    """A function in Triton's language: launched over a grid, or called from another one."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        """The launcher over a grid of programs."""
        ...

    def __call__(self, *arguments: Any) -> Any:
        """Within a kernel."""
        ...


def jit(function: Callable[..., Any]) -> Kernel:
    """Compiles at the first launch, for that launch's types."""
    kernel: Kernel = triton.jit(function)
    return kernel


def jit_any(*names: str) -> Callable[[Callable[..., Any]], Kernel]:
    """`jit` without a separate compilation for the values 1 and multiples of 16 of these arguments.

    For counts that vary from step to step: a row must not be computed by other code because of its neighbours.
    """

    def decorate(function: Callable[..., Any]) -> Kernel:
        kernel: Kernel = triton.jit(function, do_not_specialize=list(names))
        return kernel

    return decorate


def interpreted() -> bool:
    """True under TRITON_INTERPRET=1: kernels run on the CPU, in numpy.

    numpy has no bfloat16: the interpreter multiplies its bits as whole numbers and cuts float32 off instead of rounding
    it. Kernels are told by an argument, `widen`, and go through `multiply` and `narrow`.
    """
    return bool(triton.knobs.runtime.interpret)


@jit
def narrow(x: tl.tensor, dtype: tl.constexpr, widen: tl.constexpr) -> tl.tensor:
    """float32 `x` rounded to the nearest of `dtype`, ties to even. Under `widen` the result is still called float32."""
    if not widen:
        y = x.to(dtype)
    elif dtype == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        bits += 0x7FFF + ((bits >> 16) & 1)
        y = (bits & -65536).to(tl.float32, bitcast=True)
    else:
        y = x.to(dtype).to(tl.float32)
    return y


@jit
def multiply(a: tl.tensor, b: tl.tensor, sum_: tl.tensor, widen: tl.constexpr) -> tl.tensor:
    """`a b + sum_`, accumulated in float32. a [m, k], b [k, n], sum_ [m, n] float32.

    float32 operands are multiplied as such and not as TF32. `widen` (see `interpreted`) turns 16-bit operands into
    float32 first, which changes no product: a tensor core computes them exactly too.
    """
    if widen:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, sum_, input_precision="ieee")
