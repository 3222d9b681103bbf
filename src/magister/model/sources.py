"""Any checkpoint that is read here, whoever wrote it: its shape, and its tensors one at a time under native names.

| found | read by |
|---|---|
| `quantized.json` | `quantized_files` |
| a native or Hugging Face folder that says it is quantised | `compressed_tensors` |
| a native or Hugging Face folder | this module; a folder that is both is read as native |
| a GGUF file, or a folder with one | `gguf_files` |

Knows no models: nothing is built, nothing checked against a network but by the readers themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from magister.kernels.quantized import Quantized
from magister.model import compressed_tensors, gguf_files, names, permute, quantized_files, shards
from magister.model.config import ModelConfig
from magister.model.config_files import read_config_json, read_params_json
from magister.model.network import build, native_parameters


def read_config(path: Path) -> ModelConfig:
    """The shape of the checkpoint at `path`. ValueError for what is none, or describes what is not computed here."""
    if quantized_files.is_quantized(path):
        return read_params_json(path / "params.json")
    if compressed_tensors.detect(path):
        return compressed_tensors.read_config(path)
    if _plain(path, "params.json", "consolidated"):
        return read_params_json(path / "params.json")
    if _plain(path, "config.json", "model"):
        return read_config_json(path / "config.json")
    if gguf_files.detect(path):
        return gguf_files.read_config(path)
    raise ValueError(
        f"{path} is no checkpoint: it must be a folder with params.json and consolidated*.safetensors, "
        "or with config.json and model*.safetensors, or a GGUF file"
    )


def stream(path: Path) -> Iterator[tuple[str, Tensor | Quantized]]:
    """Every tensor under its native name, rows of queries and keys in native order, one at a time; tensors may be the
    file itself, mapped. A tensor of a plain folder that the network has not comes under its stored name.

    ValueError as `read_config`, and for missing or damaged files.
    """
    config = read_config(path)
    if quantized_files.is_quantized(path):
        return quantized_files.tensors(path)
    if compressed_tensors.detect(path):
        return compressed_tensors.stream(path)
    if _plain(path, "params.json", "consolidated"):
        files = shards.contents(path, "consolidated")
        return ((name, shards.read(files, name)) for name in files)
    if _plain(path, "config.json", "model"):
        return _hf(path, config)
    return gguf_files.stream(path)


def _plain(path: Path, description: str, stem: str) -> bool:
    return (path / description).is_file() and any(path.glob(f"{stem}*.safetensors*"))


def _hf(path: Path, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    native = {names.plain_hf(names.to_hf(name, True)): name for name, _ in native_parameters(build(config))}
    files = shards.contents(path, "model")
    for stored in files:
        name, tensor = native.get(names.plain_hf(stored), stored), shards.read(files, stored)
        if names.is_query_or_key(name):
            head_dim = names.head_dim(name, config)
            # A wrong shape goes on as it is, so that whoever asks for another can name both.
            if tensor.dim() == 2 and tensor.shape[0] % head_dim == 0:
                tensor = permute.hf_to_native(tensor, head_dim)
        yield name, tensor
