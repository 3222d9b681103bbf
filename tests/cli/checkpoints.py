"""Tiny random checkpoints as hubs have them: Hugging Face shards or native files, with or without vision."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from magister.model import weights
from magister.model.config import MAGISTRAL_SMALL, DecoderConfig, ModelConfig, VisionConfig
from magister.model.config_files import params_json
from magister.model.network import Model, build, native_parameters, set_parameter
from magister.text.tokenizer import TekkenPlan, tekken

PLAN = TekkenPlan(ranks=300, specials=64)
TEXT = ModelConfig(DecoderConfig(64, 3, 16, 96, 6, 2, 1e-5, 364, 1e6, 4096))
WITH_VISION = replace(TEXT, vision=VisionConfig(32, 2, 2, 48, 14, 140, max_image_size=140))


@cache
def vocabulary() -> str:
    """The Tekken file, made once: it takes a second."""
    return json.dumps(tekken(PLAN))


def random_model(config: ModelConfig, seed: int = 7) -> Model:
    """Weights large enough that attention is not uniform and every norm matters."""
    model, generator = build(config), torch.Generator().manual_seed(seed)
    for name, parameter in list(native_parameters(model)):
        value = torch.randn(parameter.shape, generator=generator)
        scale = 2.0 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.2
        set_parameter(model, name, value * scale + (0.0 if parameter.dim() > 1 else 1.0))
    return model.eval()


def native(folder: Path, config: ModelConfig, seed: int = 7, dtype: torch.dtype = torch.float32) -> Path:
    weights.save_native(random_model(config, seed), folder, dtype)
    return _spoken(folder)


def hf(folder: Path, config: ModelConfig, shards: int = 1, seed: int = 7, dtype: torch.dtype = torch.float32) -> Path:
    """As published: so many shards and their index."""
    weights.save_hf(random_model(config, seed), folder, dtype)
    if shards > 1:
        whole = folder / "model.safetensors"
        tensors = load_file(whole)
        whole.unlink()
        names = list(tensors)
        per_shard = -(-len(names) // shards)
        where: dict[str, str] = {}
        for number in range(shards):
            file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
            part = names[number * per_shard : (number + 1) * per_shard]
            save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
            where |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return _spoken(folder)


def empty(folder: Path, config: ModelConfig) -> Path:
    """A checkpoint of any size in bfloat16, all zeros, that takes no room on a disk that knows sparse files."""
    folder.mkdir()
    header, end = {}, 0
    for name, parameter in native_parameters(build(config)):
        start, end = end, end + 2 * parameter.numel()
        header[name] = {"dtype": "BF16", "shape": list(parameter.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "consolidated.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    (folder / "params.json").write_text(json.dumps(params_json(config)))
    (folder / "tekken.json").write_text(vocabulary())
    return folder


def deep(free: int, times: float) -> ModelConfig:
    """Layers of the 24B shape, as many as take so many times the free memory in bfloat16."""
    layer = 2 * 555_755_520
    wide = replace(MAGISTRAL_SMALL.decoder, vocab_size=364, n_layers=max(1, int(times * free / layer)))
    return ModelConfig(wide)


def _spoken(folder: Path) -> Path:
    (folder / "tekken.json").write_text(vocabulary())
    (folder / "magister.json").write_text('{"name": "tiny", "system_prompt": "", "context": 256}')
    (folder / "generation_config.json").write_text("{}")
    return folder
