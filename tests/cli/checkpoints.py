"""Tiny random checkpoints as hubs have them: Hugging Face shards or native files, with or without vision."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from magister.model import names, permute, weights
from magister.model.config import MAGISTRAL_SMALL, DecoderConfig, ModelConfig, VisionConfig
from magister.model.config_files import config_json, params_json
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


def fp8(folder: Path, config: ModelConfig) -> Path:
    """Both layouts in one folder, all matrices but embeddings and head in fp8, as others quantise them."""
    folder.mkdir()
    native_fp8, hf_fp8 = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for name, parameter in native_parameters(random_model(config)):
        value, stored = parameter.detach().bfloat16(), names.to_hf(name, config.vision is not None)
        if value.dim() == 2 and name not in ("tok_embeddings.weight", "output.weight"):
            scale = value.float().abs().max() / 448
            value = (value / scale).to(torch.float8_e4m3fn)
            native_fp8[f"{name.removesuffix('weight')}qscale_weight"] = scale
            hf_fp8[f"{stored}_scale_inv"] = scale.clone()
        native_fp8[name] = value
        if names.is_query_or_key(name):
            vision = config.vision if name.startswith("vision_encoder.") else None
            value = permute.native_to_hf(value, vision.head_dim if vision else config.decoder.head_dim)
        hf_fp8[stored] = value.clone()
    save_file(native_fp8, folder / "consolidated.safetensors")
    save_file(hf_fp8, folder / "model.safetensors")
    said = {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}
    (folder / "params.json").write_text(json.dumps(params_json(config) | {"quantization": said}))
    described = config_json(config, "bfloat16") | {"quantization_config": {"quant_method": "fp8"}}
    (folder / "config.json").write_text(json.dumps(described))
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
