"""Quantised folders: what is written is read, kills and full disks leave nothing false, damage is refused."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from magister.kernels.quantized import Format, Quantized, dequantize
from magister.model import weights
from magister.model.attention import CausalAttention
from magister.model.config import DecoderConfig, ModelConfig, VisionConfig
from magister.model.layout import arrange
from magister.model.network import Model, build, init_weights, native_parameters, native_products
from magister.model.quantize import Plan, quantize
from magister.model.quantized_files import INDEX, Writer

TEXT = ModelConfig(DecoderConfig(64, 2, 16, 96, 6, 2, 1e-5, 100, 1e9, 4096))
WITH_VISION = replace(TEXT, vision=VisionConfig(32, 2, 2, 48, 4, 64, max_image_size=64))
TIED = replace(TEXT, decoder=replace(TEXT.decoder, tied_embeddings=True))
PLANS = [Plan(), Plan(bits=8), Plan(group=16, minimum=True, head_bits=4), Plan(bits=8, group=16, head_bits=16)]
LAYOUT = '{"layout": "magister-quantized", "version": '
SOURCE = str(Path(weights.__file__).parents[2])


def made(config: ModelConfig = WITH_VISION, dtype: torch.dtype = torch.bfloat16) -> Model:
    model = build(config)
    init_weights(model, seed=1, dtype=dtype)
    return model


def write(folder: Path, model: Model, plan: Plan, part_bytes: int = 1 << 14) -> None:
    writer = Writer(folder, model.config, plan, "a model", part_bytes=part_bytes)
    for name, parameter in native_parameters(model):
        writer.add(name, parameter.detach())
    writer.finish()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def restored(value: Tensor | Quantized) -> Tensor:
    return dequantize(value) if isinstance(value, Quantized) else value


def logits(model: Model) -> Tensor:
    with torch.inference_mode():
        ids_t = torch.arange(9) % 7
        return model.logits(model(ids_t, torch.arange(9), CausalAttention()))


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("config", [TEXT, WITH_VISION, TIED], ids=["text", "vision", "tied"])
def test_what_is_written_is_read(config: ModelConfig, plan: Plan, tmp_path: Path) -> None:
    model = made(config)
    write(tmp_path / "q", model, plan)
    found = dict(weights.stream(tmp_path / "q"))
    assert list(found) == [name for name, _ in native_parameters(model)]
    for name, parameter in native_parameters(model):
        rule, value = plan.rule(name), found[name]
        if rule is None:
            assert isinstance(value, Tensor)
            assert value.dtype is torch.bfloat16
            assert torch.equal(value, parameter)
        else:
            assert isinstance(value, Quantized)
            assert (value.format, value.group, value.mins is not None) == rule
            assert torch.equal(dequantize(value), dequantize(quantize(parameter.detach(), rule)))
    assert weights.read_config(tmp_path / "q") == config


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("config", [TEXT, WITH_VISION, TIED], ids=["text", "vision", "tied"])
def test_what_is_loaded_is_what_is_streamed(config: ModelConfig, plan: Plan, tmp_path: Path) -> None:
    write(tmp_path / "q", made(config), plan)
    streamed, loaded = dict(weights.stream(tmp_path / "q")), weights.load(tmp_path / "q", dtype=torch.float32)
    parameters, products = dict(native_parameters(loaded)), dict(native_products(loaded))
    assert parameters.keys() | products.keys() == streamed.keys()
    assert not parameters.keys() & products.keys()
    for name, product in products.items():
        # The product with unit rows is the matrix itself.
        assert torch.equal(product(torch.eye(product.inputs)).t(), restored(streamed[name])), name
    for name, parameter in parameters.items():
        assert torch.equal(parameter, restored(streamed[name]).float()), name


@pytest.mark.parametrize("arranged", [False, True])
def test_a_quantised_network_is_that_of_its_restored_matrices(arranged: bool, tmp_path: Path) -> None:
    write(tmp_path / "q", made(TEXT), Plan())
    loaded, plain = weights.load(tmp_path / "q", dtype=torch.float32), build(TEXT)
    init_weights(plain, 0)
    with torch.no_grad():
        parameters = dict(native_parameters(plain))
        for name, value in weights.stream(tmp_path / "q"):
            parameters[name].copy_(restored(value))
    if arranged:
        arrange(loaded)
    torch.testing.assert_close(logits(loaded), logits(plain), rtol=1e-5, atol=1e-6)


def test_a_half_quantised_network_is_arranged_where_it_can_be(tmp_path: Path) -> None:
    model = made(TEXT, torch.float32)
    writer = Writer(tmp_path / "q", TEXT, Plan(bits=8, head_bits=16), "a model")
    for name, parameter in native_parameters(model):
        writer.add(name, parameter.detach())
    writer.finish()
    loaded = weights.load(tmp_path / "q")
    before = logits(loaded)
    arrange(loaded)
    assert loaded.decoder.layers[0].attention.joined is None  # type: ignore[union-attr]
    torch.testing.assert_close(logits(loaded), before, rtol=1e-5, atol=1e-6)


def test_no_layout_of_floats_is_written_from_a_quantised_model(tmp_path: Path) -> None:
    write(tmp_path / "q", made(TEXT), Plan())
    loaded = weights.load(tmp_path / "q")
    for save in (weights.save_native, weights.save_hf):
        with pytest.raises(ValueError, match=r"layers\.0\.attention\.wq\.weight is quantised"):
            save(loaded, tmp_path / "other")


def test_tensors_that_are_quantised_already_are_kept(tmp_path: Path) -> None:
    model = made(TEXT)
    write(tmp_path / "one", model, Plan(group=16))
    writer = Writer(tmp_path / "two", TEXT, Plan(group=32), "another")
    for name, value in weights.stream(tmp_path / "one"):
        writer.add(name, value)
    writer.finish()
    for (name, one), (_, two) in zip(weights.stream(tmp_path / "one"), weights.stream(tmp_path / "two"), strict=True):
        assert torch.equal(restored(one), restored(two)), name


def test_parts_are_ordinary_files_with_their_checksums(tmp_path: Path) -> None:
    write(tmp_path / "q", made(), Plan(group=16, minimum=True))
    index = json.loads((tmp_path / "q" / INDEX).read_text())
    assert len(index["parts"]) > 3
    names: set[str] = set()
    for part, facts in index["parts"].items():
        data = (tmp_path / "q" / part).read_bytes()
        assert len(data) == facts["bytes"]
        assert hashlib.sha256(data).hexdigest() == facts["sha256"]
        names |= load_file(tmp_path / "q" / part).keys()
    expected = set()
    for name, entry in index["tensors"].items():
        kinds = ("values", "scales", "mins") if entry.get("minimum") else ("values", "scales")
        expected |= {f"{name}.{kind}" for kind in kinds} if "format" in entry else {name}
    assert names == expected


def test_a_part_holds_no_more_than_it_may_but_for_one_large_tensor(tmp_path: Path) -> None:
    model = made(TEXT)
    write(tmp_path / "q", model, Plan(), part_bytes=5000)
    index = json.loads((tmp_path / "q" / INDEX).read_text())
    for part in index["parts"]:
        held = load_file(tmp_path / "q" / part)
        owners = [name for name, entry in index["tensors"].items() if entry["part"] == part]
        assert sum(tensor.nbytes for tensor in held.values()) <= 5000 or len(owners) == 1


KILLED = """
import sys
from pathlib import Path
from magister.model import weights
from magister.model.quantize import Plan
from magister.model.quantized_files import Writer

