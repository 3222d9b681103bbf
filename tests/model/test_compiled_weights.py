"""The compiled loader refuses what the loader in torch refuses, in the same words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.kernels.libraries import library
from torch import Tensor

from magister.model import weights
from magister.model.compiled_weights import load_compiled
from magister.model.config import DecoderConfig, ModelConfig, VisionConfig
from magister.model.network import build, init_weights

CONFIG = ModelConfig(
    DecoderConfig(64, 2, 16, 96, 6, 2, 1e-5, 100, 1e9, 4096), VisionConfig(32, 2, 2, 48, 4, 64, max_image_size=64)
)
IMAGE = "vision_encoder.transformer.layers.0.feed_forward.w1.weight"


def written(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    model = build(CONFIG)
    init_weights(model, seed=1)
    weights.save_native(model, folder)
    tensors = load_file(folder / "consolidated.safetensors")
    change(tensors)
    save_file(tensors, folder / "consolidated.safetensors")
    return folder


def refusals(folder: Path, dtype: torch.dtype | None) -> tuple[str, str]:
    with pytest.raises(ValueError, match=r".") as plain:
        weights.load(folder, dtype=dtype)
    with pytest.raises(ValueError, match=r".") as compiled:
        load_compiled(folder, library(), threads=1, dtype=dtype)
    return str(plain.value), str(compiled.value)


@pytest.mark.parametrize("dtype", [None, torch.float32])
@pytest.mark.parametrize("wrong", [torch.int8, torch.float64])
@pytest.mark.parametrize("name", ["norm.weight", "layers.1.attention.wk.weight", "tok_embeddings.weight", IMAGE])
def test_numbers_of_another_type(name: str, wrong: torch.dtype, dtype: torch.dtype | None, tmp_path: Path) -> None:
    folder = written(tmp_path, lambda tensors: tensors.update({name: tensors[name].to(wrong)}))
    plain, compiled = refusals(folder, dtype)
    assert compiled == plain
    assert compiled.startswith(f"{name} is stored as {wrong}, must be one of torch.float32")


@pytest.mark.parametrize("name", ["norm.weight", "layers.1.attention.wk.weight", IMAGE])
def test_wrong_shapes(name: str, tmp_path: Path) -> None:
    folder = written(tmp_path, lambda tensors: tensors.update({name: torch.zeros(7, 9)}))
    plain, compiled = refusals(folder, None)
    assert compiled == plain
    assert compiled.startswith(f"{name} has shape [7, 9], the description asks for [")


def test_missing_and_unexpected(tmp_path: Path) -> None:
    folder = written(tmp_path, lambda tensors: tensors.update({"extra.weight": tensors.pop(IMAGE)}))
    plain, compiled = refusals(folder, None)
    assert compiled == plain
    assert compiled == f"{folder}: 1 missing: {IMAGE}; 1 unexpected: extra.weight"


def test_a_type_that_nothing_is_loaded_in(tmp_path: Path) -> None:
    plain, compiled = refusals(written(tmp_path, lambda tensors: None), torch.float64)
    assert compiled == plain
    assert compiled.startswith("dtype is torch.float64, must be one of")
