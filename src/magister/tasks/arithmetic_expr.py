"""Expressions of integers with + - * / and brackets: built at random, written, worked out step by step.

Every division is exact. Knows nothing of prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from magister.tasks import digits
from magister.tasks.arithmetic_division import exact_divide

_RANK = {"+": 1, "-": 1, "*": 2, "/": 2}
_TRIES = 40


@dataclass(frozen=True, slots=True)
class Operation:
    """Two expressions joined by `+`, `-`, `*` or `/`."""

    sign: str
    left: Tree
    right: Tree


Tree = Operation | int
Compute = Callable[[int, int], digits.Work]
"""Two numbers worked on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How an expression is written in a prompt."""

    gap: str = ""
    """What stands on both sides of a sign."""
    times: str = "*"
    over: str = "/"
    minus: str = "-"
    bare: bool = False
    """Whether `3*(4+5)` is written `3(4+5)`."""


PLAIN = Style()


def random_style(rng: random.Random) -> Style:
    """A way people write expressions."""
    gap = rng.choice(("", " ", " "))
    times = rng.choice(("*", "*", "×", "·", "x")) if gap else rng.choice(("*", "*", "×", "·"))
    minus = "-" if rng.random() < 0.93 else "−"
    return Style(gap=gap, times=times, over=rng.choice(("/", "/", "÷")), minus=minus, bare=rng.random() < 0.15)


def build(rng: random.Random, operations: int, sizes: tuple[int, ...], most: int = 9999, largest: int = 0) -> Operation:
    """An expression with that many operations, numbers of `sizes` digits, values within +-most.

    Its largest number is at least `largest`; a plain sum where the draws do not give one.
    """
    for _ in range(_TRIES):
        tree, _value = _grow(rng, operations, sizes, most)
        if not isinstance(tree, Operation) or max(map(abs, values(tree))) > most:
            continue
        if max(part for part in tokens(tree) if isinstance(part, int)) >= largest:
            return tree
    tree = max(largest, rng.randint(2, 9))
    for _ in range(operations):
        tree = Operation("+", tree, rng.randint(2, 9))
    assert isinstance(tree, Operation)
    return tree


def value(tree: Tree) -> int:
    """What the expression is worth."""
    if isinstance(tree, int):
        return tree
    return _apply(tree.sign, value(tree.left), value(tree.right))


def values(tree: Tree) -> list[int]:
    """The value of every part of the expression, numbers included."""
    if isinstance(tree, int):
        return [tree]
    return [*values(tree.left), *values(tree.right), value(tree)]


def tokens(tree: Tree) -> tuple[int | str, ...]:
    """The expression as numbers, signs and brackets, in reading order."""
    if isinstance(tree, int):
        return (tree,)
    left, right = tokens(tree.left), tokens(tree.right)
    left = ("(", *left, ")") if _bracketed(tree, left=True) else left
    right = ("(", *right, ")") if _bracketed(tree, left=False) else right
    return (*left, tree.sign, *right)


def write(tree: Tree, style: Style = PLAIN) -> str:
    """The expression as text; a negative number inside it stands in brackets."""
    parts = tokens(tree)
    bare = style.bare and "/" not in parts
    signs = {"*": style.times, "/": style.over, "+": "+", "-": style.minus}
    written = ""
    for place, part in enumerate(parts):
        if isinstance(part, int):
            inner = place > 0 and parts[place - 1] != "("
            written += f"({part})" if part < 0 and inner else str(part)
        elif part == "*" and bare and parts[place + 1] == "(" and isinstance(parts[place - 1], int):
            continue
        else:
            written += f"{style.gap}{signs[part]}{style.gap}" if part in signs else part
    return written


def work_out(tree: Tree, divide: Compute = exact_divide) -> str:
    """The lines that work the expression out: one ready operation, then the whole of it again."""
    lines = []
    while isinstance(tree, Operation):
        lines.append(write(tree))
        tree, text = step(tree, divide)
        lines.append(text)
    return "\n".join(lines)


def step(tree: Operation, divide: Compute = exact_divide) -> tuple[Tree, str]:
    """The expression after its first ready operation, from the left, and how that is worked out."""
    if isinstance(tree.left, Operation):
        done, text = step(tree.left, divide)
        return Operation(tree.sign, done, tree.right), text
    if isinstance(tree.right, Operation):
        done, text = step(tree.right, divide)
        return Operation(tree.sign, tree.left, done), text
    compute = {"+": digits.add, "-": digits.subtract, "*": digits.multiply, "/": divide}
    work = compute[tree.sign](tree.left, tree.right)
    return work.result, work.text


def _grow(rng: random.Random, operations: int, sizes: tuple[int, ...], most: int) -> tuple[Tree, int]:
    if operations == 0:
        size = rng.choice(sizes)
        number = rng.randint(2 if size == 1 else 10 ** (size - 1), 10**size - 1)
        return number, number
    share = operations - 1 if rng.random() < 0.4 else rng.randint(0, operations - 1)
    left, x = _grow(rng, share, sizes, most)
    right, y = _grow(rng, operations - 1 - share, sizes, most)
    sign = rng.choices("+-*/", (28, 25, 30, 17))[0]
    if sign == "/":
        pair = _divisible(rng, left, x, right, y)
        if pair is not None:
            tree = Operation("/", *pair)
            return tree, value(tree)
        sign = "-"
    if sign == "*" and abs(x * y) > most:
        sign = "+"
    if sign in "+*" and isinstance(right, Operation) and _RANK[right.sign] == _RANK[sign]:
        left, right = right, left  # 5+(2+3) is asked as 2+3+5
    return Operation(sign, left, right), _apply(sign, x, y)


def _divisible(rng: random.Random, left: Tree, x: int, right: Tree, y: int) -> tuple[Tree, Tree] | None:
    """The two sides with a plain number changed so that the division is exact, where one can be."""
    if isinstance(left, int):
        divisor = rng.randint(2, 12) if isinstance(right, int) else y
        if not 2 <= divisor <= 80:
            return None
        return divisor * rng.randint(2, 12), (divisor if isinstance(right, int) else right)
    divisors = [number for number in range(2, 13) if x % number == 0]
    if x == 0 or not divisors or not isinstance(right, int):
        return None
    return left, rng.choice(divisors)


def _apply(sign: str, x: int, y: int) -> int:
    if sign == "/":
        return x // y
    return x + y if sign == "+" else x - y if sign == "-" else x * y


def _bracketed(tree: Operation, *, left: bool) -> bool:
    part = tree.left if left else tree.right
    if isinstance(part, int):
        return False
    return _RANK[part.sign] < _RANK[tree.sign] or (not left and _RANK[part.sign] == _RANK[tree.sign])