source, target = map(Path, sys.argv[1:])
writer = Writer(target, weights.read_config(source), Plan(), "a model", part_bytes=1 << 17)
for name, tensor in weights.stream(source):
    writer.add(name, tensor)
writer.finish([source / "tekken.json"])
"""
MANY = ModelConfig(DecoderConfig(128, 12, 16, 512, 8, 2, 1e-5, 256, 1e9, 4096))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of floats that takes a while to quantise."""
    folder = tmp_path_factory.mktemp("large")
    weights.save_native(made(MANY), folder)
    (folder / "tekken.json").write_text("{}")
    return folder


def start(source: Path, target: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KILLED, str(source), str(target)]
    environment = {"PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def test_a_killed_run_goes_on_and_leaves_the_same_bytes(large: Path, tmp_path: Path) -> None:
    whole, target = tmp_path / "whole", tmp_path / "target"
    with start(large, whole) as undisturbed:
        assert undisturbed.wait() == 0, undisturbed.stderr and undisturbed.stderr.read()
    for parts in (1, 5):
        with start(large, target) as process:
            while len(list(target.glob("quantized-*"))) < parts:
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        with pytest.raises(ValueError, match="is unfinished"):
            weights.load(target)
    # What a kill between two files leaves: half of one, a part that the index does not know, no params.json.
    (target / ".quantized-00009.safetensors.1.tmp").write_bytes(b"half")
    (target / "quantized-00010.safetensors").write_bytes(b"unknown")
    (target / "params.json").unlink()
    with start(large, target) as last:
        assert last.wait() == 0, last.stderr and last.stderr.read()
    assert contents(target) == contents(whole)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_full_disk_is_named_and_what_was_done_stays(large: Path, tmp_path: Path) -> None:
    code = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n{KILLED}"
    command = [sys.executable, "-c", code, str(large), str(tmp_path / "q")]
    environment = {"PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "OSError: " in done.stderr
    assert "quantized-00001.safetensors needs 98,344 bytes" in done.stderr
    assert sorted(path.name for path in (tmp_path / "q").iterdir()) == ["params.json", INDEX]
    with start(large, tmp_path / "q") as unlimited:
        assert unlimited.wait() == 0
    weights.load(tmp_path / "q")


@pytest.mark.parametrize("change", ["flip", "cut", "gone", "longer"])
def test_a_damaged_part_is_refused_by_name(change: str, tmp_path: Path) -> None:
    write(tmp_path, made(TEXT), Plan())
    path = tmp_path / "quantized-00002.safetensors"
    data = bytearray(path.read_bytes())
    digest = json.loads((tmp_path / INDEX).read_text())["parts"][path.name]["sha256"]
    if change == "flip":
        data[-1] ^= 1
        message = f"{path.name} is corrupt: its sha256 is {hashlib.sha256(data).hexdigest()}, must be {digest}"
    elif change == "cut":
        del data[-100:]
        message = rf"{path.name} has [\d,]+ bytes, must have [\d,]+"
    elif change == "longer":
        data += b"\0"
        message = rf"{path.name} has [\d,]+ bytes, must have [\d,]+"
    else:
        message = f"{path.name} is missing"
    path.write_bytes(data)
    if change == "gone":
        path.unlink()
    with pytest.raises(ValueError, match=message):
        weights.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", LAYOUT + "2}", LAYOUT + "1}", LAYOUT + '1, "complete": 1}', "[1]"])
