"""`magister evaluate`: greedy pass@1 on every family, as a table on the terminal and in a document."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from pathlib import Path

from magister.cli import compose, places
from magister.cli.progress import bar_of
from magister.evals.pass_at_1 import FamilyReport, Outcome, measure, problems
from magister.tasks import FAMILIES, HONEST
from magister.tasks.problem import BEYOND_WARNING

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def run(
    model: str, n: int, families: tuple[str, ...], seed: int, book: str, out: Path | None, misses: Path | None
) -> int:
    """Measure; returns the exit code."""
    fault = _fault(n, families, book, out, misses)
    if fault:
        print(f"magister evaluate: {fault}", file=sys.stderr)
        return 2
    chosen = tuple(dict.fromkeys(families)) or tuple(FAMILIES)
    past = tuple(family for family in chosen if family not in HONEST)
    loaded = compose.load(model, own_process=True)
    try:
        reports = asyncio.run(_measure_all(loaded, chosen, n, seed, book, beyond=False))
        beyond = asyncio.run(_measure_all(loaded, past, _fifth(n), seed, book, beyond=True))
    finally:
        loaded.engine.close()
    words = ["magister", "evaluate", model, "--n", str(n), "--seed", str(seed), "--book", book]
    words += [word for family in dict.fromkeys(families) for word in ("--family", family)]
    table = render(reports, beyond, n, shlex.join(words)) + history(places.find(model))
    print(table)
    if misses is not None:
        lines = [
            json.dumps(_miss(o), ensure_ascii=False) for r in [*reports, *beyond] for o in r.outcomes if not o.correct
        ]
        misses.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if out is not None:
        write_between(out, table)
    return 0


def _fault(n: int, families: tuple[str, ...], book: str, out: Path | None, misses: Path | None) -> str:
    """The first thing wrong with what was asked, in words; empty where nothing is."""
    if n < 1:
        return f"--n must be at least 1, got {n}"
    for family in families:
        if family not in FAMILIES:
            return f"--family: there is no family {family!r}; there are: {', '.join(FAMILIES)}"
    if book not in ("held_out", "train"):
        return f"--book must be held_out or train, got {book!r}"
    if misses is not None and (misses.is_dir() or not misses.parent.is_dir()):
        return f"--misses: {misses} cannot be written: " + ("it is a folder" if misses.is_dir() else "no such folder")
    if out is not None:
        try:
            _around(out)
        except (ValueError, OSError) as error:
            return f"--out: {error}"
    return ""


async def _measure_all(
    loaded: compose.Loaded, families: tuple[str, ...], n: int, seed: int, book: str, *, beyond: bool
) -> list[FamilyReport]:
    reports = []
    with bar_of() as bar:
        for family in families:
            asked = problems(family, n, seed, book, beyond=beyond)
            task = bar.add_task(f"{family}{' beyond' if beyond else ''}", total=len(asked))

            def advance(outcome: Outcome, task: int = task) -> None:
                bar.advance(task)  # type: ignore[arg-type]

            reports.append(await measure(loaded.chat, asked, name=family, done=advance))
    return reports


def render(reports: list[FamilyReport], beyond: list[FamilyReport], n: int, command: str) -> str:
    """The Markdown table: families, their mean, honest replies, and what lies beyond the trained ranges.

    `n`: problems asked for of every family; a family that has fewer says so.
    """
    lines = ["| family | n | pass@1 | 95 % interval | tokens an answer |", "|---|--:|--:|---|--:|"]
    for report in reports:
        share, low, high = report.interval
        tokens = sum(outcome.tokens for outcome in report.outcomes) / max(1, report.n)
        lines.append(
            f"| {report.family} | {_count(report, n)} | {share:.1%} | {low:.1%} to {high:.1%} | {tokens:.0f} |"
        )
    solved = [report for report in reports if report.family not in HONEST]
    if solved:
        lines.append(f"| **mean of the {len(solved)} problem families** | | **{_mean(solved):.1%}** | | |")
    honest = [report for report in reports if report.family in HONEST]
    if honest:
        names, counts = ", ".join(r.family for r in honest), " + ".join(str(r.n) for r in honest)
        lines.append(f"| **honest replies** (mean of {names}) | {counts} | **{_mean(honest):.1%}** | | |")
    if beyond:
        lines += ["", "Beyond the trained ranges (no target), and how often the warning was given:", ""]
        lines += ["| family | n | pass@1 | warned | warned within range |", "|---|--:|--:|--:|--:|"]
    within = {report.family: report for report in reports}
    for report in beyond:
        lines.append(
            f"| {report.family} | {_count(report, _fifth(n))} | {report.interval.share:.1%} | {_warned(report):.1%} "
            f"| {_warned(within[report.family]):.1%} |"
        )
    seconds = sum(report.seconds for report in [*reports, *beyond])
    return "\n".join([*lines, "", f"Made by `{command}` in {seconds:.0f} s."])


def _fifth(n: int) -> int:
    """Problems beyond the trained ranges, where `n` are asked within them."""
    return max(1, n // 5)


def _count(report: FamilyReport, n: int) -> str:
    return f"{report.n}" if report.n >= n else f"{report.n} (all there are)"


def _mean(reports: list[FamilyReport]) -> float:
    return sum(report.interval.share for report in reports) / len(reports)


def history(folder: Path) -> str:
    """A line for every training run that the checkpoint's weights come from; empty where it does not say."""
    path = folder / "training.json"
    if not path.exists():
        return ""
    lines = [
        f"Trained by `{run['command']}`: {run['tokens'] / 1e6:.1f}M tokens, {run['steps']:,} steps, {run['hours']} h "
        f"on {run['device']}, loss {run['loss']} at the end."
        for run in json.loads(path.read_text(encoding="utf-8"))
    ]
    return "\n\n" + "\n\n".join(lines)


def write_between(path: Path, table: str) -> None:
    """Replace what stands between the document's two markers.

    Raises `ValueError` where the document lacks them.
    """
    before, after = _around(path)
    path.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def _around(path: Path) -> tuple[str, str]:
    """What stands before and after the document's two markers."""
    before, begun, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"{path} has no lines {BEGIN} and {END}")
    return before, after


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
