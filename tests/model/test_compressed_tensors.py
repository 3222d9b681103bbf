"""Checkpoints that others quantised: files written by the documented rules give exactly the numbers they stand for.

The files here are written from whole numbers, scales and zero points; what they stand for is computed plainly, saved as
an ordinary checkpoint, and read by the ordinary reader: names and rows take another way there.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from magister.kernels.quantized import Format, Quantized, dequantize
from magister.model import compressed_tensors, weights
from magister.model.config import DecoderConfig, ModelConfig, VisionConfig
from magister.model.network import build, init_weights, native_parameters

CONFIG = ModelConfig(
    DecoderConfig(64, 2, 16, 192, 6, 2, 1e-5, 100, 1e9, 4096), VisionConfig(32, 1, 2, 48, 4, 64, max_image_size=64)
)
Parts = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One way to quantise: what stands in the description, and a matrix [o, i] in parts and in plain numbers."""

    form: str
    weights: dict[str, Any]
    make: Callable[[int, int], tuple[Parts, Tensor]]
    wanted: Format


def pack(u_oi: Tensor, bits: int) -> Tensor:
    """Numbers of `bits` bits [o, i] -> int32 [o, i * bits / 32]: number k of a word at bit k * bits, the rest zero."""
    each = 32 // bits
    u_oi = torch.nn.functional.pad(u_oi.long(), (0, -u_oi.shape[1] % each))
    words = sum(u_oi[:, k::each] << (bits * k) for k in range(each))
    assert isinstance(words, Tensor)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int()


def drawn(low: int, high: int, *shape: int) -> Tensor:
    return torch.randint(low, high, shape)


