"""The product that serves a quantised matrix equals the definition, whole or in pieces."""

import pytest
import torch

from magister.kernels import dispatch
from magister.kernels.quantized import Format, Quantized, linear_weight_only, pack_int4


def matrix(kind: Format, outputs: int, inputs: int, group: int, mins: bool) -> Quantized:
    generator = torch.Generator().manual_seed(outputs)
    scales = torch.rand(outputs, inputs // group, generator=generator) * 0.1
    if kind is Format.INT4:
        values = pack_int4(torch.randint(0, 16, (outputs, inputs), generator=generator))
    elif kind is Format.INT8:
        values = torch.randint(-127, 128, (outputs, inputs), generator=generator).to(torch.int8)
    else:
        values = torch.randn(outputs, inputs, generator=generator).to(torch.float8_e4m3fn)
    return Quantized(kind, values, scales.half(), group, -scales.half() if mins else None)


@pytest.mark.parametrize("lead", [(), (1,), (5,), (2, 3)])
@pytest.mark.parametrize(
    ("kind", "group", "mins"),
    [(Format.INT4, 32, False), (Format.INT4, 16, True), (Format.INT8, 64, False), (Format.FP8, 192, False)],
)
def test_it_equals_the_definition(kind: Format, group: int, mins: bool, lead: tuple[int, ...]) -> None:
    made = matrix(kind, 37, 192, group, mins)
    product = dispatch.place(made)
    x = torch.randn(*lead, 192)
    torch.testing.assert_close(product(x), linear_weight_only(x, made))
    assert (product.outputs, product.inputs, product.format, product.bytes) == (37, 192, kind, made.bytes)


def test_a_matrix_too_large_to_restore_at_once_is_multiplied_in_pieces() -> None:
    made = matrix(Format.INT4, 2100, 4096, 128, True)
    assert made.outputs * made.inputs > 2 * dispatch.CHUNK
    x = torch.randn(3, 4096)
    torch.testing.assert_close(dispatch.place(made)(x), linear_weight_only(x, made))


def test_the_activations_type_is_the_results() -> None:
    product = dispatch.place(matrix(Format.INT8, 24, 64, 32, False))
    assert product(torch.randn(2, 64, dtype=torch.bfloat16)).dtype is torch.bfloat16


def test_a_copy_has_memory_of_its_own() -> None:
    made = matrix(Format.INT4, 8, 64, 32, True)
    copy, same = dispatch.moved(made, "cpu", copy=True), dispatch.moved(made, "cpu")
    made.values.zero_()
    assert bool((copy.values != 0).any())
    assert bool((same.values == 0).all())
