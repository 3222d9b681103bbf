"""A search that finds a solution of a countdown problem: tries, dead ends, solution.

Its length decides which problems are asked (`countdown`), so a change here changes the problems; the thought that is
shown is another (`countdown_think`).

Every step leaves a smaller problem of the same sort: one number is stripped off the target
(`51-25=26: 3,5,7 to 26`) or two numbers become one (`3*5=15: 7,25,15 to 51`). Two numbers are
tried out at once. Knows nothing of prompts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple


class Term(NamedTuple):
    """A number that can be made, and how."""

    value: int
    text: str
    """Compact expression with no more brackets than needed."""
    rank: int
    """3 for a number, 2 for a product or quotient, 1 for a sum or difference."""


class Found(NamedTuple):
    """A solution and the tries before it, each a block of lines."""

    tries: list[list[str]]
    path: list[str]
    term: Term

    @property
    def lines(self) -> list[str]:
        """The tries and then the path."""
        return [*(line for block in self.tries for line in block), *self.path]


_RANKS = {"+": 1, "-": 1, "*": 2, "/": 2}
_TRIES_ASIDE = 2


def number(value: int) -> Term:
    """`value` itself as a term."""
    return Term(value, str(value), 3)


def combine(operator: str, a: Term, b: Term, limit: int) -> Term | None:
    """`a` operator `b`, None unless it is an integer from 1 to `limit`."""
    if operator == "/":
        value = a.value // b.value if a.value % b.value == 0 else 0
    else:
        value = {"+": a.value + b.value, "-": a.value - b.value, "*": a.value * b.value}[operator]
    if not 1 <= value <= limit:
        return None
    rank = _RANKS[operator]
    left = f"({a.text})" if a.rank < rank else a.text
    right = f"({b.text})" if b.rank < rank or (b.rank == rank and operator in "-/") else b.text
    return Term(value, f"{left}{operator}{right}", rank)


def search(rng: random.Random, terms: list[Term], target: int, limit: int) -> Found | None:
    """A solution for three or four terms, and in order the tries that fail before it.

    Of three terms every try is kept; of four, some of the dead ends of the first step.
    """
    if len(terms) == 3:
        return _search_three(terms, target, limit)
    dead_ends: list[list[str]] = []
    for line, rest, goal, finish in _steps(terms, target, limit):
        found = _search_three(rest, goal, limit)
        if found is None:
            tries = _dead_tries(rest, goal, limit)
            if tries:
                back = f"back: {state_of(terms, target)}"
                dead_ends.append([line, *(one for block in tries[:_TRIES_ASIDE] for one in block), back])
            continue
        term = finish(found.term)
        if term is None:
            continue
        shown = _some(rng, dead_ends, rng.randint(0, 2))
        path = [line, *(one for block in found.tries for one in block), *found.path]
        if term.text != found.term.text:
            path.append(f"{term.text}={target}")
        return Found(shown, path, term)
    return None


def state_of(terms: list[Term], target: int) -> str:
    """`3,7,25 to 46`."""
    return ",".join(str(term.value) for term in terms) + f" to {target}"


def _search_three(terms: list[Term], target: int, limit: int) -> Found | None:
    failed: list[list[str]] = []
    for line, rest, goal, finish in _strips(terms, target, limit):
        tried, made = _leaf(rest[0], rest[1], goal, limit)
        term = finish(made) if made is not None else None
        if made is None or term is None:
            failed.append([line, f"{tried} no"])
            continue
        path = [line, f"{tried} yes"]
        if len(made.text) > len(tried.rsplit(", ", maxsplit=1)[-1].split("=")[0]):
            path.append(f"{made.text}={goal}")
        return Found(failed, [*path, f"{term.text}={target}"], term)
    return None


def _dead_tries(terms: list[Term], target: int, limit: int) -> list[list[str]]:
    strips = _strips(terms, target, limit)
    return [[line, f"{_leaf(rest[0], rest[1], goal, limit)[0]} no"] for line, rest, goal, _ in strips]


def _some(rng: random.Random, blocks: list[list[str]], most: int) -> list[list[str]]:
    """At most `most` of the blocks, their order kept."""
    if len(blocks) <= most:
        return list(blocks)
    return [blocks[at] for at in sorted(rng.sample(range(len(blocks)), most))]


class _Finish(NamedTuple):
    """How a solution of the smaller problem becomes one of the larger."""

    operator: str
    stripped: Term | None
    stripped_first: bool
    limit: int

    def __call__(self, inner: Term) -> Term | None:
        if self.stripped is None:
            return inner
        pair = (self.stripped, inner) if self.stripped_first else (inner, self.stripped)
        return combine(self.operator, *pair, self.limit)


_Step = tuple[str, list[Term], int, _Finish]


def _steps(terms: list[Term], target: int, limit: int) -> Iterator[_Step]:
    """Strips first, then pairs made one, the order a person would try them in."""
    yield from _strips(terms, target, limit)
    for i in range(len(terms)):
        for j in range(i):
            big, small = sorted((terms[i], terms[j]), key=lambda term: -term.value)
            rest = [term for at, term in enumerate(terms) if at not in (i, j)]
            for operator in "*+-/":
                made = combine(operator, big, small, limit)
                if made is not None and not (small.value == 1 and operator in "*/"):
                    state = [*rest, made]
                    line = f"{big.value}{operator}{small.value}={made.value}: {state_of(state, target)}"
                    yield line, state, target, _Finish("", None, False, limit)


def _strips(terms: list[Term], target: int, limit: int) -> Iterator[_Step]:
    """One number off the target, largest first: by division, subtraction, then the rarer ways."""
    order = sorted(range(len(terms)), key=lambda at: -terms[at].value)
    for operator in "*+r-/d":
        for place, at in enumerate(order):
            n = terms[at].value
            if place and terms[order[place - 1]].value == n:
                continue
            rest = terms[:at] + terms[at + 1 :]
            goal, shown, kind, first = _undone(operator, target, n)
            if 1 <= goal <= limit and goal <= _most(rest):
                line = f"{shown}={goal}: {state_of(rest, goal)}"
                yield line, rest, goal, _Finish(kind, terms[at], first, limit)


def _undone(operator: str, target: int, n: int) -> tuple[int, str, str, bool]:
    """The smaller target where `n` was the last number used, how it is shown, and how it is put back."""
    match operator:
        case "*":
            return (target // n if target % n == 0 else 0), f"{target}/{n}", "*", False
        case "+":
            return target - n, f"{target}-{n}", "+", False
        case "r":
            return n - target, f"{n}-{target}", "-", True
        case "-":
            return target + n, f"{target}+{n}", "-", False
        case "/":
            return (target * n if n > 1 else 0), f"{target}*{n}", "/", False
        case _:
            return (n // target if target > 1 and n % target == 0 else 0), f"{n}/{target}", "/", True


def _most(terms: list[Term]) -> int:
    """No less than the largest number the terms can make."""
    product = 1
    for term in terms:
        product *= max(term.value, 1) + (term.value == 1)
    return max(product, sum(term.value for term in terms))


def _leaf(a: Term, b: Term, goal: int, limit: int) -> tuple[str, Term | None]:
    """The sum of two numbers, then what lies on the goal's side of it."""
    big, small = (a, b) if a.value >= b.value else (b, a)
    total = big.value + small.value
    shown = [f"{big.value}+{small.value}={total}"]
    if total == goal:
        return shown[0], combine("+", big, small, limit)
    for operator in "*" if goal > total else "-/":
        made = combine(operator, big, small, limit)
        if made is None:
            continue
        shown.append(f"{big.value}{operator}{small.value}={made.value}")
        if made.value == goal:
            return ", ".join(shown), made
    return ", ".join(shown), None
