"""The commands and their options as Markdown, read off the commands themselves: `docs/cli.md`."""

from __future__ import annotations

from collections.abc import Iterator

import click
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


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for child in sorted(command.commands):
            yield from _commands(f"{name} {child}", command.commands[child])
    else:
        yield name, command


def _row(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        shown, help_ = ", ".join(f"`{option}`" for option in [*parameter.opts, *parameter.secondary_opts]), parameter.help
    else:
        shown, help_ = f"`{(parameter.name or '').upper()}`", getattr(parameter, "help", "")
    default = "" if parameter.default in (None, (), []) else f"`{parameter.default}`"
    return f"| {shown} | {help_ or ''} | {default} |"


if __name__ == "__main__":
    print(render(), end="")
