"""A smoke run of one row, a worker that dies, memory that is read, weights that weigh what is said of them."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bench.places import Places
from bench.process import Pins, Worker

from bench import __main__ as command
from bench import environments, machine, shapes, weights
from magister.kernels.quantized import Quantized
from magister.model.config import ModelConfig
from magister.model.weights import stream


def test_a_smoke_run_leaves_a_line_with_both_sides(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert command.main(["--quick", "--out", str(out), "--threads", "1"]) == 0
    (line,) = [json.loads(text) for text in out.read_text(encoding="utf-8").splitlines()]
    assert line["row"] == "nano-transformers"
    assert len(line["ours"]["samples"]) == len(line["peer"]["samples"]) == 1
    assert line["ratio"] > 0
    assert line["ours"]["facts"]["kernels"]


def test_a_worker_that_dies_gives_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(environments.Unavailable, match="model: 'nothing' is neither"):
        Worker(Path(sys.executable), "magister", {"model": "nothing"}, Pins(machine.usable_cores(), 1), log)


@pytest.mark.skipif(shutil.which("g++") is None, reason="the reader needs a compiler")
def test_memory_is_read_at_a_speed_that_memory_has(tmp_path: Path) -> None:
    found = machine.read_bandwidth(Places(tmp_path), Pins(machine.usable_cores(), 1), megabytes=64, passes=3)
    assert 1e8 < found < 1e12


@pytest.mark.skipif(shutil.which("g++") is None, reason="the program needs a compiler")
def test_bytes_are_multiplied_at_a_speed_that_processors_have(tmp_path: Path) -> None:
    pins = Pins(machine.usable_cores(), 1)
    try:
        found = machine.byte_products(Places(tmp_path), pins, passes=1)
    except environments.Unavailable:
        assert "avx2" not in environments.cpu_flags() or environments.cpu_flags() & {"avx_vnni", "avx512_vnni"}
        return
    assert 1e10 < found < 1e12


def test_a_layer_of_the_24b_shape_multiplies_all_its_weights() -> None:
    weights_of_a_layer = 5120 * (4096 + 2 * 1024) + 4096 * 5120 + 3 * 5120 * 32768
    assert shapes.layer_operations(shapes.magistral(1)) == 2 * weights_of_a_layer


def test_a_random_network_weighs_what_is_said_of_it(tmp_path: Path) -> None:
    decoder = replace(shapes.magistral(2).decoder, dim=64, hidden_dim=96, n_heads=2, n_kv_heads=1, vocab_size=128)
    config = ModelConfig(decoder)
    weights.random_quantized(tmp_path / "tiny", config)
    read = {name: value for name, value in stream(tmp_path / "tiny") if not name.startswith("tok_embeddings")}
    assert sum(v.bytes if isinstance(v, Quantized) else v.nbytes for v in read.values()) == weights.bytes_per_token(
        config, weights.PLAN
    )
    before = (tmp_path / "tiny" / "quantized.json").stat().st_mtime_ns
    weights.random_quantized(tmp_path / "tiny", config)
    assert (tmp_path / "tiny" / "quantized.json").stat().st_mtime_ns == before


def test_a_restricted_build_names_the_units_of_the_cpu_and_no_other() -> None:
    flags = environments.named_units({"avx", "avx2", "fma", "amx_int8"})
    assert flags.startswith("-DGGML_NATIVE=OFF")
    assert "-DGGML_AVX2=ON" in flags
    assert "-DGGML_AVX512=OFF" in flags
    assert "AMX" not in flags


def test_unknown_cores_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--quick", "--cores", "4096"])
    assert stopped.value.code == 2
    assert "--cores" in capsys.readouterr().err