def test_what_is_no_index_is_refused(text: str, tmp_path: Path) -> None:
    write(tmp_path, made(TEXT), Plan())
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(ValueError, match=INDEX):
        weights.load(tmp_path)


def test_a_writer_refuses_what_does_not_belong(tmp_path: Path) -> None:
    model = made(TEXT)
    tensors = {name: parameter.detach() for name, parameter in native_parameters(model)}
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="foreign is not empty"):
        Writer(tmp_path / "foreign", TEXT, Plan(), "a model")
    with pytest.raises(ValueError, match="group is 64"):
        Writer(tmp_path / "q", TEXT, Plan(group=64), "a model")
    writer = Writer(tmp_path / "q", TEXT, Plan(), "a model")
    with pytest.raises(ValueError, match=r"router\.weight: the network has no such tensor"):
        writer.add("layers.0.router.weight", tensors["norm.weight"])
    with pytest.raises(ValueError, match=r"norm\.weight has shape \[3\], the description asks for \[64\]"):
        writer.add("norm.weight", torch.zeros(3))
    for wrong in (torch.int8, torch.float64):
        with pytest.raises(ValueError, match=rf"norm\.weight is stored as {wrong}, must be one of"):
            writer.add("norm.weight", torch.ones(64, dtype=wrong))
    with pytest.raises(ValueError, match=r"wq\.weight: the matrix has numbers that are not finite"):
        writer.add("layers.0.attention.wq.weight", torch.full((96, 64), float("nan")))
    writer.add("norm.weight", tensors["norm.weight"])
    with pytest.raises(ValueError, match=r"norm\.weight is not the tensor that .* was begun with"):
        writer.add("norm.weight", tensors["norm.weight"] + 1)
    with pytest.raises(ValueError, match=r"20 tensors missing: tok_embeddings\.weight, layers\.0"):
        writer.finish()
    assert writer.done == set()
    writer.close_part()
    assert writer.done == {"norm.weight"}
    for plan, source in ((Plan(bits=8), "a model"), (Plan(), "another model")):
        with pytest.raises(ValueError, match="was begun with"):
            Writer(tmp_path / "q", TEXT, plan, source)
    again = Writer(tmp_path / "q", TEXT, Plan(), "a model")
    assert again.done == {"norm.weight"}
    with pytest.raises(ValueError, match=r"norm\.weight is not the tensor that"):
        again.add("norm.weight", tensors["norm.weight"] + 1)


