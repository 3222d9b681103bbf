"""The page is made of what is kept, and of all of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from bench.measure import Sample, Side, Target, record

from bench import page, table

PLACE = {
    "cpu": "A CPU",
    "units": ["avx2"],
    "without": ["amx_int8"],
    "cores": 2,
    "memory_gib": 24,
    "system": "Linux",
    "python": "3.11.7",
}


def line(name: str, ours: float, peer: Side | None, target: Target) -> dict[str, Any]:
    return {
        "row": name,
        "title": f"title of {name}",
        "unit": "tokens/s",
        "note": "",
        **record(Side("magister", [Sample(ours, ours)], {"kernels": "avx2"}), peer, target),
        "date": "2026-11-21",
        "commit": "abc",
        "machine": PLACE,
        "threads": 1,
        "cores": 1,
        "load": [0.5, 1.0],
    }


def test_the_committed_page_is_what_is_made_of_the_committed_figures() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.with_results(text, page.read()) == text


def test_the_committed_figures_are_of_rows_that_there_are() -> None:
    names = [row.name for row in table.ROWS]
    kept = [found["row"] for found in page.read()]
    assert kept == [name for name in names if name in kept]
    assert len(names) == len(set(names))


def test_losses_and_refusals_are_shown() -> None:
    lines = [
        line("won", 4.0, Side("peer", [Sample(2.0, 2.0)]), Target(ratio=1.5)),
        line("lost", 4.0, Side("peer", [Sample(4.0, 4.0)]), Target(ratio=1.5)),
        line("alone", 4.0, Side("peer", refused="needs | AVX-512"), Target(ratio=1.5)),
    ]
    text = page.render(lines)
    assert "1 reached, 1 missed, 1 not compared" in text
    rows = {row.split(" | ")[0].removeprefix("| "): row for row in text.splitlines() if row.startswith("| title")}
    assert text.count("**missed**") == 1
    assert "does not run here: needs / AVX-512" in text
    assert {"title of won", "title of lost", "title of alone"} == set(rows)
    assert page.verdict(lines[1]) == "magister 4 tokens/s, peer 4 tokens/s, ratio 1.00, asked 1.5x: **missed**"


def test_new_figures_take_the_place_of_old_ones_of_the_same_row(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    old = [line(name, 1.0, None, Target(most=2.0)) for name in ("b", "gone", "a")]
    page.keep(old, ["b", "gone", "a"], path)
    page.keep([line("a", 7.0, None, Target(most=2.0))], ["a", "b"], path)
    kept = page.read(path)
    assert [(found["row"], found["ours"]["median"]) for found in kept] == [("a", 7.0), ("b", 1.0)]
    assert json.loads(path.read_text(encoding="utf-8")) == kept


def test_a_page_without_its_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="must have <!-- results: begin -->"):
        page.with_results("no markers", [])
