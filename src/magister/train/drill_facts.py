"""The small facts of arithmetic that thoughts state at once, written as they write them.

Each is what is asked and what is told. Knows nothing of tokens. No held-out sum, difference, product or quotient is
asked, but for digits by themselves, which every long computation is made of.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from typing import NamedTuple

from magister.tasks import arithmetic_expr, digits, is_held_out, numbers_euclid
from magister.tasks.arithmetic_division import multiples
from magister.tasks.numbers_primes import PRIMES


class Fact(NamedTuple):
    """Both sides of an equation, or of what is decided at a look."""

    asked: str
    told: str


def fact(rng: random.Random) -> Fact:
    """One fact of a kind at random."""
    return rng.choice(_KINDS)(rng)


def _add(rng: random.Random) -> Fact:
    a, b = _pair(rng, "add")
    return Fact(f"{a}+{b}=", f"{a + b}")


def _subtract(rng: random.Random) -> Fact:
    a, b = _pair(rng, "sub")
    return Fact(f"{a}-{b}=", f"{a - b}")


def _pair(rng: random.Random, kind: str) -> tuple[int, int]:
    while True:
        a, b = rng.randint(0, 99), rng.randint(0, 99)
        if not is_held_out("arithmetic", kind, (a, b)):
            return a, b


def _column(rng: random.Random) -> Fact:
    """A column of a product."""
    a, b = rng.randint(0, 9), rng.randint(2, 9)
    carry = rng.randrange(b)
    return Fact(f"{a}*{b}+{carry}=" if carry else f"{a}*{b}=", f"{a * b + carry}")


def _borrow(rng: random.Random) -> Fact:
    """A column of a difference."""
    top, bottom, borrow = rng.randint(0, 9), rng.randint(0, 9), rng.randint(0, 1)
    value = top - bottom - borrow
    return Fact(f"{top}-{bottom}" + ("-1" if borrow else "") + ("+10=" if value < 0 else "="), f"{value % 10}")


def _digit(rng: random.Random) -> Fact:
    """A step of a long division; its digit is found at once, so the fact begins before it."""
    while True:
        b = rng.randint(2, 12)
        rest = rng.randint(0, 10 * b - 1)
        if not _kept_apart(rest, b):
            return Fact(f"{rest}/{b}:\n", f"{rest}-{rest // b}*{b}={rest % b}")


def _rest(rng: random.Random) -> Fact:
    """What a step of a long division leaves over."""
    while True:
        b = rng.randint(2, 31)
        times, rest = rng.randint(0, 9), rng.randrange(b)
        if not _kept_apart(times * b + rest, b):
            return Fact(f"{times * b + rest}-{times}*{b}=", f"{rest}")


def _kept_apart(a: int, b: int) -> bool:
    """Whether a division with or without a rest is held out."""
    return any(is_held_out("arithmetic", kind, (a, b)) for kind in ("div", "remainder"))


def _quotient(rng: random.Random) -> Fact:
    """A quotient of the tables, with its rest where it has one."""
    while True:
        b = rng.randint(2, 10)
        a = rng.randint(b, 100)
        if not _kept_apart(a, b):
            asked, sign, told = digits.stated_quotient(a, b).partition("=")
            return Fact(asked + sign, told)


def _by_three(rng: random.Random) -> Fact:
    """Whether the sum of a number's digits is a multiple of three."""
    number = rng.randint(10, 9999)
    total = sum(map(int, str(number)))
    return Fact(f"by 3: {'+'.join(str(number))}=", f"{total}, {'no' if total % 3 else 'yes'}")


