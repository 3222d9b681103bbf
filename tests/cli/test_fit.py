"""What fits: arithmetic that is what loading really takes, and refusals that come before a weight is read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.cli import checkpoints
from typer.testing import CliRunner

from magister.cli import compose, export, fit, machine, placement, quantize
from magister.cli.face import LocalModel
from magister.cli.fit import BLOCK, RESERVE, Precision
from magister.cli.main import app
from magister.cli.placement import Placement
from magister.cli.stored import looked_up, stored
from magister.kernels import cpu
from magister.model import names, weights
from magister.model.cache import KVFormat
from magister.model.compiled_weights import load_compiled
from magister.model.config import MAGISTRAL_SMALL, DecoderConfig, ModelConfig
from magister.model.config_files import config_json
from magister.model.network import build, native_parameters
from magister.model.quantize import Plan

LIBRARY = cpu.choose().library
compiled = pytest.mark.skipif(LIBRARY is None, reason="no compiled kernels here")
# Wide enough that a packed matrix's padding and the norms are small beside it.
SHAPE = ModelConfig(DecoderConfig(128, 2, 32, 256, 4, 2, 1e-5, 364, 1e6, 4096))


def held(path: Path, dtype: torch.dtype | None = None) -> tuple[int, int]:
    """Bytes of the weights that a loaded decoder reads for a token, and of the embeddings it looks up."""
    assert LIBRARY is not None
    config = weights.read_config(path)
    loaded = load_compiled(path, LIBRARY, threads=1, dtype=dtype)
    rows = dict(weights.stream(path))["tok_embeddings.weight"]
    kept = dtype or (rows.dtype if isinstance(rows, torch.Tensor) else torch.bfloat16)
    width = 4 if kept in (torch.float32, torch.float16) else 2
    return loaded.decoder.weight_bytes, config.decoder.vocab_size * config.decoder.dim * width


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [checkpoints.native, checkpoints.hf])
def test_floats_take_what_is_said(layout: object, dtype: torch.dtype, tmp_path: Path) -> None:
    assert callable(layout)
    folder = layout(tmp_path / "m", SHAPE, dtype=dtype)
    for cast in (None, torch.float32, torch.bfloat16):
        said = stored(folder, SHAPE, cast, compiled=True)
        read, looked_up = held(folder, cast)
        assert said.read == pytest.approx(read, rel=0.03)
        assert said.weights == pytest.approx(read + looked_up, rel=0.03)


@compiled
@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_ones_take_what_is_said(bits: int, tmp_path: Path) -> None:
    folder = checkpoints.native(tmp_path / "m", SHAPE, dtype=torch.bfloat16)
    quantize.run(str(folder), tmp_path / "q", Plan(bits=bits))
    said = stored(tmp_path / "q", SHAPE, None, compiled=True)
    read, looked_up = held(tmp_path / "q")
    assert said.name == f"int{bits}"
    assert said.read == pytest.approx(read, rel=0.05)
    assert said.weights == pytest.approx(read + looked_up, rel=0.05)
    # And that is what was said before there was any.
    planned = next(precision for precision in fit.precisions(SHAPE) if precision.name == said.name)
    assert (planned.weights, planned.read) == pytest.approx((said.weights, said.read), rel=0.01)


@compiled
@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "f16", "bf16"])
def test_gguf_takes_what_is_said(kind: str, tmp_path: Path) -> None:
    folder = checkpoints.native(tmp_path / "m", SHAPE, dtype=torch.bfloat16)
    file = tmp_path / "m.gguf"
    export.run(str(folder), file, "gguf", kind)
    said = stored(file, SHAPE, None, compiled=True)
    read, looked_up = held(file)
    assert said.read == pytest.approx(read, rel=0.05)
    assert said.weights == pytest.approx(read + looked_up, rel=0.05)


WIDE = ModelConfig(DecoderConfig(512, 1, 64, 1024, 8, 2, 1e-5, 364, 1e6, 4096))


def foreign(folder: Path, kind: str) -> Path:
    """Weights as compressed-tensors holds them: int4 with zero points, fp8 in blocks, or int8 with a scale a row."""
    folder.mkdir()
    tensors = {}
    for native, parameter in native_parameters(build(WIDE)):
        name, shape = names.to_hf(native, False), parameter.shape
        if len(shape) == 1 or "layers" not in name:
            tensors[name] = torch.ones(shape, dtype=torch.bfloat16)
            continue
        outputs, inputs = shape
        scale = {"pack": (outputs, inputs // 32), "float": (-(-outputs // 128), inputs // 128), "int": (outputs, 1)}
        tensors[f"{name}_scale"] = torch.ones(scale[kind], dtype=torch.bfloat16)
        if kind == "pack":
            tensors[f"{name}_packed"] = torch.ones(outputs, inputs // 8, dtype=torch.int32)
            tensors[f"{name}_zero_point"] = torch.ones(outputs // 8, inputs // 32, dtype=torch.int32)
        else:
            tensors[name] = torch.ones(shape).to(torch.int8 if kind == "int" else torch.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors")
    held_as = {"num_bits": 4 if kind == "pack" else 8, "type": "float" if kind == "float" else "int"}
    shared = {"strategy": "block", "block_structure": [128, 128]} if kind == "float" else {}
    quantization = {
        "quant_method": "compressed-tensors",
        "format": f"{kind}-quantized",
        "config_groups": {"group_0": {"weights": held_as | shared}},
    }
    described = config_json(WIDE, "bfloat16") | {"quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(described))
    return folder


@compiled
@pytest.mark.parametrize("kind", ["pack", "float", "int"])
def test_what_others_quantised_takes_what_is_said(kind: str, tmp_path: Path) -> None:
    folder = foreign(tmp_path / "m", kind)
    said = stored(folder, WIDE, None, compiled=True)
    read, rows = held(folder)
    assert said.read == pytest.approx(read, rel=0.004)
    assert said.weights == pytest.approx(read + rows, rel=0.004)


@compiled
def test_quantised_image_networks_are_restored(tmp_path: Path) -> None:
    assert LIBRARY is not None
    folder = checkpoints.fp8(tmp_path / "m", checkpoints.WITH_VISION)
    said = stored(folder, checkpoints.WITH_VISION, None, compiled=True)
    vision = load_compiled(folder, LIBRARY, threads=1).vision
    assert vision is not None
    decoder = checkpoints.TEXT.decoder
    rows = decoder.vocab_size * decoder.dim * 2
    assert said.weights - said.read - rows == sum(parameter.nbytes for parameter in vision.parameters())


def test_a_cache_is_counted_as_wide_as_the_network(tmp_path: Path) -> None:
    for dtype, wanted in ((torch.float32, KVFormat.FP32), (torch.bfloat16, KVFormat.BF16)):
        folder = checkpoints.native(tmp_path / str(dtype), SHAPE, dtype=dtype)
        quantize.run(str(folder), tmp_path / f"{dtype}-int4", Plan())
        for path in (folder, tmp_path / f"{dtype}-int4"):
            assert looked_up(path) is weights.load(path).decoder.tok_embeddings.weight.dtype is dtype
        assert placement.counted_kv("auto", dtype) is wanted
        assert placement.counted_kv("int8", dtype) is KVFormat.INT8


def test_a_float32_cache_that_has_no_room_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    free = machine.memory().available
    config = ModelConfig(DecoderConfig(128, 2, 128, 256, 8, 8, 1e-5, 364, 1e6, 1 << 40))
    folder = checkpoints.empty(tmp_path / "m", config)
    context = int(0.7 * free / fit.token_bytes(config.decoder, KVFormat.BF16))
    with pytest.raises(ValueError, match=rf"for {context:,} tokens in fp32 .* are available; --kv int8 fits$"):
        compose.load(str(folder), Placement(device="cpu", kernels="torch", context=context))


def test_what_the_24b_takes() -> None:
    whole, eight, four = fit.precisions(MAGISTRAL_SMALL)
    assert whole.weights == 2 * 24_011_361_280
    assert (whole.name, eight.name, four.name) == ("bf16", "int8", "int4")
    # 22.9 billion numbers in 4.5 bits and the head in 8.5; embeddings and images stay as they are.
    assert 15.2e9 < four.weights < 15.6e9 < 26e9 < eight.weights < 27e9
    token = fit.token_bytes(MAGISTRAL_SMALL.decoder, KVFormat.BF16)
    assert token == 163_840
    assert fit.token_bytes(MAGISTRAL_SMALL.decoder, KVFormat.INT8) == 163_840 // 2 + 2 * 40 * 8 * 4
    # At 80 % of 50 GB/s: 40e9 over 13.1e9 of weights and 0.33e9 of keys and values.
    assert fit.tokens_per_second(four, token, 50e9) == pytest.approx(0.8 * 50e9 / (four.read + token * 1999.5))


@pytest.mark.parametrize("kv", list(KVFormat))
def test_the_longest_context_fits_and_one_block_more_does_not(kv: KVFormat) -> None:
    precision = fit.precisions(MAGISTRAL_SMALL)[2]
    free = 20 << 30
    longest = fit.fit(MAGISTRAL_SMALL, precision, kv, None, free).longest
    assert 0 < longest < 131_072
    assert longest % BLOCK == 0
    found = fit.fit(MAGISTRAL_SMALL, precision, kv, longest, free)
    assert (found.fits, found.needed <= free) == (True, True)
    more = fit.fit(MAGISTRAL_SMALL, precision, kv, longest + 1, free)
    assert not more.fits
    assert more.needed - free == more.missing > 0


@pytest.mark.parametrize(
    ("free_gib", "context", "kv", "way"),
    [
        (20, 50_000, KVFormat.BF16, "--kv int8 fits"),
        (20, 50_000, KVFormat.INT8, None),
        (20, 100_000, KVFormat.BF16, "--context 32352 fits"),
        (20, 100_000, KVFormat.INT8, "--context 62752 fits"),
        (14, None, KVFormat.BF16, r"free [\d,]+ bytes more"),
    ],
)
def test_the_way_out_is_one(free_gib: int, context: int | None, kv: KVFormat, way: str | None) -> None:
    precision, free = fit.precisions(MAGISTRAL_SMALL)[2], free_gib << 30
    said = fit.refusal("it", MAGISTRAL_SMALL, precision, kv, context, free)
    if way is None:
        assert said is None
        return
    assert said is not None
    assert re.search(rf"it needs [\d,]+ bytes of memory .* {free:,} are available; {way}$", said)
    if flag := re.search(r"--context (\d+) fits", said):
        assert fit.refusal("it", MAGISTRAL_SMALL, precision, kv, int(flag[1]), free) is None
    if "--kv int8" in said:
        assert fit.refusal("it", MAGISTRAL_SMALL, precision, KVFormat.INT8, context, free) is None


def test_too_many_bits_are_pointed_to_fewer() -> None:
    whole, free = fit.precisions(MAGISTRAL_SMALL)[0], 24 << 30
    said = fit.refusal("it", MAGISTRAL_SMALL, whole, KVFormat.BF16, None, free)
    assert said is not None
    assert said.endswith("the original in fewer bits fits: `magister quantize` with --bits 4")
    for precision in fit.precisions(MAGISTRAL_SMALL)[1:]:
        fits = fit.refusal("it", MAGISTRAL_SMALL, precision, KVFormat.INT8, None, free) is None
        assert fits == (precision.name == "int4")


def test_a_model_larger_than_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    free = machine.memory().available
    folder = checkpoints.empty(tmp_path / "large", checkpoints.deep(free, 2.6))
    result = CliRunner().invoke(app, ["chat", "Hello", "--model", str(folder)])
    assert result.exit_code == 1
    said = str(result.exception)
    found = re.search(r"needs ([\d,]+) bytes of memory .*, ([\d,]+) are available; (.*)", said)
    assert found, said
    needed, available = (int(found[group].replace(",", "")) for group in (1, 2))
    assert needed > 2.5 * free
    assert available == pytest.approx(free, rel=0.3)
    assert found[3] == "the original in fewer bits fits: `magister quantize` with --bits 4"
    doctor = CliRunner().invoke(app, ["doctor", str(folder)])
    assert doctor.exit_code == 0
    assert f"magister quantize {folder} large-int4 --bits 4" in doctor.output
    assert re.search(r"bf16 .* lacks [\d.]+ GiB", doctor.output)


@compiled
def test_a_context_larger_than_memory_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    free = machine.memory().available
    config = ModelConfig(DecoderConfig(128, 2, 128, 256, 8, 8, 1e-5, 364, 1e6, 1 << 40))
    folder = checkpoints.empty(tmp_path / "m", config)
    (folder / "magister.json").write_text('{"system_prompt": "", "context": 512}')
    token = fit.token_bytes(config.decoder, KVFormat.BF16)
    context = int(1.3 * free / token)
    with pytest.raises(ValueError, match=rf"for {context:,} tokens in bf16 .* are available; --kv int8 fits$"):
        compose.load(str(folder), Placement(kv="bf16", context=context))
    with pytest.raises(ValueError, match=r"are available; --context \d+ fits$"):
        compose.load(str(folder), Placement(kv="int8", context=4 * context))
    with pytest.raises(ValueError, match=r"context: 1 tokens asked for, the model takes 2 to"):
        compose.load(str(folder), Placement(context=1))
    with LocalModel(compose.load(str(folder), Placement(kv="bf16", context=600))) as model:
        assert model.loaded.context == 600


@compiled
def test_what_is_left_free_is_enough_to_work_in(tmp_path: Path) -> None:
    # A model and a context that just fit are loaded and answer: nothing is refused that had been promised.
    config = ModelConfig(DecoderConfig(64, 2, 128, 96, 8, 8, 1e-5, 364, 1e6, 1 << 40))
    folder = checkpoints.native(tmp_path / "m", config)
    token = fit.token_bytes(config.decoder, KVFormat.FP32)
    context = (machine.memory().available - 2 * RESERVE) // token // BLOCK * BLOCK
    with LocalModel(compose.load(str(folder), Placement(context=context))) as model:
        assert model.loaded.context == context
        assert model.chat("Hello", max_tokens=4).usage.completion_tokens <= 4


def test_a_damaged_header_is_named(tmp_path: Path) -> None:
    folder = checkpoints.native(tmp_path / "m", checkpoints.TEXT)
    path = folder / "consolidated.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        stored(folder, checkpoints.TEXT, None, compiled=True)


def test_precision_says_what_it_is(tmp_path: Path) -> None:
    folder = checkpoints.hf(tmp_path / "m", checkpoints.WITH_VISION, 3, dtype=torch.bfloat16)
    as_it_is = stored(folder, checkpoints.WITH_VISION, None, compiled=True)
    assert as_it_is == Precision("bf16", *fit.precisions(checkpoints.WITH_VISION)[0][1:3])
    assert stored(folder, checkpoints.WITH_VISION, torch.float32, compiled=False).weights == 2 * as_it_is.weights
