"""The report of a verification: one page of Markdown, the verdict first."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from magister.cli import machine
from magister.cli.verify.check import Check
from magister.model.config import ModelConfig
from magister.model.count import count_parameters

GIB = 1 << 30

Sections = Mapping[str, Sequence[Check]]
"""Title -> its checks, in order."""

MEANING = """\
Passing says that the files are whole, that every number is finite, and that this network computes with them what
transformers computes. It does not say that the model is a good one. A check that was not run says why; a figure without
a bound is told for comparison."""


def failed(sections: Sections) -> list[Check]:
    """Checks that did not pass."""
    return [check for checks in sections.values() for check in checks if check.passed is False]


def verdict(sections: Sections) -> str:
    """All of it in a sentence."""
    checks = [check for some in sections.values() for check in some]
    passed = sum(check.passed is True for check in checks)
    skipped = sum(bool(check.why) for check in checks)
    bad = failed(sections)
    words = f"{len(bad)} failed, {passed} passed" if bad else f"{passed} checks passed"
    return f"{words}, {skipped} not run" if skipped else words


def render(name: str, path: Path, config: ModelConfig, sections: Sections) -> str:
    """The page."""
    count = count_parameters(config).total
    images = "text and images" if config.vision else "text"
    processor, memory = machine.processor(), machine.memory()
    lines = [
        f"# Verification of {name}",
        "",
        f"**{'FAILED' if failed(sections) else 'Passed'}**: {verdict(sections)}.",
        "",
        "| | |",
        "|---|---|",
        f"| checkpoint | `{path}` |",
        f"| network | {config.decoder.n_layers} layers, {count:,} parameters, {images} |",
        f"| machine | {processor.model}, {processor.usable} cores, {memory.total / GIB:.1f} GiB |",
        f"| software | {_versions()} |",
        f"| date | {datetime.datetime.now(datetime.UTC):%Y-%m-%d} |",
    ]
    for title, checks in sections.items():
        lines += ["", f"## {title}", "", "| check | found | allowed | |", "|---|---|---|---|"]
        lines += [_row(check) for check in checks]
    return "\n".join([*lines, "", MEANING, ""])


def _row(check: Check) -> str:
    mark = {True: "passed", False: "**FAILED**", None: ""}[check.passed]
    figure = f"{check.figure}: {check.why}" if check.why else check.figure
    cells = (check.name, figure, check.bound, mark)
    return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"


def _versions() -> str:
    found = []
    for name in ("magister", "torch", "transformers"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)