def _at_once(rng: random.Random) -> Fact:
    """A sum, difference or product of up to three digits, as countdown has it."""
    while True:
        sign = rng.choice("-+*")
        a, b = rng.randint(1, 250), rng.randint(1, 250)
        if sign == "*":
            b = rng.randint(2, max(2, 250 // a))
        a, b = max(a, b), min(a, b)
        if not is_held_out("arithmetic", _NAMES[sign], (a, b)):
            value = {"-": a - b, "+": a + b, "*": a * b}[sign]
            return Fact(f"{a}{sign}{b}=", f"{value}")


def _copy(rng: random.Random) -> Fact:
    """A number once more, its digits in runs: of four noughts none shows by itself how many are left."""
    digits_of, runs = rng.choice((("0000123456789", (1, 1, 2, 3, 4, 5)), ("01", (1, 1, 2, 3))))
    written = "".join(rng.choice(digits_of) * rng.choice(runs) for _ in range(rng.randint(1, 4)))
    number = written.lstrip("0")[:9] or "10000"
    return Fact(f"{rng.choice(('', '=', '|', '*'))}{number}\n", number)


def _listed(rng: random.Random) -> Fact:
    """Numbers as people list them, and as thoughts do; none is left out, and none comes twice that did not."""
    numbers = [rng.randint(1, rng.choice((9, 30, 99, 999))) for _ in range(rng.randint(2, 6))]
    between, last = rng.choice(_LISTS)
    asked = between.join(map(str, numbers[:-1])) + (last or between) + str(numbers[-1])
    return Fact(f"{asked}\n", ",".join(map(str, numbers)))


def _days_left(rng: random.Random) -> Fact:
    """Whether the days to go lie within a month, going back and going on."""
    length = rng.choice((28, 29, 30, 30, 31, 31, rng.randint(1, 31)))
    left = max(0, length + rng.choice((0, rng.randint(-3, 3), rng.randint(-31, 31))))
    if rng.random() < 0.5:
        return Fact(f"before -{left}, {length}\n", f"{left}{'>=' if left >= length else '<'}{length}")
    return Fact(f"after +{left}, {length}\n", f"{left}{'>' if left > length else '<='}{length}")


def _whole(rng: random.Random) -> Fact:
    """A quotient, or none that is whole, as countdown has it; as often the one as the other."""
    while True:
        b = rng.randint(2, 50)
        a = b * rng.randint(1, max(1, 200 // b)) if rng.random() < 0.5 else rng.randint(1, 200)
        if not _kept_apart(a, b):
            return Fact(f"{a}/{b}", f"={a // b}" if a % b == 0 else " no")


def _multiples(rng: random.Random) -> Fact:
    """The multiples of a divisor past the tables, up to the first that is not below the dividend; the one taken."""
    while True:
        b = rng.choice((rng.randint(13, 99), rng.randint(100, 999)))
        times = rng.randint(1, 9)
        a = b * times + rng.choice((0, rng.randrange(b)))
        if not _kept_apart(a, b):
            after = f"{a}/{b}={times}" if a == times * b else f"{a}: {times * b}:{times}"
            return Fact(f"{a}/{b}:\n", f"{multiples(b, a)[0]}\n{after}")


def picks(rng: random.Random) -> list[Fact]:
    """The nine multiples of one divisor past the tables, given, and for one rest after the other the one taken."""
    b, rests = 0, list[int]()
    while not rests:  # Of some divisors every quotient is held out.
        b = rng.choice((rng.randint(13, 99), rng.randint(13, 99), rng.randint(100, 999)))
        # A third of them multiples: of numbers at random hardly one leaves nothing.
        drawn = [
            rng.choice((rng.randrange(10 * b), rng.randrange(10 * b), b * rng.randint(0, 9))) for _ in range(_PICKS)
        ]
        rests = [rest for rest in drawn if not _kept_apart(rest, b)]
    most = 10 * b - 1
    given = "" if _kept_apart(most, b) else f"{most}/{b}:\n"
    asked = [f"{given}{multiples(b, most)[0]}\n{rests[0]}:", *(f"{rest}:" for rest in rests[1:])]
    return [Fact(one, f" {rest // b * b}:{rest // b}") for one, rest in zip(asked, rests, strict=True)]


def _sign(rng: random.Random) -> Fact:
    """Whether a difference of long numbers, often of nearly equal ones, is worked out as it stands or turned round."""
    size = 10 ** rng.randint(2, 4)
    apart = rng.choice((9, size // 2))
    while True:
        a = rng.randrange(size, 10 * size)
        b = max(100, a + rng.randint(-apart, apart))
        if not (is_held_out("arithmetic", "sub", (a, b)) or is_held_out("arithmetic", "sub", (b, a))):
            return Fact(f"{a}-{b}", ":" if a >= b else f"=-({b}-{a})")


def _negative(rng: random.Random) -> Fact:
    """A small difference at once where a number is negative, or an hour before midnight."""
    while True:
        a, b = rng.randint(-60, 60), -rng.randint(1, 60)
        if rng.random() < 0.25:
            hours = rng.randint(1, 23)
            return Fact(f"-{hours}+24=", f"{24 - hours}")
        if not is_held_out("arithmetic", "sub", (a, b)):
            return Fact(f"{a}-({b})=", f"{a - b}")


def _factors(rng: random.Random) -> Fact:
    """A product in which one factor has been split: the others stay as they stand."""
    while True:
        found = sorted(rng.choices(PRIMES[:5], k=rng.randint(1, 3)))
        prime = found[-1]
        rest = rng.choice([one for one in PRIMES if one >= prime])
        number = math.prod(found) * prime * rest
        if number <= _LARGEST and not (is_held_out("numbers", "factor", (number,)) or _kept_apart(prime * rest, prime)):
            before, after = ("*".join(map(str, factors)) for factors in ([*found, prime * rest], [*found, prime, rest]))
            return Fact(f"{number}={before}\n{prime * rest}/{prime}={rest}\n{number}=", after)


def _euclid(rng: random.Random) -> Fact:
    """What a round of Euclid's algorithm takes off: the multiples up to the first that is not below."""
    while True:
        b = rng.choice((rng.randint(10, 99), rng.randint(100, 999)))
        a = b * rng.randint(1, rng.choice((9, 9, 40))) + rng.choice((0, rng.randrange(b)))
        held_out = any(is_held_out("numbers", kind, pair) for kind in ("gcd", "lcm") for pair in ((a, b), (b, a)))
        if a > b and not held_out and not _kept_apart(a, b):
            head, listed, taken, *_ = numbers_euclid.gcd(a, b).text.split("\n")
            return Fact(f"{head}\n", f"{listed}\n{taken.split('=')[0].rstrip(':')}")


def _expression(rng: random.Random) -> Fact:
    """An expression as somebody wrote it, and as thoughts do; or what is left of one after its first operation."""
    while True:
        tree = arithmetic_expr.build(rng, rng.randint(2, 4), (1, 1, 2))
        if is_held_out("arithmetic", "expr", arithmetic_expr.tokens(tree)):
            continue
        if rng.random() < 0.5:
            written = arithmetic_expr.write(tree, arithmetic_expr.random_style(rng))
            return Fact(f"{written}\n", arithmetic_expr.write(tree))
        if (left := _left(tree, _SHORT)) is not None:
            return left


def _reduced(rng: random.Random) -> Fact:
    """What is left of an expression past all the lines that its next operation takes; or which operation that is."""
    while True:
        tree: arithmetic_expr.Tree = arithmetic_expr.build(rng, rng.randint(2, 4), (1, 2, 2, 3))
        if rng.random() < 0.5 and isinstance(tree, arithmetic_expr.Operation):
            tree, _ = arithmetic_expr.step(tree)
        if isinstance(tree, int) or is_held_out("arithmetic", "expr", arithmetic_expr.tokens(tree)):
            continue
        left = _left(tree, _LONG)
        if left is None:
            continue
        if rng.random() >= 0.3:
            return left
        plain, work = left.asked.split("\n", 1)
        begun = re.match(r"[^:=]+[:=]", work)
        assert begun is not None
        return Fact(f"{plain}\n", begun.group())


def _left(tree: arithmetic_expr.Operation, most: int) -> Fact | None:
    """What is left of an expression after its next operation; None where that is a number, or its work has more than
    `most` characters or a held-out line.
    """
    after, work = arithmetic_expr.step(tree)
    if isinstance(after, int) or len(work) > most or _states_held_out(work):
        return None
    return Fact(f"{arithmetic_expr.write(tree)}\n{work}\n", arithmetic_expr.write(after))


def _states_held_out(work: str) -> bool:
    """Whether a line of `work` is a held-out sum, difference, product or quotient."""
    stated = re.findall(r"^(\d+)([-+*/])(\d+)=", work, flags=re.MULTILINE)
    return any(is_held_out("arithmetic", _NAMES[sign], (int(a), int(b))) for a, sign, b in stated)


_LISTS = (
    (", ", " and "),
    (", ", ""),
    (" ", ""),
    (",", ""),
    ("; ", ""),
    (", ", ", and "),
    (" and ", ""),
    (" & ", ""),
)
"""What stands between numbers, and before the last where that is something else."""

_PICKS = 6
"""Rests of one divisor in a drill."""

_NAMES = {"+": "add", "-": "sub", "*": "mul", "/": "div"}

_LARGEST = 9999
"""Of products that are split into factors."""

_SHORT = 24
"""Characters of an operation's work up to which an expression is drilled with it."""
_LONG = 160
"""The same where what is learned is to find back over the work."""

_KINDS: tuple[Callable[[random.Random], Fact], ...] = (
    _add, _add, _subtract, _subtract, _column, _borrow, _digit, _rest, _rest, _whole, _whole, _whole, _multiples,
    _multiples, _sign, _sign, _sign, _expression, _expression, _expression, _reduced, _reduced, _reduced, _reduced,
    _quotient, _by_three, _by_three, _at_once, _at_once, _at_once, _copy, _copy, _listed, _listed, _negative, _factors,
    _euclid, _days_left, _days_left,
)  # fmt: skip
