"""`magister quantize`, as people run it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.cli import checkpoints
from typer.testing import CliRunner

import magister
from magister.cli import export, places, quantize
from magister.cli.main import app
from magister.model import weights
from magister.model.attention import CausalAttention
from magister.model.config import DecoderConfig, ModelConfig
from magister.model.disk import alone
from magister.model.network import build, init_weights
from magister.model.quantize import Plan
from magister.model.quantized_files import INDEX
from magister.text.tokenizer import TekkenPlan, write_tekken

CONFIG = ModelConfig(DecoderConfig(64, 2, 16, 96, 4, 2, 1e-5, 1064, 1e9, 4096))


@pytest.fixture(scope="module", params=["native", "hf"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp(request.param)
    model = build(CONFIG)
    init_weights(model, 0)
    (weights.save_native if request.param == "native" else weights.save_hf)(model, path)
    write_tekken(path / "tekken.json", TekkenPlan(ranks=1000, specials=64))
    (path / "magister.json").write_text('{"name": "small", "system_prompt": "", "context": 512}')
    (path / "SYSTEM_PROMPT.txt").write_text("Think.")
    (path / "notes.txt").write_text("not part of the checkpoint")
    return path


def test_what_it_writes_chats(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "small-int4"
    assert quantize.run(str(source), target, Plan()) == 0
    said = capsys.readouterr().out
    before = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    after = sum(path.stat().st_size for path in target.glob("*.safetensors"))
    assert f"{target}: {before:,} bytes became {after:,} ({after / before:.0%}, " in said
    assert sorted(path.name for path in target.iterdir()) == [
        "SYSTEM_PROMPT.txt",
        "magister.json",
        "params.json",
        "quantized-00001.safetensors",
        INDEX,
        "tekken.json",
    ]
    with magister.load(str(target)) as model:
        assert model.chat("Say something", temperature=0.0, max_tokens=8).usage.completion_tokens == 8
    assert quantize.run(str(source), target, Plan()) == 0
    assert f"{target} is whole already" in capsys.readouterr().out


def test_both_layouts_become_the_same_numbers(source: Path, tmp_path: Path) -> None:
    model = build(CONFIG)
    init_weights(model, 0)
    weights.save_native(model, tmp_path / "native")
    (tmp_path / "native" / "tekken.json").write_bytes((source / "tekken.json").read_bytes())
    digests = []
    for path in (source, tmp_path / "native"):
        target = tmp_path / f"{path.name}-int8"
        assert quantize.run(str(path), target, Plan(bits=8)) == 0
        digests.append(json.loads((target / INDEX).read_text())["source"]["sha256"])
        model = weights.load(target)
        ids_t = torch.arange(20)
        with torch.inference_mode():
            digests.append(model.logits(model(ids_t, ids_t, CausalAttention())).tolist())
    assert digests[:2] == digests[2:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nano", "{foreign}"], "foreign is not empty and was not begun by quantising; name another folder"),
        (["{nowhere}", "{new}"], "model: '{nowhere}' is neither a folder nor one of nano"),
        (["{foreign}", "{new}"], "foreign is no checkpoint"),
        (["{quantised}", "{new}"], "is quantised already; quantise the original"),
        (["{file}", "{new}"], "a.gguf is one file; what is quantised is a folder"),
        (["{odd}", "{new}", "--group", "64"], "group is 64, must divide the 96 inputs of layers.0.feed_forward.w2"),
        (["nano", "{quantised}", "--bits", "8"], "was begun with"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_sentence(arguments: list[str], message: str, source: Path, tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("foreign", "nowhere", "new", "quantised")}
    places["foreign"].mkdir()
    (places["foreign"] / "thesis.txt").write_text("years of work")
    places["odd"], places["file"] = source, tmp_path / "a.gguf"
    if "{file}" in arguments:
        assert export.run(str(source), places["file"], "gguf", None) == 0
    if "{quantised}" in arguments:
        assert quantize.run(str(source), places["quantised"], Plan()) == 0
    filled = [argument.format(**places) for argument in arguments]
    result = CliRunner().invoke(app, ["quantize", *filled])
    assert isinstance(result.exception, ValueError)
    assert message.format(**places) in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not places["new"].exists()
    assert (places["foreign"] / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "option", [["--bits", "3"], ["--group", "48"], ["--head-bits", "2"], ["--bits", "8", "--minimum"]]
)
def test_numbers_that_there_are_not_are_wrong_usage(option: list[str], tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["quantize", "nano", str(tmp_path / "new"), *option]).exit_code == 2
    assert not (tmp_path / "new").exists()


def test_what_others_quantised_is_refused_before_the_folder_is_begun(tmp_path: Path) -> None:
    source = checkpoints.fp8(tmp_path / "fp8", checkpoints.TEXT)
    with pytest.raises(ValueError, match="fp8 is quantised already; quantise the original"):
        quantize.run(str(source), tmp_path / "new", Plan())
    assert not (tmp_path / "new").exists()


def test_two_runs_into_one_folder_do_not_mix(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    with (
        alone(target),
        pytest.raises(ValueError, match=r"another run is at work in .*new; wait for it, or stop it"),
    ):
        quantize.run(str(source), target, Plan())
    assert quantize.run(str(source), target, Plan()) == 0


def test_torch_keeps_its_threads(source: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        quantize.run(str(source), tmp_path / "new", Plan())
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_disk_without_room_is_refused_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    disk = shutil.disk_usage(tmp_path)
    assert disk.free < 1 << 60
    with pytest.raises(ValueError, match=r"new: needs about 1,152,921,504,673,955,840 bytes of disk, [\d,]+ are free"):
        quantize.check_disk(tmp_path / "some" / "new", 1 << 60)


def test_nano_in_four_bits_answers(tmp_path: Path) -> None:
    assert quantize.run("nano", tmp_path / "nano-int4", Plan()) == 0
    assert places.find(str(tmp_path / "nano-int4")) == tmp_path / "nano-int4"
    with magister.load(str(tmp_path / "nano-int4")) as model:
        assert "**7**" in model.chat("What is 3 + 4?", temperature=0.0).answer
