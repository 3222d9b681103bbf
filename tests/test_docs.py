"""What the documents say is so: commands, files, tables, transcript."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer

import magister
from magister.cli import reference
from magister.cli.evaluate import BEGIN, END
from magister.cli.main import app
from magister.tasks import FAMILIES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(path: Path) -> list[str]:
    lines = [line.split("  #")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line.split(" | ")[-1] for line in lines if re.match(r"(echo .* \| )?magister ", line)]


def test_the_list_of_commands_is_made_from_the_commands() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference.render()


@pytest.mark.parametrize("line", [line for path in DOCUMENTS for line in commands(path)])
def test_every_command_shown_is_one_that_parses(line: str) -> None:
    command: object = typer.main.get_command(app)
    arguments = shlex.split(line)[1:]
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    command.make_context("magister", arguments)  # type: ignore[attr-defined]


def test_make_targets_shown_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    shown = set(re.findall(r"make ([a-z]+)", README))
    assert shown <= targets
    assert {"setup", "chat", "check", "test"} <= targets


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in script
    assert "make test" in README


def test_the_file_tree_is_the_tree() -> None:
    shown = set(re.findall(r"^      ([a-z_]+)(?:/|\.py) ", README, re.MULTILINE))
    source = ROOT / "src" / "magister"
    found = {path.name.removesuffix(".py") for path in source.iterdir() if not path.name.startswith("__")}
    assert shown == found


def test_links_between_documents_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} -> {target}"


def test_the_table_of_families_is_what_the_books_hold() -> None:
    kinds: dict[str, set[str]] = {}
    family = ""
    for line in (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[0] not in ("family", "---"):
            family = cells[0] or family
            kinds.setdefault(family, set()).update(kind.split(" ")[0] for kind in cells[1].split(", "))
    assert set(kinds) == set(FAMILIES)
    for name in FAMILIES:
        for book in ("train", "held_out"):
            path = ROOT / "src" / "magister" / "tasks" / "phrasings" / book / "en" / f"{name}.json"
            data = json.loads(path.read_text(encoding="utf-8"))
            found = set(data.get("kinds", {}))
            if data.get("themes"):
                found |= {"order", "truth"}
            assert found == kinds[name], f"{name} in {book}"


def test_the_readmes_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "TextDelta" in capsys.readouterr().out


def test_the_readmes_transcript_is_what_one_sees() -> None:
    shown = README.split("<!-- transcript: begin -->")[1].split("<!-- transcript: end -->")[0]
    question = re.findall(r'magister chat "(.*?)"', shown)[0]
    with magister.load("nano") as model:
        answer = model.chat(question)
    body = "\n".join(line.strip() for line in shown.splitlines())
    assert "\n".join(line.strip() for line in answer.thinking.splitlines()) in body
    assert answer.answer in body
    assert f"{answer.usage.thinking_tokens} tokens" in body


def test_nanos_table_is_there() -> None:
    text = (ROOT / "docs" / "nano.md").read_text(encoding="utf-8")
    table = text.split(BEGIN)[1].split(END)[0]
    assert "Made by `magister evaluate nano" in table
    for family in FAMILIES:
        assert f"| {family} |" in table


def test_dependencies_are_the_ones_argued_for() -> None:
    argued = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = project.split("dependencies = [")[1].split("\n]")[0]
    for name in re.findall(r'"([a-z0-9-]+)', block):
        assert name in argued, name