@pytest.mark.parametrize(
    ("change", "said", "opens"),
    [
        (lambda path: path.unlink(), "is missing; empty .* and begin again", False),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes, must have .*; empty", False),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), "is corrupt: .*; empty", True),
    ],
    ids=["lost", "cut", "changed"],
)
def test_nothing_is_finished_over_damaged_parts(
    change: Callable[[Path], object], said: str, opens: bool, tmp_path: Path
) -> None:
    tensors = [(name, parameter.detach()) for name, parameter in native_parameters(made(TEXT))]
    first = Writer(tmp_path, TEXT, Plan(), "a model", part_bytes=1 << 14)
    for name, tensor in tensors[:-3]:
        first.add(name, tensor)
    first.close_part()
    change(tmp_path / "quantized-00001.safetensors")

    def go_on() -> Writer:
        return Writer(tmp_path, TEXT, Plan(), "a model", part_bytes=1 << 14)

    if not opens:
        with pytest.raises(ValueError, match=rf"quantized-00001\.safetensors .*{said}"):
            go_on()
        return
    second = go_on()
    for name, tensor in tensors:
        second.add(name, tensor)
    with pytest.raises(ValueError, match=rf"quantized-00001\.safetensors {said}"):
        second.finish()
    assert not go_on().finished


def test_what_a_kill_leaves_of_the_first_index_is_no_hindrance(tmp_path: Path) -> None:
    model = made(TEXT)
    write(tmp_path / "whole", model, Plan())
    (tmp_path / "killed").mkdir()
    stray = tmp_path / "killed" / f".{INDEX}.4242.tmp"
    stray.write_text("{")
    foreign = tmp_path / "killed" / "thesis.txt"
    foreign.write_text("years of work")
    with pytest.raises(ValueError, match="killed is not empty"):
        write(tmp_path / "killed", model, Plan())
    assert stray.exists()
    foreign.unlink()
    write(tmp_path / "killed", model, Plan())
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_whole_folder_is_left_alone(tmp_path: Path) -> None:
    model = made(TEXT)
    write(tmp_path, model, Plan())
    before = contents(tmp_path)
    writer = Writer(tmp_path, TEXT, Plan(), "a model")
    assert writer.finished
    for name, parameter in native_parameters(model):
        writer.add(name, parameter.detach())
    writer.finish()
    assert contents(tmp_path) == before


PEAK = """
import sys
from pathlib import Path
from magister.model import weights
from magister.model.quantize import Plan
from magister.model.quantized_files import Writer

def kilobytes(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))

def quantise(source, target):
    writer = Writer(target, weights.read_config(source), Plan(), "a model", part_bytes=4 << 20)
    for name, tensor in weights.stream(source):
        writer.add(name, tensor)
    writer.finish()

def work(source, target):
    if sys.argv[1] == "quantise":
        quantise(source, target)
    if sys.argv[1] == "load":
        return weights.load(target)

large, small, made, warm = map(Path, sys.argv[2:])
work(small, warm)  # whatever the first time imports is not the checkpoint's
before = kilobytes("VmRSS:")
model = work(large, made)
print((kilobytes("VmHWM:") - before) * 1024)
"""
HEAVY = ModelConfig(DecoderConfig(384, 8, 64, 2048, 6, 2, 1e-5, 256, 1e9, 4096))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_near_a_layer_and_near_the_quantised_model(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("large", "small", "made", "warm")]
    weights.save_native(made(HEAVY, torch.float32), folders[0])
    weights.save_native(made(TEXT), folders[1])
    peaks = {}
    for work in ("quantise", "load"):
        command = [sys.executable, "-c", PEAK, work, *map(str, folders)]
        environment = {"PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        peaks[work] = int(done.stdout)
    sizes = [os.path.getsize(path) for path in folders[2].glob("*.safetensors")]
    layer = 4 * sum(p.numel() for n, p in native_parameters(build(HEAVY)) if n.startswith("layers.0."))
    assert peaks["quantise"] < 1.5 * layer
    assert peaks["load"] < 1.2 * sum(sizes) + layer / 4


def test_formats_beyond_ours_are_kept_too(tmp_path: Path) -> None:
    model = made(TEXT)
    tensors: dict[str, Tensor | Quantized] = {name: p.detach() for name, p in native_parameters(model)}
    values = torch.randn(96, 64).to(torch.float8_e4m3fn)
    tensors["layers.1.attention.wq.weight"] = Quantized(Format.FP8, values, torch.rand(96, 1), 64)
    writer = Writer(tmp_path, TEXT, Plan(), "a model")
    for name, tensor in tensors.items():
        writer.add(name, tensor)
    writer.finish()
    found = dict(weights.stream(tmp_path))["layers.1.attention.wq.weight"]
    assert isinstance(found, Quantized)
    assert found.format is Format.FP8
    assert torch.equal(found.values.view(torch.uint8), values.view(torch.uint8))
