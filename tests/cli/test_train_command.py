"""`magister train sft`: its usage errors, its defaults, an interrupt, a machine without matplotlib."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer

from magister.cli import train
from magister.cli.main import app
from magister.train import curve, nano

CODE = "from magister.cli.main import main; main()"


def run(folder: Path, **changed: object) -> int:
    values: dict[str, object] = {
        "recipe": "nano",
        "folder": folder,
        "tokens": 512,
        "warm": "nano",
        "rate_scale": 1.0,
        "rows": 1,
        "seed": 0,
        "device": "cpu",
        "compile": False,
    }
    return train.run(**(values | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"recipe": "mini"}, "'mini' is no recipe; there is: nano"),
        ({"tokens": 0}, "--tokens must be at least 1, got 0"),
        ({"rows": -1}, "--rows must be at least 1, got -1"),
        ({"rate_scale": 0.0}, "--rate-scale must be a number above 0, got 0"),
        ({"rate_scale": float("nan")}, "--rate-scale must be a number above 0, got nan"),
        ({"rate_scale": float("inf")}, "--rate-scale must be a number above 0, got inf"),
    ],
)
def test_wrong_values_are_usage_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, object], said: str
) -> None:
    assert run(tmp_path / "run", **changed) == 2
    assert capsys.readouterr() == ("", f"magister train sft: {said}\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_does_not_begin_on_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "run", device="cuda") == 2
    assert capsys.readouterr() == ("", "magister train sft: --device cuda: PyTorch finds no CUDA device here\n")
    assert not (tmp_path / "run").exists()


def test_without_a_cpp_compiler_it_does_not_begin_to_compile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert run(tmp_path / "run", compile=True) == 2
    said = "--compile needs a C++ compiler on a CPU, and there is no no-such-compiler"
    assert capsys.readouterr() == ("", f"magister train sft: {said}\n")
    assert not (tmp_path / "run").exists()


def test_the_flags_begin_with_the_recipes_defaults() -> None:
    command: object = typer.main.get_command(app)
    for name in ("train", "sft"):
        command = command.commands[name]  # type: ignore[attr-defined]
    default = {parameter.name: parameter.default for parameter in command.params}  # type: ignore[attr-defined]
    plain = nano.NanoRun()
    assert default["tokens"] == plain.tokens
    assert default["rows"] == plain.rows_per_batch
    assert default["rate_scale"] == plain.rate_scale
    assert (default["seed"], default["device"], default["compile"]) == (plain.seed, plain.device, plain.compile)


@pytest.mark.parametrize("installed", [True, False])
def test_without_matplotlib_it_trains_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    if not installed:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    real = nano.run

    def small(config: nano.NanoRun, folder: Path, warm: Path | None, typed: str) -> None:
        real(replace(config, shard=32), folder, warm, typed)

    monkeypatch.setattr(nano, "run", small)
    assert run(tmp_path) == 0
    out, err = capsys.readouterr()
    assert (tmp_path / "nano" / "consolidated.safetensors").exists()
    assert (tmp_path / "loss.png").exists() is installed
    assert ("its loss curve" in out) is installed
    assert (f"loss curve skipped: it needs matplotlib ({curve.INSTALL})\n" in err) is not installed


def test_ctrl_c_saves_says_where_and_exits_with_130(tmp_path: Path) -> None:
    arguments = [
        "train",
        "sft",
        "nano",
        "--folder",
        str(tmp_path),
        "--warm",
        "nano",
        "--rows",
        "1",
        "--tokens",
        "1024000",
    ]
    with subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()  # after the first step
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert first.startswith("step 1/1000")
    assert process.returncode == 130, err
    (line,) = err.splitlines()
    assert line.startswith("magister train sft: stopped after step ")
    assert line.endswith(f" of 1000, saved in {tmp_path}")
    assert out == ""
    assert (tmp_path / "checkpoint.pt").exists()
