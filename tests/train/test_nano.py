"""The recipe's own doings around the loop: identity, history, the command it writes down."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from magister.cli import places, quantize
from magister.model.disk import alone
from magister.model.quantize import Plan
from magister.tasks import phrasebook
from magister.train import checkpoint, history, nano
from magister.train.progress import read_log

SMALL = nano.NanoRun(tokens=2 * 1024, rows_per_batch=1, shard=48)


@pytest.fixture(scope="module")
def shipped() -> Path:
    return places.find("nano")


def runs(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "nano" / history.NAME).read_text())
    return found


@pytest.fixture
def warm(tmp_path: Path, shipped: Path) -> Path:
    """The shipped weights, with one earlier run in their history."""
    folder = tmp_path / "warm"
    folder.mkdir()
    for name in ("consolidated.safetensors", "params.json", "tekken.json"):
        (folder / name).symlink_to(shipped / name)
    (folder / history.NAME).write_text(json.dumps([{"command": "earlier", "steps": 7}]))
    return folder


def test_a_warm_run_keeps_history_and_going_on_adds_to_it(tmp_path: Path, warm: Path) -> None:
    folder = tmp_path / "run"
    nano.run(SMALL, folder, warm, "my weights")
    first, second = runs(folder)
    assert first == {"command": "earlier", "steps": 7}
    assert second["command"] == "magister train sft nano --warm 'my weights' --tokens 2048 --rows 1"
    assert (second["steps"], second["tokens"]) == (2, read_log(folder)[-1].tokens)

    nano.run(SMALL, folder, warm, "my weights")  # finished already
    assert runs(folder) == [first, second]

    nano.run(replace(SMALL, tokens=3 * 1024), folder, warm, "my weights")
    *before, third = runs(folder)
    assert before == [first, second]
    log = read_log(folder)
    assert (third["steps"], third["tokens"]) == (1, log[2].tokens - log[1].tokens)

    for other, said in (
        (replace(SMALL, seed=1), "seed 0, this run asks for 1"),
        (replace(SMALL, shard=64), "shard size 48, this run asks for 64"),
        (replace(SMALL, row_length=512), "row_length 1024, this run asks for 512"),
    ):
        with pytest.raises(ValueError, match=said):
            nano.run(other, folder, warm)
    with pytest.raises(ValueError, match=r"warm weights [0-9a-f]{16}, this run asks for none"):
        nano.run(SMALL, folder)
    assert runs(folder) == [*before, third]


def test_without_a_checkpoint_nothing_left_over_is_kept(
    tmp_path: Path, warm: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run" / "nano"
    out.mkdir(parents=True)
    (out / "tekken.json").write_text("of a run that never saved")
    (out / history.NAME).write_text('[{"command": "never saved", "steps": 1}]')
    monkeypatch.setattr(nano, "train", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        nano.run(SMALL, tmp_path / "run", warm)
    assert (out / "tekken.json").read_bytes() == (shipped / "tekken.json").read_bytes()
    assert runs(tmp_path / "run") == [{"command": "earlier", "steps": 7}]
    assert checkpoint.load(tmp_path / "run") is None


def test_weights_that_are_no_floats_are_refused_before_anything_is_written(tmp_path: Path, shipped: Path) -> None:
    small = tmp_path / "small"
    assert quantize.run(str(shipped), small, Plan()) == 0
    with pytest.raises(ValueError, match="is quantised; train the original"):
        nano.run(SMALL, tmp_path / "run", small)
    (small / "tekken.json").unlink()
    with pytest.raises(ValueError, match=r"with weights and their tekken\.json"):
        nano.run(SMALL, tmp_path / "run", small)
    assert not (tmp_path / "run" / "nano").exists()


def test_the_identity_is_of_content(tmp_path: Path, warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = warm / "tekken.json"
    first = nano.identity(SMALL, tokenizer, warm)
    other = tmp_path / "other.json"
    other.write_text(tokenizer.read_text() + " ")
    assert nano.identity(SMALL, other, warm)["tokenizer"] != first["tokenizer"]
    assert nano.identity(SMALL, tokenizer, None)["warm weights"] == "none"
    (tmp_path / "link").symlink_to(warm)
    assert nano.identity(SMALL, tokenizer, tmp_path / "link") == first
    assert first["phrasings"] == phrasebook.digest("train") != phrasebook.digest("held_out")
    monkeypatch.setattr(nano, "MIXTURE", replace(nano.MIXTURE, noise=0.1))
    assert nano.identity(SMALL, tokenizer, warm)["mixture"] != first["mixture"]


@pytest.mark.parametrize(
    ("config", "warm", "command"),
    [
        (nano.NanoRun(), "", "magister train sft nano"),
        (nano.NanoRun(tokens=5, seed=3), "", "magister train sft nano --tokens 5 --seed 3"),
        (
            nano.NanoRun(rows_per_batch=32, rate_scale=0.5, device="cuda", compile=True),
            "nano",
            "magister train sft nano --warm nano --rows 32 --rate-scale 0.5 --device cuda --compile",
        ),
    ],
)
def test_the_command_says_what_differs_from_the_defaults(config: nano.NanoRun, warm: str, command: str) -> None:
    assert nano.command(config, warm) == command


def test_two_runs_in_one_folder_do_not_mix(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with alone(folder), pytest.raises(ValueError, match=r"another run is at work in .*run; wait for it, or stop it"):
        nano.run(SMALL, folder)
    assert list(folder.iterdir()) == []
