"""Checks that the tests of all task families share: true equations, sound books, repeatable problems."""

from __future__ import annotations

import ast
import random
import re
import string
from collections.abc import Callable, Iterator
from fractions import Fraction

from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import Problem

MOST_CHARACTERS = 900
"""A thought is at most this long."""

_CHOICE = re.compile(r"\[\[([^\[\]]*)\]\]")
_PLAIN = re.compile(r"[\d+\-*/() ]*\d[\d+\-*/() ]*")
_REMAINDER = re.compile(r"(\d+)/(\d+)=(\d+) remainder (\d+)")


def evaluate(text: str) -> Fraction:
    """The exact value of an expression of integers with + - * / and brackets."""
    return _value(ast.parse(text.strip(), mode="eval").body)


def retells(problem: Problem) -> None:
    """Fails unless the sentences that the thought says again stand in the prompt, in this order.

    The first may be the question, which ends the prompt. Blanks are included: a sentence has one before it wherever it
    has one in the prompt, so that its tokens are the same in both places.
    """
    quoted = [line[1:].split(": ") for line in problem.thinking.splitlines() if line.startswith(">")]
    at = 0
    for place, parts in enumerate(quoted):
        heads = [": ".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]
        if place == 0 and problem.prompt.rstrip(".?").endswith(heads[0]):
            continue
        said = next(head for head in heads if head in problem.prompt[at:])
        start = problem.prompt.index(said, at)
        assert said.startswith(" ") or start == 0, problem
        at = start + len(said)


def wrong_equations(thinking: str) -> list[str]:
    """The lines that claim an equation (or `>`) of plain integers that is not true."""
    wrong = []
    for line in thinking.splitlines():
        shown = line.split("|")[0]
        division = _REMAINDER.fullmatch(shown)
        if division:
            a, b, quotient, rest = map(int, division.groups())
            if a != b * quotient + rest or rest >= b:
                wrong.append(line)
        elif not line.endswith(":") and "=" in shown and not _holds(shown):
            wrong.append(line)
    return wrong


def expansions(template: str) -> Iterator[str]:
    """Every text a template can become, its slots still open."""
    match = _CHOICE.search(template)
    if match is None:
        yield template
        return
    for choice in match.group(1).split("|"):
        yield from expansions(template[: match.start()] + choice + template[match.end() :])


def bad_templates(
    book: Phrasebook, slots: dict[str, set[str]], optional: dict[str, set[str]] | None = None
) -> list[str]:
    """What is wrong with the templates of a book: a kind missing, a slot missing, doubled or unknown, odd spaces."""
    bad = [f"kind {kind}" for kind in slots if kind not in book.kinds]
    for kind in book.kinds:
        free = (optional or {}).get(kind, set())
        for template in book.kinds[kind]:
            for text in expansions(template):
                named = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
                fits = len(named) == len(set(named)) and set(named) - free == slots.get(kind, set()) - free
                if not fits or "  " in text or text != text.strip() or "[[" in text:
                    bad.append(f"{kind}: {text}")
    return bad


def is_repeatable(generate: Callable[[random.Random], Problem]) -> bool:
    """Whether the same seed gives the same problems."""
    return all(generate(random.Random(seed)) == generate(random.Random(seed)) for seed in range(50))


def _holds(line: str) -> bool:
    left, _, right = line.partition(">")
    parts = left.split("=")
    if not all(_PLAIN.fullmatch(part) for part in parts):
        return True
    values = [evaluate(part) for part in parts]
    above = not _PLAIN.fullmatch(right) or values[-1] > evaluate(right)
    return above and all(value == values[0] for value in values)


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if not isinstance(node, ast.BinOp):
        raise ValueError(f"not plain arithmetic: {ast.dump(node)}")
    left, right = _value(node.left), _value(node.right)
    match node.op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            return left / right
    raise ValueError(f"not plain arithmetic: {ast.dump(node)}")
