"""Compiled products of matrices against their definitions, on every instruction set that runs here.

Definitions are computed in float64 from the stored numbers, so that what is left is the kernel's own rounding. Every
equation about a row's neighbours is between bits.
"""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from tests.kernels.libraries import ROOT, builder, library
from torch import Tensor

from magister.kernels import cpu
from magister.kernels.quantized import Format, Quantized, dequantize, pack_int4, quantize_activations

ISAS = cpu.supported()
TOLERANCE = 1e-5
"""Of the largest number."""


class Kind(NamedTuple):
    """A way to hold a matrix."""

    name: str
    group: int = 0
    """0: none. -1: all inputs."""
    scales: torch.dtype = torch.float32
    mins: bool = False

    def make(self, outputs: int, inputs: int, seed: int = 0) -> Tensor | Quantized:
        """A random matrix [o, i]."""
        generator = torch.Generator().manual_seed(seed)
        dense = torch.randn(outputs, inputs, generator=generator)
        if self.name in ("float32", "bfloat16"):
            return dense.to(getattr(torch, self.name))
        group = inputs if self.group < 0 else self.group
        scales = (torch.rand(outputs, inputs // group, generator=generator) + 0.01).to(self.scales)
        if self.name == "fp8":
            return Quantized(Format.FP8, (100 * dense).clamp(-448, 448).to(torch.float8_e4m3fn), scales, group)
        if self.name == "int8":
            q = torch.randint(-127, 128, (outputs, inputs), generator=generator, dtype=torch.int8)
            return Quantized(Format.INT8, q, scales, group)
        q = torch.randint(16, (outputs, inputs), generator=generator)
        mins = torch.randn(scales.shape, generator=generator).to(self.scales) if self.mins else None
        return Quantized(Format.INT4, pack_int4(q), scales, group, mins)


DENSE = [Kind("float32"), Kind("bfloat16")]
FP8 = [Kind("fp8", 16), Kind("fp8", 24, torch.float16), Kind("fp8", -1, torch.bfloat16)]
INTEGER = [
    Kind("int8", 16, torch.float16),
    Kind("int8", 48),
    Kind("int8", -1, torch.bfloat16),
    Kind("int4", 16, torch.bfloat16),
    Kind("int4", 32, torch.float16),
    Kind("int4", 32, torch.float32, mins=True),
    Kind("int4", 48, torch.float16, mins=True),
    Kind("int4", 64),
    Kind("int4", -1, torch.float16),
]
ALL = [*DENSE, *FP8, *INTEGER]
MANY = [
    Kind("float32"),
    Kind("bfloat16"),
    Kind("fp8", -1),
    Kind("int8", -1),
    Kind("int4", 32),
    Kind("int4", 64, mins=True),
]
"""One of each kernel."""


def definition(x: Tensor, matrix: Tensor | Quantized) -> Tensor:
    """`x W^T` in float64, activations rounded where the matrix asks for it."""
    if isinstance(matrix, Tensor):
        return x.double() @ matrix.double().T
    weights = dequantize(matrix).double()
    if matrix.format is Format.FP8:
        return x.double() @ weights.T
    q, scales = quantize_activations(x, matrix.group)
    return (q.double() * scales.double().repeat_interleave(matrix.group, dim=-1)) @ weights.T


def rows_of(count: int, inputs: int, seed: int = 1) -> Tensor:
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(seed))


def assert_close(got: Tensor, wanted: Tensor) -> None:
    assert got.shape == wanted.shape
    assert ((got.double() - wanted).abs().amax() <= TOLERANCE * wanted.abs().amax()).item()


@pytest.mark.parametrize("kind", ALL, ids=str)
@pytest.mark.parametrize("isa", ISAS)
def test_products_are_their_definition(isa: str, kind: Kind) -> None:
    for outputs, inputs in ((1, 48), (16, 192), (37, 144), (83, 1008)):
        if kind.group > 0 and inputs % kind.group:
            continue
        matrix = kind.make(outputs, inputs)
        packed = library(isa).linear(matrix)
        for count in (1, 2, 3, 5, 14):
            x = rows_of(count, inputs)
            assert_close(packed(x), definition(x, matrix))


@pytest.mark.parametrize("kind", DENSE, ids=str)
@pytest.mark.parametrize("isa", ISAS)
def test_plain_matrices_may_have_any_number_of_inputs(isa: str, kind: Kind) -> None:
    for outputs, inputs in ((3, 1), (17, 7), (70, 333)):
        matrix, x = kind.make(outputs, inputs), rows_of(9, inputs)
        assert_close(library(isa).linear(matrix)(x), definition(x, matrix))


@pytest.mark.parametrize("kind", MANY, ids=str)
@pytest.mark.parametrize("isa", ISAS)
def test_a_row_does_not_depend_on_the_rows_beside_it(isa: str, kind: Kind) -> None:
    inputs, count = 4096, 101
    packed, x = library(isa).linear(kind.make(40, inputs)), rows_of(count, inputs)
    whole = packed(x)
    for first, last in [(row, row + 1) for row in (0, 57, 100)] + [(0, 2), (3, 6), (7, 11), (30, 37), (1, 101)]:
        assert torch.equal(packed(x[first:last]), whole[first:last]), (first, last)
    part = packed.prepare(x)
    y = torch.empty_like(whole)
    part(y, (0, 20), (0, 3))
    part(y, (20, 101), (0, 3))
    assert torch.equal(y, whole)


@pytest.mark.parametrize("kind", MANY, ids=str)
@pytest.mark.parametrize("isa", ISAS)
def test_ranges_of_panels_tile_the_product_and_touch_nothing_else(isa: str, kind: Kind) -> None:
    outputs, inputs, room = 150, 128, 163
    packed = library(isa).linear(kind.make(outputs, inputs))
    for count in (1, 2, 7):
        x = rows_of(count, inputs)
        whole, part = packed(x), packed.prepare(x)
        memory = torch.full((count, room), 77.0)
        for first, last in ((6, 10), (0, 1), (1, 6), (3, 3)):
            before = memory.clone()
            part(memory[:, :outputs], (0, count), (first, last))
            start, stop = 16 * first, min(16 * last, outputs)
            assert torch.equal(memory[:, start:stop], whole[:, start:stop])
            memory[:, start:stop] = before[:, start:stop] = 0
            assert torch.equal(memory, before)
            memory[:, start:stop] = whole[:, start:stop]
        assert (memory[:, outputs:] == 77).all()


@pytest.mark.parametrize("isa", ISAS)
def test_no_rows_have_no_product(isa: str) -> None:
    for kind in (Kind("float32"), Kind("int4", 32)):
        assert library(isa).linear(kind.make(20, 64))(torch.empty(0, 64)).shape == (0, 20)


@pytest.mark.parametrize("kind", MANY, ids=str)
@pytest.mark.parametrize("isa", ISAS)
def test_what_is_no_number_stays_in_its_row(isa: str, kind: Kind) -> None:
    packed, x = library(isa).linear(kind.make(35, 128)), rows_of(9, 128)
    clean, soiled = packed(x), x.clone()
    soiled[2, 5], soiled[4, 100], soiled[7, 127] = torch.nan, torch.inf, -torch.inf
    y = packed(soiled)
    assert y[2].isnan().all()
    assert not y[[4, 7]].isfinite().any()
    others = [0, 1, 3, 5, 6, 8]
    assert torch.equal(y[others], clean[others])


@pytest.mark.parametrize("isa", ISAS)
def test_every_fp8_number_is_itself(isa: str) -> None:
    """All 256 numbers of e4m3, NaN among them, each read out by an activation of one."""
    values = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)[:, None].repeat(1, 16)
    matrix = Quantized(Format.FP8, values, torch.ones(256, 1), 16)
    x = torch.zeros(1, 16)
    x[0, 3] = 1
    y = library(isa).linear(matrix)(x)[0]
    torch.testing.assert_close(y, values[:, 0].float(), rtol=0, atol=0, equal_nan=True)
    assert y.isnan().sum() == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("isa", ISAS)
