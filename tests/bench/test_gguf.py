"""The files llama.cpp is measured on hold what ours hold: written by the gguf package, read by our own reader."""

import json
from pathlib import Path

import torch
from bench.workers import gguf

from bench import shapes, weights
from magister.kernels.quantized import Format, Quantized
from magister.model.config_files import params_json
from magister.model.weights import stream


def test_a_plain_checkpoint_keeps_its_numbers(tmp_path: Path) -> None:
    folder, path = weights.nano(), tmp_path / "nano.gguf"
    gguf.write(path, json.loads((folder / "params.json").read_text(encoding="utf-8")), folder)
    expected, found = dict(stream(folder)), dict(stream(path))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        other = found[name]
        assert isinstance(value, torch.Tensor)
        assert isinstance(other, torch.Tensor)
        assert other.dtype == (torch.float32 if value.dim() == 1 else torch.bfloat16)
        assert torch.equal(value.float(), other.float()), name


def test_a_random_network_has_the_kinds_of_a_q4_0_file(tmp_path: Path) -> None:
    path = tmp_path / "random.gguf"
    gguf.write(path, params_json(shapes.PROBE), None)
    found = dict(stream(path))
    layer, head = found["layers.0.feed_forward.w2.weight"], found["output.weight"]
    assert isinstance(layer, Quantized)
    assert (layer.format, layer.group) == (Format.INT4, 32)
    assert isinstance(head, Quantized)
    assert (head.format, head.group) == (Format.INT8, 16), "Q6_K has a scale for every 16 numbers"
    assert not list(tmp_path.glob("*.tmp"))
