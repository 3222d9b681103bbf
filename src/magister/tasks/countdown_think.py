"""The thought behind a countdown problem: what pairs make, then what the target still needs, until the two meet.

    7,3,25 to 46
    7+3=10,7-3=4,7*3=21,7/3 no
    46-25=21 yes
    21+25=46
    7*3=21
    7*3+25=46

The first line is the order of trial: the first two numbers make one side, the rest the other. Orders, pairs and
goals stand in a fixed sequence, so that every line follows from the lines above it and no try is left out.
Knows nothing of prompts.
"""

from __future__ import annotations

from typing import NamedTuple

from magister.tasks.countdown_search import Term, combine, state_of


class Thought(NamedTuple):
    """The lines up to the solution, and the solution; without one, the lines of all that was tried."""

    lines: list[str]
    term: Term | None


_ORDERS = {3: ((0, 1, 2), (1, 2, 0), (2, 0, 1)), 4: ((0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2))}
_USUAL, _RARE, _STRIPS = "-/+", "*:", "/-+"
"""How a number is taken off the target; `:` divides the number by the target."""


def think(terms: list[Term], target: int, limit: int) -> Thought:
    """Every order of three or four terms by the usual goals; then three by the rare goals, four without one term."""
    tried = _all_orders(terms, target, limit, _USUAL)
    if tried.term is not None:
        return tried
    more = _all_orders(terms, target, limit, _RARE) if len(terms) == 3 else _strip(terms, target, limit)
    return Thought([*tried.lines, *more.lines], more.term)


def _all_orders(terms: list[Term], target: int, limit: int, operators: str) -> Thought:
    """The blocks of all orders up to the one that succeeds; equal numbers make some orders the same."""
    lines: list[str] = []
    seen = []
    for order in _ORDERS[len(terms)]:
        turned = [terms[at] for at in order]
        sides = sorted((sorted(term.value for term in turned[:2]), sorted(term.value for term in turned[2:])))
        if sides in seen:
            continue
        seen.append(sides)
        block = _block(turned, target, limit, operators)
        lines += block.lines
        if block.term is not None:
            return Thought(lines, block.term)
    return Thought(lines, None)


def _strip(terms: list[Term], target: int, limit: int) -> Thought:
    """The first term, largest first, without which the three others make what is left of the target.

    The orders failed, so the term taken off is a guess; one that divides the target is the best.
    """
    for operator in _STRIPS:
        for term in sorted(terms, key=lambda term: -term.value):
            shown, goal = _goal(operator, target, term.value, limit)
            rest = list(terms)
            rest.remove(term)
            inner = _all_orders(rest, goal, limit, _USUAL) if goal else Thought([], None)
            whole = _joined(operator, target, inner.term, term, limit) if inner.term is not None else None
            if whole is not None:
                return Thought([shown, *inner.lines, f"{whole.text}={target}"], whole)
    return Thought([], None)


def _block(terms: list[Term], target: int, limit: int, operators: str) -> Thought:
    made, shown = _values(terms[0], terms[1], limit)
    lines, others = [state_of(terms, target), shown], terms[2:]
    if len(others) == 2:
        others, shown = _values(others[0], others[1], limit)
        lines.append(shown)
    goals: list[str] = []
    for other in others:
        for operator in operators:
            text, goal = _goal(operator, target, other.value, limit)
            goals.append(text)
            match = next((one for one in made if one.value == goal), None)
            whole = _joined(operator, target, match, other, limit) if match is not None else None
            if match is None or whole is None:
                continue
            sides = _sides(operator, target, match, other)
            last = [f"{sides[1].value}{sides[0]}{sides[2].value}={target}"]
            # What each side was made of, one at a time, before both stand in one line.
            last += [f"{side.text}={side.value}" for side in sides[1:] if side.rank < 3]
            last.append(f"{whole.text}={target}")
            return Thought([*lines, ",".join(goals) + " yes", *last], whole)
    return Thought([*lines, ",".join(goals)], None)


def _values(a: Term, b: Term, limit: int) -> tuple[list[Term], str]:
    """What two terms make, and how it is written: `7+3=10,7-3=4,7*3=21,7/3 no`."""
    big, small = (a, b) if a.value >= b.value else (b, a)
    made = {operator: combine(operator, big, small, limit) for operator in "+-*/"}
    shown = [_shown(big.value, operator, small.value, term.value if term else 0) for operator, term in made.items()]
    return [term for term in made.values() if term], ",".join(shown)


def _shown(a: int, operator: str, b: int, result: int) -> str:
    return f"{a}{operator}{b}={result}" if result else f"{a}{operator}{b} no"


def _goal(operator: str, target: int, value: int, limit: int) -> tuple[str, int]:
    """What must be made beside `value` for the target, and the line that says it; 0 where nothing can."""
    a, b = (value, target) if operator == ":" or (operator == "-" and value > target) else (target, value)
    sign = "/" if operator == ":" else operator
    made = combine(sign, Term(a, "", 3), Term(b, "", 3), limit)
    goal = made.value if made is not None else 0
    return _shown(a, sign, b, goal), goal


def _sides(operator: str, target: int, made: Term, other: Term) -> tuple[str, Term, Term]:
    """The operation that undoes the goal: its sign and what stands on both sides of it."""
    match operator:
        case "-" if other.value > target:
            return "-", other, made
        case ":":
            return "/", other, made
        case _:
            return {"-": "+", "/": "*", "+": "-", "*": "/"}[operator], made, other


def _joined(operator: str, target: int, made: Term, other: Term, limit: int) -> Term | None:
    sign, left, right = _sides(operator, target, made, other)
    return combine(sign, left, right, limit)
