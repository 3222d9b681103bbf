"""`magister evaluate`: greedy pass@1 on every family, as a table on the terminal and in a document."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from rich.progress import Progress

from magister.cli import compose
from magister.evals.pass_at_1 import FamilyReport, Outcome, measure, problems, wilson
from magister.tasks import FAMILIES, HONEST
from magister.tasks.problem import BEYOND_WARNING

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def run(
    model: str, n: int, families: tuple[str, ...], seed: int, book: str, out: Path | None, misses: Path | None
) -> int:
    """Measure; returns the exit code."""
    unknown = [family for family in families if family not in FAMILIES]
    if unknown or n < 1 or book not in ("held_out", "train"):
        print(f"magister evaluate: unknown family {unknown}, n {n} or book {book!r}", file=sys.stderr)
        return 2
    loaded = compose.load(model)
    try:
        chosen = families or tuple(FAMILIES)
        reports = asyncio.run(_measure_all(loaded, chosen, n, seed, book, beyond=False))
        past = [family for family in chosen if family not in HONEST]
        beyond = asyncio.run(_measure_all(loaded, tuple(past), max(1, n // 5), seed, book, beyond=True))
    finally:
        loaded.engine.close()
    command = f"magister evaluate {model} --n {n} --seed {seed} --book {book}"
    table = render(reports, beyond, command)
    print(table)
    if out is not None:
        write_between(out, table)
    if misses is not None:
        lines = [
            json.dumps(_miss(o), ensure_ascii=False) for r in [*reports, *beyond] for o in r.outcomes if not o.correct
        ]
        misses.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return 0


async def _measure_all(
    loaded: compose.Loaded, families: tuple[str, ...], n: int, seed: int, book: str, *, beyond: bool
) -> list[FamilyReport]:
    reports = []
    with Progress(disable=not sys.stderr.isatty()) as bar:
        for family in families:
            asked = problems(family, n, seed, book, beyond=beyond)
            task = bar.add_task(f"{family}{' beyond' if beyond else ''}", total=len(asked))

            def advance(outcome: Outcome, task: int = task) -> None:
                bar.advance(task)  # type: ignore[arg-type]

            reports.append(await measure(loaded.chat, asked, name=family, done=advance))
    return reports


def render(reports: list[FamilyReport], beyond: list[FamilyReport], command: str) -> str:
    """The Markdown table: families, their mean, honest replies, and what lies beyond the trained ranges."""
    lines = ["| family | n | pass@1 | 95 % interval | tokens an answer |", "|---|--:|--:|---|--:|"]
    for report in reports:
        share, low, high = report.interval
        tokens = sum(outcome.tokens for outcome in report.outcomes) / max(1, report.n)
        lines.append(f"| {report.family} | {report.n} | {share:.1%} | {low:.1%} to {high:.1%} | {tokens:.0f} |")
    solved = [report for report in reports if report.family not in HONEST]
    if solved:
        mean = sum(report.interval.share for report in solved) / len(solved)
        lines.append(f"| **mean of the {len(solved)} problem families** | | **{mean:.1%}** | | |")
    honest = [report for report in reports if report.family in HONEST]
    if honest:
        right, n = sum(report.correct for report in honest), sum(report.n for report in honest)
        share, low, high = wilson(right, n)
        lines.append(f"| **honest replies** (greeting, other) | {n} | **{share:.1%}** | {low:.1%} to {high:.1%} | |")
    lines += ["", "Beyond the trained ranges (no target), and how often the warning was given:", ""]
    lines += ["| family | n | pass@1 | warned | warned within range |", "|---|--:|--:|--:|--:|"]
    within = {report.family: report for report in reports}
    for report in beyond:
        lines.append(
            f"| {report.family} | {report.n} | {report.interval.share:.1%} | {_warned(report):.1%} "
            f"| {_warned(within[report.family]):.1%} |"
        )
    seconds = sum(report.seconds for report in [*reports, *beyond])
    return "\n".join([*lines, "", f"Made by `{command}` in {seconds:.0f} s."])


def write_between(path: Path, table: str) -> None:
    """Replace what stands between the document's two markers.

    Raises `ValueError` where the document lacks them.
    """
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{path} has no lines {BEGIN} and {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def _warned(report: FamilyReport) -> float:
    return sum(BEYOND_WARNING in outcome.answer for outcome in report.outcomes) / max(1, report.n)


def _miss(outcome: Outcome) -> dict[str, object]:
    problem = outcome.problem
    return {
        "family": problem.family,
        "kind": problem.kind,
        "level": problem.level,
        "prompt": problem.prompt,
        "expected": problem.answer,
        "thinking": outcome.thinking,
        "answer": outcome.answer,
    }
