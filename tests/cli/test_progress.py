"""Progress is for a terminal on standard error, and for nothing else."""

import sys

import pytest

from magister.cli.progress import bar_of


class _Terminal:
    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("terminal", [_Terminal(), None])
def test_what_a_command_prints_stays_its_own(
    terminal: _Terminal | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with bar_of() as bar:
        task = bar.add_task("measuring", total=2)
        bar.advance(task)
        sys.stdout.write("a table\n")
    assert capsys.readouterr().out == "a table\n"
    assert terminal is None or "measuring" in terminal.text
