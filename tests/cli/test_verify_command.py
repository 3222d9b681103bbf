"""`magister verify`: what is right passes, each kind of damage is found and named, what cannot be checked is said."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.cli import checkpoints
from typer.testing import CliRunner

from magister.cli import quantize
from magister.cli.hub.source import PULLED
from magister.cli.main import app
from magister.cli.verify import command, files, tensors
from magister.cli.verify.check import PARITY
from magister.cli.verify.parity import Parity
from magister.model import weights
from magister.model.quantize import Plan
from magister.model.quantized_files import INDEX

QUERY = "layers.1.attention.wq.weight"


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.native(tmp_path_factory.mktemp("native"), checkpoints.TEXT)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAGISTER_MODELS", str(tmp_path / "shelf"))


def copied(source: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy"
    shutil.copytree(source, target)
    return target


def changed(folder: Path, stem: str, name: str, value: torch.Tensor | None) -> None:
    """Puts another tensor into a folder's one file; None takes it out."""
    path = folder / f"{stem}.safetensors"
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, path, metadata={"format": "pt"})


def rows(report: Path) -> dict[str, list[str]]:
    """First cell -> the others, of all tables."""
    lines = [line for line in report.read_text().splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in ([c.strip() for c in line.strip("|").split("|")] for line in lines)}


@pytest.mark.parametrize("layout", ["native", "hf"])
def test_a_whole_checkpoint_passes_and_equals_transformers(layout: str, tmp_path: Path) -> None:
    if layout == "native":
        folder = checkpoints.native(tmp_path / "m", checkpoints.WITH_VISION)
    else:
        folder = checkpoints.hf(tmp_path / "m", checkpoints.WITH_VISION, 3)
    result = CliRunner().invoke(app, ["verify", str(folder), "--out", "page.md"])
    assert result.exit_code == 0, result.output
    assert "checks passed" in result.output
    assert "page.md" in result.output
    found = rows(Path("page.md"))
    assert "**Passed**" in Path("page.md").read_text()
    for part in ("attention", "feed-forward"):
        assert found[f"{part}, the worst of 3"][-1] == "passed"
        assert found[f"{part} in images, the worst of 2"][-1] == "passed"
    assert {"features", "embeddings", "final norm and output head"} <= found.keys()
    assert found["logits of the whole network"][-1] == "passed"
    assert found["greedy tokens of the whole network"][0] == "16 of 16"
    assert found["beside others as alone"][0] == "72 of 72 tokens"
    assert len(Path("page.md").read_text().splitlines()) < 66, "one page"


def test_nothing_but_the_report_is_written(native: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in native.iterdir()}
    assert command.run(str(native), None, None) == 0
    assert [path.name for path in tmp_path.iterdir()] == [f"verify-{native.stem}.md"]
    assert {path.name: path.read_bytes() for path in native.iterdir()} == before


