"""The Triton product with a quantised matrix = its definition; a row's bits do not depend on the other rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from magister.kernels.cuda.linear import Tiling, default_tiling, linear, place, split_columns
from magister.kernels.dispatch import Product
from magister.kernels.quantized import Format, Quantized, dequantize, pack_int4

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BOUND = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 1e-6}
"""Of the largest output: half a unit in its last place, and a little for the order of sums."""


def random_matrix(layout: Format, outputs: int, inputs: int, group: int, mins: bool, scales: torch.dtype) -> Quantized:
    generator = torch.Generator().manual_seed(outputs * inputs + group)
    if layout is Format.INT4:
        values = pack_int4(torch.randint(0, 16, (outputs, inputs), generator=generator))
    elif layout is Format.INT8:
        values = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8, generator=generator)
    else:
        values = torch.randn(outputs, inputs, generator=generator).mul(100).to(torch.float8_e4m3fn)
    shape = (outputs, inputs // group)
    scales_on = (torch.rand(shape, generator=generator) * 0.1 + 0.01).to(scales)
    mins_on = torch.randn(shape, generator=generator).to(scales) if mins else None
    return Quantized(layout, values, scales_on, group, mins_on)


def exact(x: Tensor, matrix: Quantized) -> Tensor:
    """The definition with its sums in float64."""
    return x.double() @ dequantize(matrix, x.dtype).double().t()


def assert_close(y: Tensor, wanted: Tensor) -> None:
    bound = BOUND[y.dtype] * float(wanted.abs().max())
    assert float((y.cpu().double() - wanted).abs().max()) <= bound


def rows_of(n: int, inputs: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(n, inputs, generator=torch.Generator().manual_seed(n)).to(dtype)


@pytest.mark.parametrize(
    ("layout", "outputs", "inputs", "group", "mins", "rows", "dtype"),
    [
        (Format.INT4, 70, 192, 16, False, 3, torch.bfloat16),
        (Format.INT4, 33, 256, 32, True, 1, torch.bfloat16),
        (Format.INT4, 64, 192, 64, True, 2, torch.float16),
        (Format.INT4, 65, 128, 128, False, 16, torch.float32),
        (Format.INT4, 40, 144, 48, True, 17, torch.bfloat16),
        (Format.INT4, 17, 80, 80, False, 5, torch.float32),
        (Format.INT4, 130, 96, 32, False, 70, torch.bfloat16),
        (Format.INT8, 70, 160, 16, False, 1, torch.bfloat16),
        (Format.INT8, 20, 640, 128, False, 4, torch.float16),
        (Format.INT8, 129, 144, 48, False, 17, torch.float32),
        (Format.INT8, 30, 336, 336, False, 7, torch.bfloat16),
        (Format.FP8, 50, 100, 100, False, 5, torch.bfloat16),
        (Format.FP8, 65, 256, 128, False, 1, torch.float32),
        (Format.FP8, 30, 96, 32, False, 65, torch.float16),
    ],
)
def test_equals_its_definition(
    layout: Format, outputs: int, inputs: int, group: int, mins: bool, rows: int, dtype: torch.dtype
) -> None:
    matrix = random_matrix(layout, outputs, inputs, group, mins, torch.float32 if rows % 2 else torch.float16)
    x = rows_of(rows, inputs, dtype)
    assert_close(linear(x.to(DEVICE), place(matrix, DEVICE)), exact(x, matrix))


def test_split_inputs_equal_whole_ones() -> None:
    matrix = random_matrix(Format.INT4, 20, 1024, 128, False, torch.bfloat16)
    placed, x = place(matrix, DEVICE), rows_of(2, 1024, torch.bfloat16)
    assert split_columns(512, 20, 2, default_tiling(placed, 2, x.dtype))[1] == 2
    assert_close(linear(x.to(DEVICE), placed), exact(x, matrix))
    whole = Tiling(32, 16, 64, warps=1, stages=1, programs=1)
    assert_close(linear(x.to(DEVICE), placed, whole), exact(x, matrix))


def test_every_fp8_number_is_read_as_torch_reads_it() -> None:
    bits = torch.arange(256, dtype=torch.uint8)
    bits = bits[(bits & 0x7F) != 0x7F].view(1, -1)
    values = torch.cat((bits, bits.new_zeros(1, 256 - bits.shape[1])), 1).view(torch.float8_e4m3fn)
    matrix = place(Quantized(Format.FP8, values.t().contiguous(), torch.ones(256, 1), 1), DEVICE)
    one = torch.ones(1, 1, device=DEVICE)
    assert torch.equal(linear(one, matrix).cpu(), values.float())


def test_a_row_has_the_same_bits_beside_any_others() -> None:
    placed = place(random_matrix(Format.INT4, 40, 1024, 128, True, torch.float16), DEVICE)
    x = rows_of(16, 1024, torch.bfloat16).to(DEVICE)
    together = linear(x, placed)
    for rows in (slice(0, 1), slice(5, 7), slice(3, 16)):
        assert torch.equal(linear(x[rows], placed), together[rows])


def test_leading_dims_and_no_rows() -> None:
    matrix = random_matrix(Format.INT8, 20, 32, 32, False, torch.float32)
    placed, x = place(matrix, DEVICE), rows_of(6, 32, torch.float32)
    product: Product = placed
    y = product(x.view(2, 3, 32).to(DEVICE))
    assert y.shape == (2, 3, 20)
    assert_close(y.view(6, 20), exact(x, matrix))
    assert linear(x[:0].to(DEVICE), placed).shape == (0, 20)
    assert (placed.inputs, placed.outputs, placed.bytes) == (32, 20, matrix.bytes)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="x has 31 inputs, the matrix has 32"):
        linear(torch.zeros(1, 31), place(random_matrix(Format.INT8, 4, 32, 32, False, torch.float32), "cpu"))
    values = torch.full((2, 16), float("nan")).to(torch.float8_e4m3fn)
    with pytest.raises(ValueError, match="NaN"):
        place(Quantized(Format.FP8, values, torch.ones(2, 1), 16), "cpu")
