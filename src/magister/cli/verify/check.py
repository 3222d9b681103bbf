"""One check of a verification: what was looked at, what came out, what was allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

PARITY = 1e-4
"""How far two float32 computations of the same thing may be apart, of the whole."""

SHOWN = 5
"""Faults of one kind that are listed, so that a report stays a page."""


class Check(NamedTuple):
    """A line of the report."""

    name: str
    figure: str
    """What came out, in words or numbers."""
    bound: str
    """What was allowed; empty for a figure that is only told."""
    passed: bool | None
    """None where it was not run, or has no bound."""
    why: str = ""
    """Where it was not run: why, and what to do about it."""


class Difference(NamedTuple):
    """How far one thing is from what it should be."""

    name: str
    figure: float
    bound: float
    where: str = ""


def within(name: str, figure: float, bound: float, where: str = "") -> Check:
    """A figure that may be at most `bound`; one that is not a number is not within it."""
    said = f"{figure:.1e}" + (f" ({where})" if where else "")
    return Check(name, said, f"<= {bound:.0e}", figure <= bound)


def holds(name: str, truth: bool, figure: str, bound: str = "") -> Check:
    """Something that must be so."""
    return Check(name, figure, bound, truth)


def told(name: str, figure: str) -> Check:
    """A figure without a bound."""
    return Check(name, figure, "", None)


def skipped(name: str, why: str) -> Check:
    """A check that was not run."""
    return Check(name, "not run", "", None, why)


def worst(name: str, figures: Mapping[str, float], bound: float) -> Check:
    """The largest of many figures, which are named by where they were found."""
    where = max(figures, key=lambda key: figures[key] if figures[key] == figures[key] else float("inf"))
    many = f", the worst of {len(figures)}" if len(figures) > 1 else ""
    return within(f"{name}{many}", figures[where], bound, where)


def summed(name: str, found: Sequence[Difference]) -> list[Check]:
    """Differences as one line where all are within their bounds; else a line for each of the first that are not."""
    far = [one for one in found if not one.figure <= one.bound]
    if not far and found:
        most = max(found, key=lambda one: one.figure / one.bound)
        where = ", ".join(part for part in (most.name, most.where) if part)
        return [within(f"{name}, the worst of {len(found)}", most.figure, most.bound, where)]
    lines = [within(f"{name}: {one.name}", one.figure, one.bound, one.where) for one in far[:SHOWN]]
    return lines + _more(name, len(far))


def faults(name: str, found: Sequence[str], fine: str) -> list[Check]:
    """What is wrong in words, the first few a line each; one line with `fine` where nothing is."""
    if not found:
        return [holds(name, True, fine)]
    return [holds(name, False, one) for one in found[:SHOWN]] + _more(name, len(found))


def relative(found: Tensor, wanted: Tensor) -> float:
    """The norm of the difference, of the norm of what is wanted."""
    return float((found.float() - wanted.float()).norm() / wanted.float().norm().clamp_min(1e-30))


def _more(name: str, count: int) -> list[Check]:
    return [holds(name, False, f"and {count - SHOWN} more")] if count > SHOWN else []