def test_scales_are_kept_exactly(isa: str, dtype: torch.dtype) -> None:
    """The smallest, the largest and the subnormal ones of each dtype; the product of one number is that scale."""
    info = torch.finfo(dtype)
    scales = torch.tensor([info.tiny, info.tiny * 1.5, info.eps, 1.0, 1 + info.eps, 3e4, 0.0, -2.5], dtype=dtype)
    if dtype is torch.float16:
        scales = torch.cat((scales, torch.tensor([info.max, info.smallest_normal / 4, 2**-24], dtype=dtype)))
    q = torch.zeros(len(scales), 16, dtype=torch.int8)
    q[:, 0] = 1
    x = torch.zeros(1, 16)
    x[0, 0] = 127
    y = library(isa).linear(Quantized(Format.INT8, q, scales[:, None], 16))(x)[0]
    assert torch.equal(y, scales.float() * 127)


@pytest.mark.parametrize("isa", ISAS)
def test_the_largest_whole_numbers_do_not_overflow(isa: str) -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(256)
    for x in (torch.full((1, 512), 127.0), torch.full((1, 512), -127.0), 127 * signs[None]):
        for group in (16, 32, 128, 512):
            for q in (torch.full((2, 512), 127.0), -127 * signs.repeat(2, 1)):
                matrix = Quantized(Format.INT8, q.to(torch.int8), torch.ones(2, 512 // group), group)
                assert torch.equal(library(isa).linear(matrix)(x), x @ q.T)
            for q in (torch.full((2, 512), 15), torch.zeros(2, 512).long()):
                matrix = Quantized(Format.INT4, pack_int4(q), torch.ones(2, 512 // group), group)
                assert torch.equal(library(isa).linear(matrix)(x), x @ (q - 8).float().T)


@pytest.mark.parametrize("isa", ISAS)
def test_activations_are_rounded_by_their_definition(isa: str) -> None:
    x = rows_of(64, 96) * torch.logspace(-44, 38, 64)[:, None]
    x[0] = 0
    x[1, :32], x[2, 40], x[3, 95] = 0, torch.nan, -torch.inf
    x[4, :8] = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5])
    for group in (16, 32, 96):
        q, scales, sums = library(isa).quantize_rows(x, group)
        wanted_q, wanted_scales = quantize_activations(x, group)
        assert torch.equal(q, wanted_q)
        torch.testing.assert_close(scales, wanted_scales, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(sums, wanted_q.view(64, -1, group).sum(-1, dtype=torch.int32))


def test_activations_are_scaled_by_one_division() -> None:
    """127 / x and 127 * (1 / x) differ in the last bit, and then some numbers go to another whole one."""
    x = rows_of(4000, 1024, seed=0)
    q, _, _ = library().quantize_rows(x, 32)
    wanted, _ = quantize_activations(x, 32)
    assert torch.equal(q, wanted)


def check_program(made: Path, compiler: str, flags: list[str], kernels: list[Path]) -> Path:
    """tests/kernels/linear_check.cpp with kernels, as sources or compiled."""
    sources = [Path(__file__).parent / "linear_check.cpp", *kernels]
    command = [compiler, "-static", "-std=c++17", "-O1", "-ffp-contract=off", f"-I{ROOT / 'csrc'}", *flags]
    subprocess.run([*command, *map(str, sources), "-o", str(made)], check=True, timeout=200)
    return made


def test_neon_gives_the_bits_of_avx2(tmp_path: Path) -> None:
    """Every case is also checked against its definition, by the program itself."""
    cross, emulator = "aarch64-linux-gnu-g++", "qemu-aarch64"
    for tool in (cross, emulator):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    sources = sorted((ROOT / "csrc").glob("linear*.cpp"))
    program = check_program(tmp_path / "neon", cross, ["-march=armv8.2-a+dotprod+fp16"], sources)
    neon = subprocess.run([emulator, str(program)], capture_output=True, text=True, check=False, timeout=200)
    assert neon.stderr.split() == ["neon"]
    assert [line for line in neon.stdout.splitlines() if "OFF" in line] == []
    assert neon.returncode == 0
    compiler = builder().find_compiler()
    if "avx2" in cpu.supported() and compiler is not None:
        objects = library("avx2").path.parent / "objects" / "avx2"
        compiled = [objects / f"{source.stem}.o" for source in sources]
        program = check_program(tmp_path / "avx2", compiler, ["-mavx2", "-mfma", "-mf16c"], compiled)
        avx2 = subprocess.run([str(program)], capture_output=True, text=True, check=True, timeout=200)
        assert avx2.stderr.split() == ["avx2"]
        assert neon.stdout == avx2.stdout
