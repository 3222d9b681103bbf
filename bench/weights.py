"""Checkpoints for everyone, made once: the same numbers for us, transformers and vLLM, and as GGUF for llama.cpp.

Random quantised networks are random in the quantised numbers themselves, ours and llama.cpp's apart: nothing is
measured on them but time, which does not ask what a number says. They are written a matrix at a time, so that 40 layers
take no more memory than one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import environments, shapes
from bench.places import ROOT, Places
from magister.cli.places import find
from magister.kernels.quantized import Format, Quantized
from magister.model import weights
from magister.model.config import ModelConfig
from magister.model.config_files import params_json
from magister.model.network import build, init_weights, native_parameters
from magister.model.quantize import Plan, Rule
from magister.model.quantized_files import Writer

PLAN = Plan()
"""How our random quantised networks are quantised: as `magister quantize` does where nobody says otherwise."""

DEVIATIONS = {Format.INT4: 4.6, Format.INT8: 73.0}
"""Of whole numbers drawn evenly from -8..7 and from -127..127."""


def nano() -> Path:
    """The shipped checkpoint's folder."""
    return find("nano")


def small(places: Places) -> Path:
    """The 30M shape, random, in bfloat16. It speaks with nano's vocabulary; the rest of its own is never said."""
    folder = places.weights / "small"
    if not (folder / "tekken.json").is_file():
        model = build(shapes.SMALL)
        init_weights(model, 0, dtype=torch.bfloat16)
        weights.save_native(model, folder)
        _describe(folder, shapes.SMALL.decoder.max_position_embeddings)
        shutil.copyfile(nano() / "tekken.json", folder / "tekken.json")
    return folder


def hf(places: Places, folder: Path, name: str) -> Path:
    """A native folder in the layout of transformers and vLLM, in bfloat16."""
    made = places.weights / f"{name}-hf"
    if not (made / "config.json").is_file():
        weights.save_hf(weights.load(folder), made, torch.bfloat16)
    return made


def gguf(places: Places, folder: Path, name: str) -> Path:
    """A native folder as a GGUF in bfloat16, norms in float32."""
    params = json.loads((folder / "params.json").read_text(encoding="utf-8"))
    return _gguf(places, name, params, folder)


def magistral(places: Places, layers: int) -> Path:
    """So many layers of the 24B shape in our quantised layout, random."""
    folder = places.weights / f"magistral-{layers}"
    random_quantized(folder, shapes.magistral(layers))
    return folder


def random_quantized(folder: Path, config: ModelConfig) -> None:
    """Writes a random network in our quantised layout, unless it is there; it can read a context of 40,960 tokens."""
    if (folder / "magister.json").is_file():
        return
    if folder.exists():
        # Half a random network is not worth going on with.
        shutil.rmtree(folder)
    writer = Writer(folder, config, PLAN, "random")
    for name, value in _random(config):
        writer.add(name, value)
    writer.finish()
    _describe(folder, min(40960, config.decoder.max_position_embeddings))


def magistral_gguf(places: Places, layers: int) -> Path:
    """So many layers of the 24B shape in Q4_0 with a Q6_K head, random, for llama.cpp."""
    return _gguf(places, f"magistral-{layers}", params_json(shapes.magistral(layers)), None)


def probe_gguf(places: Places) -> Path:
    """One layer in Q4_0, a few megabytes: what a build of llama.cpp must survive."""
    return _gguf(places, "probe", params_json(shapes.PROBE), None)


def bytes_per_token(config: ModelConfig, plan: Plan | None) -> int:
    """Bytes of weights that one decoded token reads: everything but the embeddings. Without a plan, in bfloat16."""
    total = 0
    for name, parameter in native_parameters(build(config)):
        if not name.startswith("tok_embeddings"):
            rule = plan.rule(name) if plan else None
            total += rule.bytes(parameter.shape) if rule else parameter.numel() * 2
    return total


def _random(config: ModelConfig) -> Iterator[tuple[str, torch.Tensor | Quantized]]:
    random = np.random.default_rng(0)
    for name, parameter in native_parameters(build(config)):
        rule = PLAN.rule(name)
        if parameter.dim() == 1:
            yield name, torch.ones(parameter.shape, dtype=torch.bfloat16)
        elif rule is not None:
            yield name, _matrix(tuple(parameter.shape), rule, random)
        else:
            value = torch.empty(parameter.shape, dtype=torch.bfloat16)
            rows = torch.from_numpy(random.standard_normal((64, parameter.shape[1]), np.float32)).bfloat16()
            value.view(-1, 64, parameter.shape[1])[:] = rows
            yield name, value


def _matrix(shape: tuple[int, ...], rule: Rule, random: np.random.Generator) -> Quantized:
    outputs, inputs = shape
    packed = inputs // 2 if rule.format is Format.INT4 else inputs
    values = torch.frombuffer(bytearray(random.bytes(outputs * packed)), dtype=torch.uint8).view(outputs, packed)
    if rule.format is Format.INT8:
        values = values.view(torch.int8).clamp_(min=-127)
    scale = inputs**-0.5 / DEVIATIONS[rule.format]
    scales = torch.full((outputs, inputs // rule.group), scale, dtype=torch.float16)
    return Quantized(rule.format, values, scales, rule.group)


def _gguf(places: Places, name: str, params: dict[str, Any], folder: Path | None) -> Path:
    path = places.weights / f"{name}.gguf"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        python = environments.gguf(places)
        asked = {"path": str(path), "params": params, "folder": str(folder) if folder else None}
        command = [str(python), "-m", "bench.workers.gguf"]
        subprocess.run(command, input=json.dumps(asked), text=True, cwd=ROOT, check=True)
    return path


def _describe(folder: Path, context: int) -> None:
    text = json.dumps({"name": folder.name, "context": context})
    (folder / "magister.json").write_text(text + "\n", encoding="utf-8")
