"""`magister evaluate`: faults before any work, the table, the documents it writes."""

import json
from pathlib import Path

import pytest

from magister.cli import compose, evaluate
from magister.cli.evaluate import BEGIN, END, render
from magister.evals.pass_at_1 import FamilyReport, Outcome, problems
from magister.tasks import FAMILIES


def report(family: str, n: int, right: int, *, beyond: bool = False) -> FamilyReport:
    asked = problems(family, n, 0, "held_out", beyond=beyond)
    outcomes = tuple(Outcome(p, p.thinking, p.reply, number < right, 10) for number, p in enumerate(asked))
    return FamilyReport(family, outcomes, 1.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"n": 0}, "--n must be at least 1, got 0"),
        ({"families": ("dates", "poems")}, f"there is no family 'poems'; there are: {', '.join(FAMILIES)}"),
        ({"book": "other"}, "--book must be held_out or train, got 'other'"),
        ({"out": Path("nowhere.md")}, "nowhere.md"),
        ({"out": Path("plain.md")}, "plain.md has no lines"),
        ({"out": Path("turned.md")}, "turned.md has no lines"),
        ({"misses": Path("nowhere/misses.jsonl")}, "no such folder"),
        ({"misses": Path()}, "it is a folder"),
    ],
)
def test_faults_are_told_before_measuring(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, object],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain.md").write_text("# no markers")
    Path("turned.md").write_text(f"{END}\n{BEGIN}")
    monkeypatch.setattr(compose, "load", lambda *arguments: pytest.fail("measured all the same"))
    values: dict[str, object] = {
        "model": "nano",
        "n": 3,
        "families": (),
        "seed": 0,
        "book": "held_out",
        "out": None,
        "misses": None,
    }
    assert evaluate.run(**(values | changed)) == 2  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("magister evaluate: --")
    assert said in err
    assert err.count("\n") == 1


def test_a_family_is_measured_into_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, misses = tmp_path / "nano.md", tmp_path / "misses.jsonl"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert evaluate.run("nano", 5, ("greeting", "dates"), 0, "held_out", document, misses) == 0
    text = document.read_text()
    assert text.startswith(f"before\n{BEGIN}\n| family |")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    command = "magister evaluate nano --n 5 --seed 0 --book held_out --family greeting --family dates"
    assert f"Made by `{command}` in " in text
    assert f"Made by `{command}` in " in capsys.readouterr().out
    assert {json.loads(line)["family"] for line in misses.read_text().splitlines()} <= {"greeting", "dates"}


def test_misses_are_written_even_where_the_document_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document, misses = tmp_path / "nano.md", tmp_path / "misses.jsonl"
    document.write_text(f"{BEGIN}\n{END}")

    def full(path: Path, table: str) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(evaluate, "write_between", full)
    with pytest.raises(OSError, match="No space"):
        evaluate.run("nano", 1, ("other",), 0, "held_out", document, misses)
    assert misses.exists()


def test_the_table_tells_small_families_and_means_the_honest_ones() -> None:
    reports = [report("dates", 50, 25), report("greeting", 50, 39), report("other", 50, 40)]
    table = render(reports, [report("dates", 10, 5, beyond=True)], 50, "the command")
    assert "| dates | 50 | 50.0% |" in table
    assert "| greeting | 39 (all there are) | 100.0% |" in table
    assert "| **mean of the 1 problem families** | | **50.0%** | | |" in table
    assert "| **honest replies** (mean of greeting, other) | 39 + 50 | **90.0%** | | |" in table
    assert "Beyond the trained ranges" in table
    assert "| dates | 10 | 50.0% | 100.0% | 0.0% |" in table


def test_an_empty_table_is_left_out() -> None:
    table = render([report("other", 4, 4)], [], 4, "the command")
    assert "Beyond" not in table
    assert "warned" not in table
    assert "| **honest replies** (mean of other) | 4 | **100.0%** | | |" in table


def test_the_history_of_the_weights_is_told(tmp_path: Path) -> None:
    assert evaluate.history(tmp_path) == ""
    run = {"command": "c", "tokens": 1_500_000, "steps": 2000, "hours": 1.5, "device": "cpu", "loss": 0.1}
    (tmp_path / "training.json").write_text(json.dumps([run, run]))
    told = "Trained by `c`: 1.5M tokens, 2,000 steps, 1.5 h on cpu, loss 0.1 at the end."
    assert evaluate.history(tmp_path) == f"\n\n{told}\n\n{told}"
