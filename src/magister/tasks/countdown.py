"""Reaching a target with every given number exactly once and + - * /.

The thought tries all orders (`countdown_think`); another search (`countdown_search`) says which problems are short
enough to ask. Expressions are read exactly, by a small parser. Knows nothing of the closest miss: every problem has
a solution.
"""

from __future__ import annotations

import random
import re
from fractions import Fraction

from magister.answers import extract
from magister.tasks.countdown_search import Term, combine, number, search, state_of
from magister.tasks.countdown_think import think
from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import BEYOND, Problem, state

NAME = "countdown"
LEVELS = 4

_LARGE = (25, 50, 75, 100)
_LARGE_SHARE = 0.15
_TRIES = 200
_MOST_SEARCHED = 700
_MOST_THOUGHT = 820
_MOST_EXPRESSION = 200
_TOKEN = re.compile(r"\d+|[-+*/()]")


def generate(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    """Numbers and a target made from them; the search shown finds one way."""
    if not BEYOND <= level <= LEVELS:
        raise ValueError(f"{NAME} has levels 1 to {LEVELS} and BEYOND, got {level}")
    numbers, target, thinking, solution = _draw(rng, level)
    answer = re.sub(r"([-+*/])", r" \1 ", solution)
    return Problem(
        family=NAME,
        kind="reach",
        level=level,
        operands=(*numbers, target),
        prompt=book.phrase(rng, "reach", numbers=", ".join(map(str, numbers)), target=target),
        thinking=thinking,
        answer=answer,
        reply=state(answer, beyond=level == BEYOND),
    )


def grade(problem: Problem, reply: str) -> bool:
    """Whether the reply gives an expression of the target that uses every number exactly once."""
    *numbers, target = (int(operand) for operand in problem.operands)
    text = extract(reply).strip().rstrip(".").strip("`$ ")
    for sign, plain in (("×", "*"), ("·", "*"), ("÷", "/"), ("−", "-"), ("x", "*"), ("\\times", "*"), ("\\div", "/")):
        text = text.replace(sign, plain)
    text, *stated = text.split("=")
    if stated and [part.strip() for part in stated] != [str(target)]:
        return False
    tokens = _TOKEN.findall(text)
    if len(text) > _MOST_EXPRESSION or "".join(tokens) != re.sub(r"\s+", "", text) or re.search(r"\d\s+\d", text):
        return False
    if sorted(int(token) for token in tokens if token.isdigit()) != sorted(numbers):
        return False
    value = _Reader(tokens).read()
    return value is not None and value == target


class _Reader:
    """Sums of products of numbers and brackets, exact; no signs before a number."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def read(self) -> Fraction | None:
        """The value, None where the tokens are no expression or divide by zero."""
        try:
            value = self._sum()
        except (ValueError, ZeroDivisionError):
            return None
        return value if self._at == len(self._tokens) else None

    def _take(self, wanted: str) -> str:
        """The next token if it is one of the characters of `wanted`, else nothing."""
        if self._at < len(self._tokens) and self._tokens[self._at] in wanted:
            self._at += 1
            return self._tokens[self._at - 1]
        return ""

    def _sum(self) -> Fraction:
        value = self._product()
        while sign := self._take("+-"):
            term = self._product()
            value = value + term if sign == "+" else value - term
        return value

    def _product(self) -> Fraction:
        value = self._single()
        while sign := self._take("*/"):
            factor = self._single()
            value = value * factor if sign == "*" else value / factor
        return value

    def _single(self) -> Fraction:
        if self._take("("):
            value = self._sum()
            if not self._take(")"):
                raise ValueError("a bracket is left open")
            return value
        if self._at >= len(self._tokens) or not self._tokens[self._at].isdigit():
            raise ValueError("a number is missing")
        self._at += 1
        return Fraction(self._tokens[self._at - 1])


def _draw(rng: random.Random, level: int) -> tuple[list[int], int, str, str]:
    """Numbers, target, thought and solution; a plain sum where no try gives a short search."""
    limit = 999 if level == BEYOND else 200
    for _ in range(_TRIES):
        count = rng.randint(5, 6) if level == BEYOND else 3 if level <= 2 else 4
        numbers = [_number(rng, level) for _ in range(count)]
        made = _make(rng, [number(value) for value in numbers], 100 if level in (1, 3) else limit)
        if made is None:
            continue
        merges, target = made
        first = state_of([number(value) for value in numbers], target)
        steps, terms = merges[: max(0, count - 4)], [number(value) for value in numbers]
        lines = [first]
        for operator, i, j in steps:
            terms, line = _merge(terms, operator, i, j, target, limit)
            lines.append(line)
        found = search(rng, terms, target, limit)
        if found is None or len("\n".join([*lines, *found.lines])) > _MOST_SEARCHED:
            continue
        merged = "\n".join(lines).replace(": ", "\n")
        thinking, solution = _thought(terms, target, limit, found.term)
        return numbers, target, merged.removesuffix(state_of(terms, target)) + thinking, solution.text
    count = 5 if level == BEYOND else 3 if level <= 2 else 4
    numbers = [rng.randint(1, 10) for _ in range(count)]
    text = "+".join(map(str, numbers))
    return numbers, sum(numbers), f"{text}={sum(numbers)}", text


def _thought(terms: list[Term], target: int, limit: int, known: Term) -> tuple[str, Term]:
    """The thought and its solution, `known` where the orders give none or make the thought too long."""
    thought = think(terms, target, limit)
    thinking = "\n".join(thought.lines)
    if thought.term is not None and len(thinking) <= _MOST_THOUGHT:
        return thinking, thought.term
    tried = thinking if len(thinking) <= _MOST_THOUGHT else state_of(terms, target)
    return f"{tried}\n{known.text}={target}", known


def _number(rng: random.Random, level: int) -> int:
    if level in (1, 3):
        return rng.randint(1, 12)
    return rng.choice(_LARGE) if rng.random() < _LARGE_SHARE else rng.randint(1, 25)


def _make(rng: random.Random, terms: list[Term], limit: int) -> tuple[list[tuple[str, int, int]], int] | None:
    """Random merges of two terms until one is left: the merges and the target."""
    merges = []
    while len(terms) > 1:
        i, j = rng.sample(range(len(terms)), 2)
        if terms[i].value < terms[j].value:
            i, j = j, i
        operator = rng.choice("++-**/")
        made = combine(operator, terms[i], terms[j], limit)
        if made is None or (operator in "*/" and terms[j].value == 1):
            return None
        merges.append((operator, i, j))
        terms = [term for at, term in enumerate(terms) if at not in (i, j)] + [made]
    return merges, terms[0].value


def _merge(terms: list[Term], operator: str, i: int, j: int, target: int, limit: int) -> tuple[list[Term], str]:
    made = combine(operator, terms[i], terms[j], limit)
    if made is None:
        raise ValueError(f"{terms[i].value} {operator} {terms[j].value} is no step")
    left = [term for at, term in enumerate(terms) if at not in (i, j)] + [made]
    return left, f"{terms[i].value}{operator}{terms[j].value}={made.value}: {state_of(left, target)}"
