"""`magister doctor`: what it says of models that fit and that do not, and that its advice can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import typer
from tests.cli import checkpoints
from typer.testing import CliRunner

from magister.cli import advice, doctor, fit, machine, measure, quantize
from magister.cli.advice import Place, Row, Subject
from magister.cli.fit import Fit, Precision
from magister.cli.main import app
from magister.model.cache import KVFormat
from magister.model.config import MAGISTRAL_SMALL
from magister.model.quantize import Plan

GIB = 1 << 30


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAGISTER_MODELS", str(tmp_path / "shelf"))
    return tmp_path / "shelf"


def advised(output: str) -> list[list[str]]:
    """The commands of a report, each parsed by the program itself."""
    found = [shlex.split(line)[1:] for line in output.splitlines() if line.startswith("    magister ")]
    for name, *arguments in found:
        typer.main.get_command(app).commands[name].make_context("magister", list(arguments))  # type: ignore[attr-defined]
    return found


def test_without_a_name_it_speaks_of_the_24b_and_of_nano(shelf: Path) -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    found = machine.processor()
    assert found.model in result.output
    assert re.search(r"reading memory +│ [\d.]+ GB/s with one thread.* \(measured\)", result.output)
    assert f"GiBfreeat{shelf}" in re.sub(r"[│\s]", "", result.output)
    whole, nano = result.output.split("nano on the CPU")
    assert "estimated" in whole
    assert "measured " not in whole.split("magistral-small on the")[1]
    rows = [line for line in nano.splitlines() if re.match(r"  (bf16|int8|int4) ", line)]
    assert len(rows) == 6
    assert all("measured" in row and " yes " in row and " 2,048 " in row for row in rows)
    assert "nano takes 2,048 tokens at the most: minutes are for comparison." in nano
    assert advised(nano) == [["chat", "--model", "nano"]]
    assert "Estimated: the bytes that a token reads" in nano


def test_a_context_that_a_model_does_not_have_is_advised_to_nobody() -> None:
    result = CliRunner().invoke(app, ["doctor", "nano", "--context", "2049"])
    assert result.exit_code == 1
    assert "nano takes 2,048 tokens at the most, --context asks for 2,049." in result.output
    assert advised(result.output) == []


def test_a_checkpoint_is_measured_in_every_precision(tmp_path: Path) -> None:
    folder = checkpoints.hf(tmp_path / "mine", checkpoints.WITH_VISION, 3)
    result = CliRunner().invoke(app, ["doctor", str(folder)])
    assert result.exit_code == 0, result.output
    assert [row.split()[0] for row in result.output.splitlines() if " measured " in row] == [
        precision for precision in ("fp32", "int8", "int4") for _ in range(2)
    ]
    assert advised(result.output) == [["chat", "--model", str(folder)]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_what_is_quantised_is_not_quantised_again(tmp_path: Path) -> None:
    folder = checkpoints.native(tmp_path / "mine", checkpoints.TEXT)
    quantize.run(str(folder), tmp_path / "less", Plan())
    result = CliRunner().invoke(app, ["doctor", str(tmp_path / "less")])
    assert [row.split()[0] for row in result.output.splitlines() if " measured " in row] == ["int4", "int4"]


def test_a_pulled_model_goes_by_its_name(shelf: Path) -> None:
    checkpoints.native(shelf / "magistral-small-2509", checkpoints.TEXT)
    result = CliRunner().invoke(app, ["doctor", "magistral-small-2509"])
    assert " measured " in result.output
    assert advised(result.output) == [["chat", "--model", "magistral-small-2509"]]


def test_a_name_that_fits_in_no_way_fails_with_numbers(tmp_path: Path) -> None:
    folder = checkpoints.empty(tmp_path / "huge", checkpoints.deep(machine.memory().available, 12))
    result = CliRunner().invoke(app, ["doctor", str(folder)])
    assert result.exit_code == 1
    said = re.search(
        r"does not fit: in int4 .* needs ([\d,]+) bytes .*, ([\d,]+) are available; ([\d,]+)", result.output
    )
    assert said
    needed, free, missing = (int(said[group].replace(",", "")) for group in (1, 2, 3))
    assert needed - free == missing > 0
    assert not advised(result.output)


def test_a_name_that_is_nothing_is_one_line() -> None:
    result = CliRunner().invoke(app, ["doctor", "magistral-tiny"])
    assert result.exit_code == 1
    assert str(result.exception) == "model: 'magistral-tiny' is neither a folder nor one of nano"


@pytest.mark.parametrize(
    ("gib", "bandwidth", "wanted"),
    [
        (64, 400e9, "magister pull magistral-small-2509 --bits 16; magister chat --model magistral-small-2509"),
        (32, 200e9, "magister pull magistral-small-2509 --bits 8; magister chat --model magistral-small-2509-int8"),
        (32, 50e9, "magister pull magistral-small-2509 --bits 4; magister chat --model magistral-small-2509-int4"),
        (20, 50e9, "magister pull magistral-small-2509 --bits 4; magister chat --model magistral-small-2509-int4"),
    ],
)
def test_the_advice_for_other_machines(gib: int, bandwidth: float, wanted: str) -> None:
    subject, place = Subject("magistral-small", MAGISTRAL_SMALL, None), Place("cpu", gib * GIB, bandwidth, True)
    found = doctor.rows(subject, place, None)
    assert all(row.how == "estimated" for row in found)
    said = advice.verdict(subject, [(place, found)], None, disk=100 * GIB)
    assert "; ".join(" ".join(words) for words in (["magister", *line] for line in advised(said))) == wanted
    assert "The disk has" not in said
    assert "The disk has 1,073,741,824 bytes free" in advice.verdict(subject, [(place, found)], None, disk=GIB)


def test_a_context_that_needs_int8_is_advised_so() -> None:
    subject, place = Subject("magistral-small-2506", MAGISTRAL_SMALL, None), Place("cpu", 20 * GIB, 50e9, True)
    found = doctor.rows(subject, place, 50_000)
    said = advice.verdict(subject, [(place, found)], 50_000, disk=100 * GIB)
    chat = ["chat", "--model", "magistral-small-2506-int4", "--context", "50000", "--kv", "int8"]
    assert advised(said) == [["pull", "magistral-small-2506", "--bits", "4"], chat]


def test_a_gpu_with_room_comes_first() -> None:
    subject = Subject("magistral-small", MAGISTRAL_SMALL, None)
    small, large = Place("cuda", 8 * GIB, 900e9, False), Place("cuda", 24 * GIB, 900e9, False)
    here = Place("cpu", 32 * GIB, 50e9, True)
    for gpu, where in ((small, "on the CPU in int4"), (large, "on the GPU in int4")):
        ways = [(place, doctor.rows(subject, place, None)) for place in (gpu, here)]
        assert where in advice.verdict(subject, ways, None, disk=100 * GIB)


def test_a_gpu_holds_keys_and_values_as_wide_as_the_network(tmp_path: Path) -> None:
    for dtype, wanted in ((torch.float32, KVFormat.FP32), (torch.bfloat16, KVFormat.BF16)):
        folder = checkpoints.native(tmp_path / str(dtype), checkpoints.TEXT, dtype=dtype)
        subject = Subject("mine", checkpoints.TEXT, folder)
        # Without room nothing is tried out, so that this needs no GPU.
        found = doctor.rows(subject, Place("cuda", 0, 900e9, False), None)
        assert [row.kv for row in found] == 3 * [wanted, KVFormat.INT8]
    assert [measure.asked_kv("cuda", kv) for kv in KVFormat] == ["auto", "auto", "int8"]
    assert [measure.asked_kv("cpu", kv) for kv in KVFormat] == list(KVFormat)


def test_most_bits_that_are_pleasant_else_the_fastest() -> None:
    def row(name: str, read: int, speed: float, kv: KVFormat = KVFormat.BF16, missing: int = 0) -> Row:
        return Row(Precision(name, read, read), kv, Fit(1, 1, 1, missing), speed, "estimated")

    slow, fast = row("bf16", 8, 2.0), row("int4", 2, 4.0)
    assert advice.choose([slow, fast]) == fast
    assert advice.choose([slow._replace(speed=5.0), fast._replace(speed=20.0)]) == slow._replace(speed=5.0)
    assert advice.choose([row("int4", 2, 4.1, KVFormat.INT8), fast]) == fast
    assert advice.choose([row("int4", 2, 4.1, missing=1)]) is None
    assert fit.THOUGHT == 4000