def scales(rows: int, columns: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return (0.01 + 0.1 * torch.rand(rows, columns)).to(dtype)


def spread(part: Tensor, outputs: int, inputs: int) -> Tensor:
    rows, columns = -(-outputs // part.shape[0]), -(-inputs // part.shape[1])
    return part.float().repeat_interleave(rows, 0).repeat_interleave(columns, 1)[:outputs, :inputs]


def packed(bits: int, group: int | None, symmetric: bool = True, early: bool = False) -> Callable[..., Any]:
    def make(outputs: int, inputs: int) -> tuple[Parts, Tensor]:
        half = 1 << (bits - 1)
        q, scale = drawn(-half, half, outputs, inputs), scales(outputs, inputs // (group or inputs))
        parts = {"weight_packed": pack(q + half, bits), "weight_scale": scale}
        parts["weight_shape"] = torch.tensor([outputs, inputs])
        zeros = torch.zeros_like(scale)
        if not symmetric:
            zeros = drawn(-half, half, *scale.shape).float()
            whole = pack((zeros.T + half).long(), bits).T.contiguous()
            parts["weight_zero_point"] = zeros.to(torch.int8) if early else whole
        return parts, (q - spread(zeros, outputs, inputs)) * spread(scale, outputs, inputs)

    return make


def int8(columns: int) -> Callable[..., Any]:
    def make(outputs: int, inputs: int) -> tuple[Parts, Tensor]:
        q, scale = drawn(-128, 128, outputs, inputs).to(torch.int8), scales(outputs if columns else 1, 1)
        return {"weight": q, "weight_scale": scale if columns else scale[0]}, q * spread(scale, outputs, inputs)

    return make


def fp8(
    shape: Callable[[int, int], tuple[int, int]], name: str = "weight_scale", flat: bool = False
) -> Callable[..., Any]:
    def make(outputs: int, inputs: int) -> tuple[Parts, Tensor]:
        values, (rows, columns) = torch.randn(outputs, inputs).to(torch.float8_e4m3fn), shape(outputs, inputs)
        scale = scales(rows, columns, torch.float32)
        side = (-(-outputs // rows), -(-inputs // columns))
        wide = scale.repeat_interleave(32 if rows > 1 and side[0] > 1 else side[0], 0)[:outputs]
        wide = wide.repeat_interleave(128 if columns > 1 else side[1], 1)[:, :inputs]
        return {"weight": values, name: scale[0, 0] if flat else scale}, values.float() * wide

    return make


FLOAT = {"num_bits": 8, "type": "float", "strategy": "channel"}
BLOCKS = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [32, 128]}
FOUR = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
EIGHT = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
CASES = {
    "w4 groups": Case("pack-quantized", FOUR, packed(4, 32), Format.INT4),
    "w4 rows": Case("pack-quantized", FOUR | {"strategy": "channel"}, packed(4, None), Format.INT4),
    "w4 zero points": Case("pack-quantized", FOUR | {"symmetric": False}, packed(4, 16, False), Format.INT4),
    "w4 zero points of rows": Case("pack-quantized", FOUR, packed(4, None, False), Format.INT4),
    "w4 zero points not packed": Case("pack-quantized", FOUR, packed(4, 32, False, early=True), Format.INT4),
    "w8 packed": Case("pack-quantized", EIGHT, packed(8, 32), Format.INT8),
    "int8 rows": Case("int-quantized", EIGHT, int8(1), Format.INT8),
    "int8 one": Case("naive-quantized", EIGHT | {"strategy": "tensor"}, int8(0), Format.INT8),
    "fp8 rows": Case("float-quantized", FLOAT, fp8(lambda o, i: (o, 1)), Format.FP8),
    "fp8 one": Case("float-quantized", FLOAT | {"strategy": "tensor"}, fp8(lambda o, i: (1, 1), flat=True), Format.FP8),
    "fp8 blocks": Case("float-quantized", BLOCKS, fp8(lambda o, i: (-(-o // 32), -(-i // 128))), Format.FP8),
}


def hf_folder(folder: Path, make: Callable[..., Any], block: dict[str, Any]) -> Path:
    """A quantised checkpoint in `folder`, and beside it in `plain` the numbers it stands for."""
    torch.manual_seed(0)
    model = build(CONFIG)
    init_weights(model, seed=1)
    weights.save_hf(model, folder)
    weights.save_hf(model, folder / "plain")
    stored, plain = load_file(folder / "model.safetensors"), load_file(folder / "plain" / "model.safetensors")
    for name in list(stored):
        if name.startswith("language_model.model.layers.") and name.endswith("_proj.weight"):
            parts, dense = make(*stored.pop(name).shape)
            stored |= {name.removesuffix("weight") + part: value.contiguous() for part, value in parts.items()}
            plain[name] = dense.contiguous()
    stored["language_model.model.layers.0.self_attn.k_scale"] = torch.ones(1)
    stored["language_model.model.layers.0.mlp.up_proj.input_scale"] = torch.ones(1)
    save_file(stored, folder / "model.safetensors")
    save_file(plain, folder / "plain" / "model.safetensors")
    description = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(description | {"quantization_config": block}))
    return folder


def described(case: Case) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": case.weights, "input_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": case.form,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head", "re:.*vision_tower.*"],
        "quantization_status": "compressed",
    }


def folder_of(path: Path, name: str) -> Path:
    return hf_folder(path, CASES[name].make, described(CASES[name]))


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_exactly_those_of_the_file(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, name)
    assert compressed_tensors.detect(folder)
    assert not compressed_tensors.detect(folder / "plain")
    assert compressed_tensors.read_config(folder) == CONFIG
    wanted = {key: value.detach() for key, value in native_parameters(weights.load(folder / "plain"))}
    found = dict(compressed_tensors.stream(folder))
    assert list(found) == list(wanted)
    for key, value in found.items():
        if isinstance(value, Quantized):
            assert value.format is CASES[name].wanted
            assert value.group <= (128 if value.format is not Format.FP8 else value.inputs)
        assert isinstance(value, Quantized) == (key.startswith("layers.") and "norm" not in key), key
        assert torch.equal(dequantize(value) if isinstance(value, Quantized) else value, wanted[key]), key


def test_transformers_own_fp8(tmp_path: Path) -> None:
    make = fp8(lambda o, i: (-(-o // 32), -(-i // 128)), "weight_scale_inv")
    folder = hf_folder(tmp_path, make, {"quant_method": "fp8", "weight_block_size": [32, 128]})
    wanted = dict(native_parameters(weights.load(folder / "plain")))
    for key, value in compressed_tensors.stream(folder):
        assert torch.equal(dequantize(value) if isinstance(value, Quantized) else value, wanted[key]), key


def test_native_fp8(tmp_path: Path) -> None:
    model = build(CONFIG)
    init_weights(model, seed=1)
    weights.save_native(model, tmp_path)
    stored, wanted = load_file(tmp_path / "consolidated.safetensors"), {}
    for name in list(stored):
        if name.startswith("layers.") and "norm" not in name:
            parts, wanted[name] = fp8(lambda o, i: (1, 1), "qscale_weight", flat=True)(*stored[name].shape)
            stored |= {name.removesuffix("weight") + part: value for part, value in parts.items()}
            stored[name.removesuffix("weight") + "qscale_act"] = torch.tensor(2.0)
    save_file(stored, tmp_path / "consolidated.safetensors")
    block = {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}
    params = json.loads((tmp_path / "params.json").read_text())
    (tmp_path / "params.json").write_text(json.dumps(params | {"quantization": block}))
    assert compressed_tensors.read_config(tmp_path) == CONFIG
    for name, value in compressed_tensors.stream(tmp_path):
        if name in wanted:
            assert isinstance(value, Quantized)
            assert torch.equal(dequantize(value), wanted[name]), name
        else:
            assert isinstance(value, Tensor)
            assert torch.equal(value, stored[name]), name


def rewritten(folder: Path, change: Callable[[Parts], object]) -> Path:
    stored = load_file(folder / "model.safetensors")
    change(stored)
    save_file(stored, folder / "model.safetensors")
    return folder


UP = "language_model.model.layers.1.mlp.up_proj"
NORM = "language_model.model.layers.1.input_layernorm"
COLUMNS = torch.arange(64, dtype=torch.int32) // 32


def test_columns_in_order_are_no_reordering(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "w4 groups")
    before = dict(compressed_tensors.stream(folder))["layers.1.feed_forward.w3.weight"]
    for order in (COLUMNS, torch.full((64,), -1, dtype=torch.int32)):
        rewritten(folder, lambda stored, order=order: stored.update({f"{UP}.weight_g_idx": order}))  # type: ignore[misc]
        after = dict(compressed_tensors.stream(folder))["layers.1.feed_forward.w3.weight"]
        assert isinstance(before, Quantized)
        assert isinstance(after, Quantized)
        assert torch.equal(after.values, before.values)
    rewritten(folder, lambda stored: stored.update({f"{UP}.weight_g_idx": COLUMNS.flip(0)}))
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight_g_idx reorders columns"):
        list(compressed_tensors.stream(folder))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop(f"{UP}.weight_scale"), r"up_proj: 0 scales of the weight"),
        (lambda s: s.pop(f"{UP}.weight_packed"), r"up_proj\.weight is missing; there are weight_shape"),
        (lambda s: [s.pop(key) for key in list(s) if key.startswith(UP)], r"layers\.1\.mlp\.up_proj is missing"),
        (lambda s: s.update({f"{UP}.extra": torch.ones(1)}), r"1 unexpected: .*up_proj\.extra"),
        (lambda s: s.update({f"{UP}.weight_packed": torch.zeros(192, 7, dtype=torch.int32)}), "not 4 or 8 bits"),
        (lambda s: s.update({f"{UP}.weight_packed": torch.zeros(64, 8, dtype=torch.int32)}), "not 4 or 8 bits"),
        (lambda s: s.update({f"{UP}.weight_shape": torch.tensor([192, 63])}), r"weight_shape is \[192, 63\]"),
        (lambda s: s.update({f"{UP}.weight_scale": torch.ones(192, 3)}), r"scales have shape \[192, 3\]"),
        (lambda s: s.update({f"{UP}.weight_scale": torch.ones(192, 0)}), r"scales have shape \[192, 0\]"),
        (lambda s: s.update({f"{UP}.weight_scale": torch.ones(192, 2, 1)}), r"scales have shape \[192, 2, 1\]"),
        (lambda s: s.update({f"{UP}.weight_scale": torch.ones(192, 8)}), r"up_proj: group is 8, must be a multiple"),
        (lambda s: s.update({f"{UP}.weight_scale": torch.ones(192, 2).int()}), r"scales are stored as torch\.int32"),
        (
            lambda s: s.update({f"{UP}.weight_zero_point": torch.zeros(6, 2, dtype=torch.int32)}),
            "weight_zero_point has",
        ),
        (lambda s: s.update({f"{UP}.weight_zero_point": torch.zeros(24, 2)}), "zero_point is stored as torch.float32"),
        (
            lambda s: s.update({f"{NORM}.weight_packed": torch.zeros(8, dtype=torch.int32)}),
            r"input_layernorm is quantised .*weight_packed torch\.int32.*\[64\] is no matrix's",
        ),
        (lambda s: s.update({f"{NORM}.weight": torch.ones(64).to(torch.int8)}), r"input_layernorm is quantised"),
        (lambda s: s.update({f"{NORM}.weight": torch.ones(32)}), r"input_layernorm: weight has shape \[32\]"),
        (lambda s: s.update({"lm_head.weight": s.pop("language_model.lm_head.weight")[:50]}), "must have .100, 64."),
    ],
)
def test_parts_that_do_not_fit(change: Callable[[Parts], object], said: str, tmp_path: Path) -> None:
    folder = rewritten(folder_of(tmp_path, "w4 groups"), change)
    with pytest.raises(ValueError, match=said):
        list(compressed_tensors.stream(folder))


def test_other_numbers_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "fp8 rows")
    rewritten(folder, lambda s: s.update({f"{UP}.weight": s[f"{UP}.weight"].float().to(torch.float8_e5m2)}))
    with pytest.raises(ValueError, match=r"up_proj\.weight is stored as torch\.float8_e5m2"):
        list(compressed_tensors.stream(folder))
    shifted = {"weight": torch.zeros(192, 64, dtype=torch.int8), "weight_scale": torch.ones(192, 1)}
    shifted["weight_zero_point"] = torch.ones(192, 1, dtype=torch.int8)
    rewritten(folder, lambda s: s.update({f"{UP}.{part}": value for part, value in shifted.items()}))
    with pytest.raises(ValueError, match="8 bits with zero points are not read"):
        list(compressed_tensors.stream(folder))


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"quant_method": "awq"}, "quant_method is 'awq'; 'compressed-tensors', 'fp8' are read"),
        ({"format": "marlin-24"}, "format is 'marlin-24'"),
        ({"format": "nvfp4-pack-quantized"}, "format is 'nvfp4-pack-quantized'"),
        (
            {"transform_config": {"config_groups": {"R1": {}}}},
            "transform_config is .*; this network does not compute it",
        ),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config is"),
        ({"config_groups": {"a": {"weights": FOUR | {"num_bits": 3}}}}, "a.weights.num_bits is 3; 4, 8 are read"),
        ({"config_groups": {"a": {"weights": FOUR | {"type": "float"}}}}, "num_bits of a float is 4; 8 are read"),
        ({"config_groups": {"a": {"weights": FOUR | {"strategy": "tensor_group"}}}}, "strategy is 'tensor_group'"),
        (
            {"config_groups": {"a": {"weights": BLOCKS}, "b": {"weights": BLOCKS | {"block_structure": [4, 4]}}}},
            "one for",
        ),
        ({"qformat_weight": "fp8_e5m2"}, "qformat_weight is 'fp8_e5m2'"),
        ({"config_groups": None}, r"config\.json: config_groups is None, must be an object"),
        ({"config_groups": ["a"]}, r"config_groups is \['a'\], must be an object"),
        ({"config_groups": {"a": None}}, r"config_groups\.a is None, must be an object"),
        ({"config_groups": {"a": {"weights": 4}}}, r"config_groups\.a\.weights is 4, must be an object"),
        ({"transform_config": "R1"}, "transform_config is 'R1'; this network does not compute it"),
        ({"weight_block_size": 128}, "weight_block_size is 128, must be two positive whole numbers"),
        (
            {"config_groups": {"a": {"weights": BLOCKS | {"block_structure": [[1], 2]}}}},
            r"config_groups\.a\.weights\.block_structure is \[\[1\], 2\], must be two positive whole numbers",
        ),
    ],
)
def test_other_ways_are_refused_before_anything_is_read(block: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "w4 groups")
    description = json.loads((folder / "config.json").read_text())
    description["quantization_config"] |= block
    (folder / "config.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=said):
        next(compressed_tensors.stream(folder))


def test_groups_that_are_null_are_named_beside_fp8_too(tmp_path: Path) -> None:
    make = fp8(lambda o, i: (-(-o // 32), -(-i // 128)), "weight_scale_inv")
    folder = hf_folder(tmp_path, make, {"quant_method": "fp8", "config_groups": None})
    with pytest.raises(ValueError, match="config_groups is None, must be an object"):
        next(compressed_tensors.stream(folder))


def test_a_tensor_in_two_spellings_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "w4 groups")
    rewritten(folder, lambda s: s.update({"lm_head.weight": s["language_model.lm_head.weight"] + 1}))
    with pytest.raises(ValueError, match=r"lm_head\.weight and .*lm_head\.weight are one tensor"):
        next(compressed_tensors.stream(folder))


def test_an_unknown_key_is_named_with_the_file_it_is_in(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "w4 groups")
    description = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(description | {"wings": 2}))
    with pytest.warns(UserWarning, match="keys not known and not used: config.json: wings") as warned:
        assert compressed_tensors.read_config(folder) == CONFIG
    assert str(warned[0].message).startswith(f"{folder / 'config.json'}: ")


@pytest.mark.parametrize("kept", [0, 7, 300, 20_000])
def test_cut_short(kept: int, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "w4 groups")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a whole safetensors file"):
        list(compressed_tensors.stream(folder))


def test_a_plain_folder_is_none(tmp_path: Path) -> None:
    assert not compressed_tensors.detect(tmp_path)
    with pytest.raises(ValueError, match="holds no quantised checkpoint"):
        compressed_tensors.read_config(tmp_path)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("w4 zero points not packed",)])
def test_the_package_says_the_same(name: str, tmp_path: Path) -> None:
    """Where compressed-tensors is installed: what it makes of the same parts."""
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")
    registry: Any = importlib.import_module("compressed_tensors.compressors")
    schemes: Any = importlib.import_module("compressed_tensors.quantization")
    case = CASES[name]
    symmetric = "zero points" not in name
    strategy = "group" if name in ("w4 groups", "w4 zero points", "w8 packed") else case.weights["strategy"]
    strategy = "channel" if name == "w4 zero points of rows" else strategy
    group = {"w4 groups": 32, "w4 zero points": 16, "w8 packed": 32}.get(name)
    arguments = case.weights | {"symmetric": symmetric, "strategy": strategy, "group_size": group}
    scheme = schemes.QuantizationScheme(targets=["Linear"], weights=schemes.QuantizationArgs(**arguments))
    parts, dense = case.make(192, 64)
    theirs = registry.BaseCompressor.get_value_from_registry(case.form).decompress(dict(parts), scheme)["weight"]
    assert torch.equal(dense.to(theirs.dtype), theirs)
