"""docs/performance.md and its pictures, made from the latest figure of every row in bench/results.json.

What stands between the page's markers is made here; the rest of the page is written by people. Measures nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.places import ROOT

RESULTS = ROOT / "bench" / "results.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"

Line = Mapping[str, Any]


def keep(lines: Sequence[Line], order: Sequence[str], path: Path = RESULTS) -> None:
    """Puts new lines in the place of the old ones of the same rows; the rest stays. Rows come in `order`, and those
    that are not in it go."""
    known = {line["row"]: line for line in [*read(path), *lines]}
    kept = [known[name] for name in order if name in known]
    path.write_text("[\n" + ",\n".join(json.dumps(line) for line in kept) + "\n]\n", encoding="utf-8")


def read(path: Path = RESULTS) -> list[dict[str, Any]]:
    """The latest line of every row; none where there is no file yet."""
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return found


def write() -> None:
    """The page and its pictures, from what is kept."""
    lines = read()
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_results(text, lines), encoding="utf-8")
    _draw_ratios(lines, PAGE.parent / "performance-ratios.png")
    _draw_contexts(lines, PAGE.parent / "performance-context.png")


def with_results(text: str, lines: Sequence[Line]) -> str:
    """The page with its tables made again. ValueError where it lacks the markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the page must have {BEGIN} and {END}, once each")
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + "\n" + render(lines) + END + rest.partition(END)[2]


def render(lines: Sequence[Line]) -> str:
    """The tables, and what they were measured on."""
    machines: list[Line] = []
    for line in lines:
        if line["machine"] not in machines:
            machines.append(line["machine"])
    reached = sum(line["reached"] is True for line in lines)
    missed = sum(line["reached"] is False for line in lines)
    parts = [
        f"{len(lines)} rows: {reached} reached, {missed} missed, {len(lines) - reached - missed} not compared.",
        "",
    ]
    for machine in machines:
        parts += [_machine(machine), ""]
        parts += _table([line for line in lines if line["machine"] == machine])
        parts += [""]
    parts += ["### How each side ran", "", *_sides(lines), ""]
    return "\n".join(parts)


def verdict(line: Line) -> str:
    """One row in one line of text."""
    ours, peer = line["ours"], line["peer"]
    words = f"magister {_figure(ours, line['unit'])}"
    if peer is not None:
        words += f", {peer['name']} {_figure(peer, line['unit'])}"
    if "ratio" in line:
        words += f", ratio {line['ratio']:.2f}"
    return f"{words}, asked {_asked(line)}: {_word(line)}"


def _table(lines: Sequence[Line]) -> list[str]:
    head = ["work", "Magister", "against", "", "ratio", "by processor time", "asked", "", "note"]
    rows = ["| " + " | ".join(head) + " |", "|---|--:|---|--:|--:|--:|--:|---|---|"]
    for line in lines:
        peer = line["peer"]
        by_cpu = line.get("ratio_per_cpu")
        cells = [
            line["title"],
            _figure(line["ours"], line["unit"]),
            "" if peer is None else peer["name"],
            "" if peer is None else _figure(peer, line["unit"]),
            f"{line['ratio']:.2f}" if "ratio" in line else "",
            f"{by_cpu:.2f}" if by_cpu else "",
            _asked(line),
            _word(line),
            line["note"],
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _figure(side: Line, unit: str) -> str:
    if "refused" in side:
        return f"does not run here: {_cell(side['refused'])}"
    value = side["median"]
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def _asked(line: Line) -> str:
    target = line["target"]
    if "ratio" in target:
        return f"{target['ratio']:.3g}x"
    word, value = ("at least", target["least"]) if "least" in target else ("at most", target["most"])
    return f"{word} {value:,.4g} {line['unit']}"


def _word(line: Line) -> str:
    return {True: "reached", False: "**missed**", None: "not compared"}[line["reached"]]


def _machine(machine: Line) -> str:
    units, without = ", ".join(machine["units"]), ", ".join(machine["without"])
    return (
        f"**{machine['cpu']}**, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}. It has {units or 'none of the units that kernels ask for'}"
        f"{f', and not {without}' if without else ''}."
    )


def _sides(lines: Sequence[Line]) -> list[str]:
    rows = [
        "| work | threads | load before, after | pairs | Magister | against | commit |",
        "|---|--:|---|--:|---|---|---|",
    ]
    for line in lines:
        peer = {} if line["peer"] is None else line["peer"]["facts"]
        pairs = len(line["ours"].get("samples", ()))
        load = ", ".join(f"{value:.1f}" for value in line["load"])
        cells = [line["title"], str(line["threads"]), load, str(pairs), _facts(line["ours"]["facts"]), _facts(peer)]
        rows.append("| " + " | ".join([*cells, f"{line['commit']}, {line['date']}"]) + " |")
    return rows


def _facts(facts: Line) -> str:
    return _cell(", ".join(f"{name} {value}" for name, value in facts.items() if name != "threads"))


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _draw_ratios(lines: Sequence[Line], path: Path) -> None:
    """A bar for each row that is compared: how much of what is asked it reaches."""
    rows = [line for line in lines if "ratio" in line and "ratio" in line["target"]]
    if not rows:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.4 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    shares = [line["ratio"] / line["target"]["ratio"] for line in rows]
    colours = ["#2a7f62" if share >= 1 else "#b3453c" for share in shares]
    axes.barh([f"{line['row']} ({_asked(line)})" for line in rows], shares, color=colours)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("ratio to the peer, as a share of the ratio asked for")
    figure.savefig(path, dpi=80)


def _draw_contexts(lines: Sequence[Line], path: Path) -> None:
    """Tokens a second over the length of the context, beside what the memory could deliver."""
    rows = [line for line in lines if line["row"].startswith("context-") and "ratio" in line]
    if len(rows) < 2:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    lengths = [int(line["row"].removeprefix("context-")) for line in rows]
    axes.plot(lengths, [line["ours"]["median"] for line in rows], "o-", label="Magister", color="#2a7f62")
    axes.plot(lengths, [line["peer"]["median"] for line in rows], "o--", label="read bandwidth", color="black")
    axes.set_xscale("log", base=2)
    axes.set_ylim(0)
    axes.set_xlabel("tokens of context")
    axes.set_ylabel("tokens/s")
    axes.legend()
    figure.savefig(path, dpi=80)
