"""A library of compiled kernels, opened: the types of its C functions, its errors, and one packed matrix.

Knows no networks (the compiled decoder is `model.compiled`) and not which library is the right one (`kernels.cpu`).

Shapes: o outputs, i inputs, n groups of inputs, r rows of activations.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_float, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from magister.kernels.quantized import Format, Quantized

_ABI = 1
_FORMATS = {torch.float32: 0, torch.bfloat16: 1, Format.FP8: 2, Format.INT8: 3, Format.INT4: 4}
_SCALES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
# Where there is no memory torch raises RuntimeError: what puts its errors into words does so with ours.
_ERRORS: dict[int, type[Exception]] = {1: ValueError, 2: RuntimeError, 3: AssertionError}


class Config(ctypes.Structure):
    """mg_config: the shape of a text network."""

    _fields_ = (
        *((name, c_int32) for name in ("dim", "layers", "heads", "kv_heads", "head_dim", "hidden", "vocab", "tied")),
        ("eps", c_float),
    )


_POINTER, _CODE = c_void_p, c_int32
SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "mg_abi": (c_int32, ()),
    "mg_isa": (ctypes.c_char_p, ()),
    "mg_error": (ctypes.c_char_p, ()),
    "mg_linear_new": (_POINTER, (c_int32, c_int32, c_int32, c_int32, c_int64, c_int64)),
    "mg_linear_free": (None, (_POINTER,)),
    "mg_linear_bytes": (c_int64, (_POINTER,)),
    "mg_linear_pack": (_CODE, (_POINTER, c_int64, c_int64, _POINTER, _POINTER, _POINTER)),
    "mg_linear_multiply": (_CODE, (_POINTER, _POINTER, c_int64, _POINTER)),
    "mg_linear_prepare": (_CODE, (_POINTER, _POINTER, c_int64)),
    "mg_linear_part": (_CODE, (_POINTER, c_int64, c_int64, _POINTER, c_int64, c_int64, c_int64)),
    "mg_quantize_rows": (_CODE, (_POINTER, c_int64, c_int64, c_int32, _POINTER, _POINTER, _POINTER)),
    "mg_decoder_new": (_POINTER, (ctypes.POINTER(Config), _POINTER, c_int32)),
    "mg_decoder_free": (None, (_POINTER,)),
    "mg_decoder_put_norm": (_CODE, (_POINTER, c_int32, c_int32, _POINTER)),
    "mg_decoder_put_embedding": (_CODE, (_POINTER, c_int32, _POINTER)),
    "mg_decoder_put_matrix": (
        _CODE,
        (_POINTER, c_int32, c_int32, c_int32, c_int32, c_int32, _POINTER, _POINTER, _POINTER),
    ),
    "mg_decoder_bytes": (c_int64, (_POINTER,)),
    "mg_cache_new": (_POINTER, (ctypes.POINTER(Config), c_int64, c_int32, c_int32)),
    "mg_cache_free": (None, (_POINTER,)),
    "mg_cache_bytes": (c_int64, (_POINTER,)),
    "mg_forward": (_CODE, (_POINTER, _POINTER, _POINTER, c_int64, _POINTER, _POINTER)),
}


class Raw(NamedTuple):
    """A matrix as the C interface takes it. The tensors own the memory and must live through the call."""

    format: int
    group: int
    scale_type: int
    values: Tensor
    scales: Tensor | None
    mins: Tensor | None

    @property
    def outputs(self) -> int:
        """Rows."""
        return self.values.shape[0]

    @property
    def inputs(self) -> int:
        """Columns."""
        return self.values.shape[1] * (2 if self.format == _FORMATS[Format.INT4] else 1)

    def pointers(self, first: int = 0) -> tuple[int, int | None, int | None]:
        """Addresses of values, scales and mins from row `first` on."""
        values, scales, mins = (
            None if part is None else part.data_ptr() + first * part.stride(0) * part.element_size()
            for part in (self.values, self.scales, self.mins)
        )
        assert values is not None
        return values, scales, mins


def raw(matrix: Tensor | Quantized) -> Raw:
    """Contiguous CPU tensors of a matrix [o, i]. float16 becomes float32, which is exact and twice as large.

    ValueError for other dtypes and for what is no matrix.
    """
    if isinstance(matrix, Quantized):
        kind = _SCALES[matrix.scales.dtype]
        scales = matrix.scales.to("cpu", torch.float32).contiguous()
        mins = None if matrix.mins is None else matrix.mins.to("cpu", torch.float32).contiguous()
        values = matrix.values.to("cpu").contiguous()
        return Raw(_FORMATS[matrix.format], matrix.group, kind, values, scales, mins)
    if matrix.dim() != 2:
        raise ValueError(f"a matrix has two dimensions, not {matrix.dim()}")
    if matrix.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"a matrix is {matrix.dtype}, must be float32, bfloat16 or float16")
    kept = torch.float32 if matrix.dtype is torch.float16 else matrix.dtype
    values = matrix.detach().to("cpu", kept).contiguous()
    return Raw(_FORMATS[kept], 0, 0, values, None, None)


class Library:
    """An opened library. Its C functions are attributes of `c`, with the types of csrc/magister.h."""

    def __init__(self, path: Path) -> None:
        """OSError where the file is no library; ValueError for one of another version."""
        self.path = path
        self.c = ctypes.CDLL(str(path))
        abi = self.c.mg_abi() if hasattr(self.c, "mg_abi") else 0
        if abi != _ABI:
            raise ValueError(f"{path} has interface {abi}, this Magister asks for {_ABI}: build csrc again")
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(self.c, name)
            function.restype, function.argtypes = result, arguments
        self.isa: str = self.c.mg_isa().decode()

    def check(self, code: int) -> None:
        """Raises what an error code stands for: ValueError, RuntimeError or AssertionError."""
        if code:
            raise _ERRORS[code](self.c.mg_error().decode())

    def handle(self, made: int | None) -> int:
        """The handle that a C function made. ValueError with its words where it made none."""
        if made is None:
            raise ValueError(self.c.mg_error().decode())
        return made

    def linear(self, matrix: Tensor | Quantized) -> PackedLinear:
        """A matrix [o, i], packed. ValueError for dtypes and shapes that have no kernel."""
        return PackedLinear(self, raw(matrix))

    def quantize_rows(self, x_ri: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows in int8 [r, i], their scales float32 [r, n] and the groups' sums of whole numbers int32 [r, n]."""
        x_ri = x_ri.float().contiguous()
        rows, inputs = x_ri.shape
        q_ri = torch.empty(rows, inputs, dtype=torch.int8)
        scales_rn = torch.empty(rows, inputs // group)
        sums_rn = torch.empty(rows, inputs // group, dtype=torch.int32)
        pointers = (part.data_ptr() for part in (q_ri, scales_rn, sums_rn))
        self.check(self.c.mg_quantize_rows(x_ri.data_ptr(), rows, inputs, group, *pointers))
        return q_ri, scales_rn, sums_rn


class PackedLinear:
    """One matrix in the library's own layout, for tests and measurements. One thread."""

    def __init__(self, library: Library, matrix: Raw) -> None:
        self._library = library
        self.outputs, self.inputs = matrix.outputs, matrix.inputs
        self._handle = library.handle(
            library.c.mg_linear_new(
                matrix.format, matrix.group, matrix.mins is not None, matrix.scale_type, self.outputs, self.inputs
            )
        )
        library.check(library.c.mg_linear_pack(self._handle, 0, self.outputs, *matrix.pointers()))

    @property
    def bytes(self) -> int:
        """Memory of the packed matrix."""
        return int(self._library.c.mg_linear_bytes(self._handle))

    def __call__(self, x_ri: Tensor) -> Tensor:
        """[r, i] -> [r, o], both float32."""
        x_ri = self._rows(x_ri)
        y_ro = torch.empty(len(x_ri), self.outputs)
        code = self._library.c.mg_linear_multiply(self._handle, x_ri.data_ptr(), len(x_ri), y_ro.data_ptr())
        self._library.check(code)
        return y_ro

    def prepare(self, x_ri: Tensor) -> Callable[[Tensor, tuple[int, int], tuple[int, int]], None]:
        """Takes rows in, quantised where the matrix asks for it, and answers the bare product.

        The product is called with y [r, o] float32, which it writes to, and the rows and panels (of 16 outputs) to
        compute, both as (first, last).
        """
        x_ri = self._rows(x_ri)
        self._library.check(self._library.c.mg_linear_prepare(self._handle, x_ri.data_ptr(), len(x_ri)))

        def part(y_ro: Tensor, rows: tuple[int, int], panels: tuple[int, int]) -> None:
            assert y_ro.shape == (len(x_ri), self.outputs)
            assert y_ro.dtype is torch.float32
            assert y_ro.stride(1) == 1
            stride = y_ro.stride(0)
            self._library.check(self._library.c.mg_linear_part(self._handle, *rows, y_ro.data_ptr(), stride, *panels))

        return part

    def close(self) -> None:
        """Gives the memory back. May be called again."""
        if self._handle:
            self._library.c.mg_linear_free(self._handle)
        self._handle = 0

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            self.close()

    def _rows(self, x_ri: Tensor) -> Tensor:
        if x_ri.dim() != 2 or x_ri.shape[1] != self.inputs:
            raise ValueError(f"x has shape {list(x_ri.shape)}, the matrix takes [rows, {self.inputs}]")
        return x_ri.float().contiguous()
