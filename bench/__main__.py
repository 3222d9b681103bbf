"""`python -m bench`: run rows, keep every sample, and write docs/performance.md again from the latest figures."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine, page, table
from bench.environments import Unavailable
from bench.measure import Side, record
from bench.places import Places
from bench.process import Pins
from bench.rows import Bench, Row


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 also where a target is missed, since a loss is a result; 1 where a row has none."""
    asked = _parse(arguments)
    if asked.page:
        page.write()
        return 0
    bench = Bench(Places(), Pins(asked.cores, asked.threads), asked.repetitions)
    if asked.quick:
        bench = table.quick(bench)
    target = asked.out or bench.places.results / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for row in _chosen(asked):
        _say(f"{row.name}: {row.title}")
        line = measure(row, bench)
        lines.append(line)
        with target.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        _say(f"  {page.verdict(line)}")
    if not asked.quick:
        page.keep(lines, [row.name for row in table.ROWS])
        page.write()
    _say(f"every sample: {target}")
    return 1 if any("refused" in line["ours"] for line in lines) else 0


def measure(row: Row, bench: Bench) -> dict[str, Any]:
    """One row with everything that is to be known of it."""
    before = machine.load_average()
    try:
        outcome = row.run(bench)
        found = record(outcome.ours, outcome.peer, row.target)
        note = outcome.note
    except Unavailable as reason:
        found, note = record(Side("magister", refused=str(reason)), None, row.target), ""
    return {
        "row": row.name,
        "title": row.title,
        "unit": row.unit,
        "note": note,
        **found,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": machine.commit(),
        "machine": machine.describe(),
        "threads": bench.pins.threads,
        "cores": len(bench.pins.cores),
        "load": [before, machine.load_average()],
    }


def _chosen(asked: argparse.Namespace) -> list[Row]:
    if asked.quick:
        return [row for row in table.ROWS if row.name in table.QUICK]
    if asked.rows:
        return [row for row in table.ROWS if row.name in asked.rows]
    return [row for row in table.ROWS if asked.whole or not row.opt_in]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    cores = machine.usable_cores()
    names = [row.name for row in table.ROWS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=names, metavar="ROW", help=f"only these: {', '.join(names)}")
    parser.add_argument("--whole", action="store_true", help="also all 40 layers of the 24B shape: 15 GB of disk, long")
    parser.add_argument("--quick", action="store_true", help="a smoke run: one row, one repetition, no page")
    parser.add_argument("--page", action="store_true", help="only write the page again, from bench/results.json")
    parser.add_argument("--repetitions", type=int, default=5, help="pairs of runs that count")
    parser.add_argument("--cores", type=_cores, default=cores, help="such as 0,1; default: all")
    parser.add_argument("--threads", type=int, default=None, help="of every system; default: one a core")
    parser.add_argument("--out", type=Path, help="the file of JSON lines; default: a new one in .bench/results")
    asked = parser.parse_args(arguments)
    if not set(asked.cores) <= set(cores):
        parser.error(f"--cores: there are {','.join(map(str, cores))}")
    asked.threads = len(asked.cores) if asked.threads is None else asked.threads
    if asked.threads < 1 or asked.repetitions < 1:
        parser.error("--threads and --repetitions must be at least 1")
    return asked


def _cores(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _say(what: str) -> None:
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
