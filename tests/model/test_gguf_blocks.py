"""Blocks of GGUF tensors: their numbers are those of the `gguf` package, to the last bit, and go back as they came."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from magister.kernels.dispatch import rows
from magister.kernels.quantized import Format, Quantized, dequantize, pack_int4
from magister.model import gguf_blocks

HALVES = {"Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q8_0": (0,), "Q4_K": (0, 2), "Q6_K": (208,)}
"""Where the float16 numbers of a block lie."""


def random_blocks(kind: str, rows: int, blocks: int, seed: int = 0) -> Tensor:
    """Any bytes at all, but float16 numbers that are finite: normal, subnormal and zero."""
    generator = np.random.default_rng(seed)
    size = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind]][1]
    raw = generator.integers(0, 256, (rows, blocks, size), dtype=np.uint8)
    for start in HALVES[kind]:
        halves = (generator.normal(size=(rows, blocks)) * 10.0 ** generator.integers(-8, 3, (rows, blocks))).astype(
            "f2"
        )
        raw[..., start : start + 2] = halves[..., None].view(np.uint8)
    return torch.from_numpy(raw.reshape(rows, -1))


def matrix(kind: str, raw: Tensor) -> Quantized:
    inputs, size = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    found = gguf_blocks.unpack(kind, raw, (len(raw), raw.shape[1] // size * inputs))
    assert isinstance(found, Quantized)
    return found


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize(("rows", "blocks"), [(1, 1), (5, 3)])
def test_numbers_are_those_of_the_gguf_package(kind: str, rows: int, blocks: int) -> None:
    raw = random_blocks(kind, rows, blocks)
    theirs = torch.from_numpy(gguf.quants.dequantize(raw.numpy(), GGMLQuantizationType[kind]))
    assert torch.equal(dequantize(matrix(kind, raw)), theirs)


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0"])
def test_a_matrix_restored_in_slices_is_that_of_its_rows(kind: str) -> None:
    whole = matrix(kind, random_blocks(kind, 4099, 32))
    assert whole.outputs * whole.inputs > 3 << 20
    for dtype in (torch.float32, torch.bfloat16):
        apart = [dequantize(rows(whole, first, 1000), dtype) for first in range(0, 4099, 1000)]
        assert torch.equal(dequantize(whole, dtype), torch.cat(apart))


PEAK = """
import torch
from magister.kernels.quantized import dequantize
from magister.model import gguf_blocks

def kilobytes(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))

def work(rows):
    raw = torch.zeros(rows, 64 * 34, dtype=torch.uint8).fill_(1)
    before = kilobytes("VmRSS:")
    matrix = gguf_blocks.unpack("Q8_0", raw, (rows, 2048))
    unpacked = kilobytes("VmHWM:") - before
    before = kilobytes("VmRSS:")
    restored = dequantize(matrix, torch.bfloat16)
    return unpacked * 1024 / matrix.bytes, (kilobytes("VmHWM:") - before) * 1024 / restored.nbytes

gguf_blocks._CHUNK = 1 << 20
work(100)  # whatever the first time imports is not the matrix's
print(*work(1 << 15))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_unpacking_and_restoring_take_little_more_memory_than_the_result() -> None:
    environment = {"PYTHONPATH": str(Path(gguf_blocks.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    unpacked, restored = map(float, done.stdout.split())
    assert unpacked < 1.4
    assert restored < 1.7


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_a_matrix_taken_in_pieces_is_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = random_blocks(kind, 11, 4)
    whole = matrix(kind, raw)
    monkeypatch.setattr(gguf_blocks, "_CHUNK", 3 * raw.shape[1])
    assert torch.equal(dequantize(matrix(kind, raw)), dequantize(whole))
    assert torch.equal(gguf_blocks.pack(kind, whole), raw)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_blocks_go_back_as_they_came(kind: str) -> None:
    raw = random_blocks(kind, 7, 4)
    assert gguf_blocks.fits(matrix(kind, raw)) == kind
    assert torch.equal(gguf_blocks.pack(kind, matrix(kind, raw)), raw)


def test_five_bits_go_into_eight() -> None:
    five = matrix("Q5_0", random_blocks("Q5_0", 3, 2))
    assert gguf_blocks.fits(five) == "Q8_0"
    assert torch.equal(dequantize(matrix("Q8_0", gguf_blocks.pack("Q8_0", five))), dequantize(five))


def test_a_block_by_hand() -> None:
    # d = 0.5; low halves are numbers 0..15, high halves 16..31 of the block.
    body = [n | (15 - n) << 4 for n in range(16)]
    raw = torch.tensor([[0x00, 0x38, *body]], dtype=torch.uint8)
    wanted = [(n - 8) * 0.5 for n in range(16)] + [(15 - n - 8) * 0.5 for n in range(16)]
    assert dequantize(matrix("Q4_0", raw)).tolist() == [wanted]


def test_the_lowest_byte_is_kept() -> None:
    raw = torch.tensor([[0x00, 0x3C, *[0x80] * 32]], dtype=torch.uint8)
    assert dequantize(matrix("Q8_0", raw)).tolist() == [[-128.0] * 32]


@pytest.mark.parametrize(("kind", "dtype"), [("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_floats_are_themselves(kind: str, dtype: torch.dtype) -> None:
    wanted = torch.randn(3, 5).to(dtype)
    found = gguf_blocks.unpack(kind, gguf_blocks.pack(kind, wanted).view(3, -1), (3, 5))
    assert isinstance(found, Tensor)
    assert found.dtype == dtype
    assert torch.equal(found, wanted)


def test_a_group_of_many_blocks_repeats_its_scale() -> None:
    q_oi = torch.randint(0, 16, (3, 256), generator=torch.Generator().manual_seed(1))
    wide = Quantized(Format.INT4, pack_int4(q_oi), torch.rand(3, 2).bfloat16(), 128)
    assert gguf_blocks.fits(wide) == "Q4_0"
    assert torch.equal(dequantize(matrix("Q4_0", gguf_blocks.pack("Q4_0", wide))), dequantize(wide))


def test_what_no_kind_holds_exactly_is_known() -> None:
    values = torch.zeros(2, 64, dtype=torch.int8)
    ones = torch.ones(2, 2)
    assert gguf_blocks.fits(Quantized(Format.INT8, values, ones, 32)) == "Q8_0"
    assert gguf_blocks.fits(Quantized(Format.INT8, values, torch.ones(2, 4), 16)) is None
    assert gguf_blocks.fits(Quantized(Format.INT8, values, ones + 1e-4, 32)) is None
    assert gguf_blocks.fits(Quantized(Format.INT8, values, (ones * 1e9).bfloat16(), 32)) is None
    assert gguf_blocks.fits(Quantized(Format.FP8, values.to(torch.float8_e4m3fn), ones, 32)) is None
    packed = torch.zeros(2, 32, dtype=torch.uint8)
    assert gguf_blocks.fits(Quantized(Format.INT4, packed, ones, 32, ones)) == "Q4_1"
    assert gguf_blocks.fits(Quantized(Format.INT4, packed, ones, 32, ones / 3)) is None


def test_other_kinds_are_named() -> None:
    with pytest.raises(ValueError, match=r"Q5_K is not read; F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, Q6_K are"):
        gguf_blocks.unpack("Q5_K", torch.zeros(1, 176, dtype=torch.uint8), (1, 256))
