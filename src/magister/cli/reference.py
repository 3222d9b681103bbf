"""The commands and their options as Markdown, read off the commands themselves: `docs/cli.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from magister.cli.main import app


def render() -> str:
    """The whole page."""
    lines = [
        "# Commands",
        "",
        "Made from the commands themselves by `python -m magister.cli.reference > docs/cli.md`; a test compares.",
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
    ]
    for name, command in _commands("magister", typer.main.get_command(app)):
        lines += ["", f"## {name}", "", (command.help or "").strip(), ""]
        lines += ["| parameter | meaning | default |", "|---|---|---|"]
        lines += [_row(parameter) for parameter in command.params if parameter.name != "help"]
    return "\n".join(lines) + "\n"


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for child in sorted(command.commands):
            yield from _commands(f"{name} {child}", command.commands[child])
    else:
        yield name, command


def _row(parameter: Any) -> str:
    option = parameter.param_type_name == "option"
    names = [*parameter.opts, *parameter.secondary_opts] if option else [parameter.name.upper()]
    default = "" if parameter.default in (None, (), []) else f"`{parameter.default}`"
    return f"| {', '.join(f'`{name}`' for name in names)} | {parameter.help or ''} | {default} |"


if __name__ == "__main__":
    print(render(), end="")