def test_a_report_that_cannot_be_written_is_told_before_the_work(
    native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_weights", None)
    for place in (tmp_path / "nowhere" / "page.md", tmp_path):
        assert command.run(str(native), place, None) == 2
        assert capsys.readouterr() == ("", f"magister verify: --out: {place} cannot be written\n")


def test_two_releases_of_one_model_have_two_reports(native: Path, tmp_path: Path) -> None:
    for name in ("m-1.1", "m-1.2"):
        shutil.copytree(native, tmp_path / name)
        assert command.run(name, None, None) == 0
        shutil.rmtree(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"verify-m-1.1.md", "verify-m-1.2.md"}


def test_a_quantised_one_is_compared_with_its_original(native: Path, tmp_path: Path) -> None:
    quantize.run(str(native), tmp_path / "int4", Plan())
    assert command.run("int4", Path("page.md"), str(native)) == 0
    found = rows(Path("page.md"))
    assert found["checksums"][0] == f"1 parts are what {INDEX} says"
    assert found["tensors"][0].startswith("30 of 30 are there")
    assert found[f"rows as in {native}, the worst of 30"][-1] == "passed"
    other = checkpoints.native(tmp_path / "other", checkpoints.TEXT, seed=8)
    assert command.run("int4", Path("page.md"), str(other)) == 1
    assert "**FAILED**" in Path("page.md").read_text()
    with pytest.raises(ValueError, match="describes another network than the one to verify"):
        command.run("int4", None, "nano")


def test_a_changed_byte_is_found_by_its_checksum(
    native: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantize.run(str(native), tmp_path / "int4", Plan())
    part = tmp_path / "int4" / "quantized-00001.safetensors"
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    assert command.run("int4", Path("page.md"), None) == 1
    said = capsys.readouterr().out
    assert f"FAILED checksums: {Path('int4') / part.name} is corrupt: its sha256 is" in said
    assert rows(Path("page.md"))["engine"][0] == "not run: something above failed"


def test_a_pulled_one_is_compared_with_what_was_pulled(native: Path, tmp_path: Path) -> None:
    folder = copied(native, tmp_path)
    digests = {path.name: files.digest(path) for path in folder.iterdir()}
    (folder / PULLED).write_text(json.dumps({"repository": "a/b", "commit": "c" * 40, "sha256": digests}))
    fine = files.checks(folder)
    assert [(check.figure, check.passed) for check in fine] == [
        ("5 files are what was pulled", True),
        (f"a/b@{'c' * 12}", True),
    ]
    (folder / "tekken.json").write_text("{}")
    (folder / "generation_config.json").unlink()
    found = files.checks(folder)
    assert [check.passed for check in found] == [False, False, True]
    assert "tekken.json has sha256" in " ".join(check.figure for check in found)
    assert "generation_config.json is missing" in " ".join(check.figure for check in found)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, f"FAILED tensors: 1 missing: {QUERY}"),
        (torch.full((96, 64), torch.nan), f"FAILED tensors: {QUERY} has numbers that are not finite"),
        (torch.zeros(96, 64), f"FAILED tensors: {QUERY} is all zero"),
        (torch.ones(96, 32), f"FAILED tensors: {QUERY} has shape [96, 32], the description asks for [96, 64]"),
    ],
)
def test_damage_that_no_checksum_shows(
    value: torch.Tensor | None, message: str, native: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(native, tmp_path)
    changed(folder, "consolidated", QUERY, value)
    assert command.run(str(folder), Path("page.md"), None) == 1
    assert message in capsys.readouterr().out


def test_two_layouts_in_a_folder_must_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = checkpoints.native(tmp_path / "both", checkpoints.TEXT)
    checkpoints.hf(folder, checkpoints.TEXT)
    assert command.run(str(folder), Path("page.md"), None) == 0
    assert rows(Path("page.md"))["rows both layouts in the folder, the worst of 30"][-1] == "passed"
    name = "model.layers.1.self_attn.q_proj.weight"
    stored = load_file(folder / "model.safetensors")[name]
    # Two rows of one head changed places: no checksum, no norm and no shape shows that.
    changed(folder, "model", name, stored[[1, 0, *range(2, len(stored))]])
    assert command.run(str(folder), Path("page.md"), None) == 1
    assert f"FAILED rows both layouts in the folder: {QUERY}" in capsys.readouterr().out


def test_two_quantised_layouts_in_a_folder_are_not_compared_as_floats(tmp_path: Path) -> None:
    folder = checkpoints.fp8(tmp_path / "both", checkpoints.TEXT)
    assert command.run(str(folder), Path("page.md"), None) == 0
    assert not any("both layouts" in row for row in rows(Path("page.md")))
    with pytest.raises(ValueError, match="both must be a folder of floats in native or Hugging Face layout"):
        command.run(str(folder), None, str(folder))


def test_a_network_that_transformers_has_no_words_for_is_not_broken(tmp_path: Path) -> None:
    assert checkpoints.WITH_VISION.vision is not None
    unmerged = replace(checkpoints.WITH_VISION.vision, spatial_merge_size=1, add_pre_mm_projector_layer_norm=False)
    folder = checkpoints.native(tmp_path / "m", replace(checkpoints.WITH_VISION, vision=unmerged))
    assert command.run(str(folder), Path("page.md"), None) == 0
    found = rows(Path("page.md"))
    assert found["tensors"][-1] == "passed"
    assert found["every layer"][0].startswith("not run: spatial_merge_size is 1 and")


def test_without_transformers_it_says_so_and_checks_the_rest(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert command.run(str(native), Path("page.md"), None) == 0
    found = rows(Path("page.md"))
    assert found["every layer"][0] == "not run: transformers is not installed: pip install 'transformers>=5,<6'"
    assert found["tensors"][-1] == "passed"
    assert "1 not run" in Path("page.md").read_text()


def test_what_is_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is no checkpoint"):
        command.run("empty", None, None)
    assert not list(tmp_path.glob("*.md"))


def test_parity_sees_two_rows_that_changed_places(tmp_path: Path) -> None:
    folder = checkpoints.hf(tmp_path / "m", checkpoints.WITH_VISION)
    theirs, config = Parity(folder, checkpoints.WITH_VISION), checkpoints.WITH_VISION
    wrong = list[str]()
    groups = dict(tensors.grouped(weights.stream(folder), tensors.shapes(config), wrong))
    assert not wrong
    for group, name, part, where in (
        ("layer 1", "layers.1.attention.wk.weight", "attention", "layer 1"),
        ("layer 2", "layers.2.feed_forward.w2.weight", "feed-forward", "layer 2"),
        (tensors.ENDS, "output.weight", "final norm and output head", ""),
        (tensors.ENDS, "tok_embeddings.weight", "embeddings", "the first 1000 rows"),
        (
            tensors.VISION,
            "vision_encoder.transformer.layers.1.attention.wq.weight",
            "attention in images",
            "layer 1",
        ),
    ):
        assert theirs.compare(group, groups[group])[part][where] < PARITY
        value = groups[group][name]
        assert isinstance(value, torch.Tensor)
        changed = value[[1, 0, *range(2, len(value))]]
        assert theirs.compare(group, {**groups[group], name: changed})[part][where] > 100 * PARITY
