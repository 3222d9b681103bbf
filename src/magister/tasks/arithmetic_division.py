"""Division written out for integers of any sign, with the multiples of long divisors listed first.

Adds to `digits.divide` what a divisor past the tables needs. Knows nothing of problems.
"""

from __future__ import annotations

from magister.tasks import digits

_TABLE = 12
"""Up to this divisor the multiples are known facts."""


def long_divide(a: int, b: int) -> digits.Work:
    """a // b of non-negative a by positive b; past the tables `1:47 2:94 ...` up to a comes first.

    Where the list ends in a itself its place is the quotient, and no digits are worked out.

    Raises `ValueError` where `digits.divide` does.
    """
    work = digits.divide(a, b)
    if b <= _TABLE or a < b:
        return work
    multiples = " ".join(f"{times}:{times * b}" for times in range(1, 10) if times * b <= a)
    if work.result < 10 and work.result * b == a:
        return digits.Work(f"{multiples}\n{a}/{b}={work.result}", work.result)
    return digits.Work(f"{multiples}\n{work.text}", work.result)


def exact_divide(a: int, b: int) -> digits.Work:
    """a / b for integers that divide exactly, signs added after the division of the sizes.

    Raises `ValueError` where b does not divide a.
    """
    if b == 0 or a % b:
        raise ValueError(f"an exact division takes a multiple of b, got a = {a} and b = {b}")
    work = long_divide(abs(a), abs(b))
    if a >= 0 and b > 0:
        return work
    return digits.Work(f"{work.text}\n{_term(a)}/{_term(b)}={a // b}", a // b)


def _term(number: int) -> str:
    return f"({number})" if number < 0 else str(number)
