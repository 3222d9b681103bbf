"""Division written out for integers of any sign, with the multiples of long divisors listed first.

Adds to `digits.divide` what a divisor past the tables needs. Knows nothing of problems.
"""

from __future__ import annotations

from magister.tasks import digits

_TABLE = 12
"""Up to this divisor the multiples are known facts."""


def long_divide(a: int, b: int) -> digits.Work:
    """a // b of non-negative a by positive b; past the tables by the multiples of b, listed before the digits.

    The list `47:1 94:2 ...` ends with the first that is not below a, which the line above it says. Where that is a
    itself its place is the quotient; else each digit quotes from the list the multiple it stands for,
    `312: 282:6|6`, and takes it off the rest.

    Raises `ValueError` where `digits.divide` does.
    """
    work = digits.divide(a, b)
    if b <= _TABLE or a < b:
        return work
    listed, values = multiples(b, a)
    if values[-1] == a:
        return digits.Work(f"{a}/{b}:\n{listed}\n{a}/{b}={work.result}", work.result)
    lines = [f"{a}/{b}:", listed]
    for rest, times, done in digits.division_steps(a, b):
        taken = values[times - 1] if times else 0
        lines.append(f"{rest}: {taken}:{times}|{done}")
        if taken == rest:
            lines.append(f"{rest}-{rest}=0")
        elif taken:
            lines.append(digits.subtract(rest, taken).text)
    left = a - b * work.result
    lines.append(f"{a}/{b}={work.result}" + (f" remainder {left}" if left else ""))
    return digits.Work("\n".join(lines), work.result)


def multiples(b: int, a: int, counts: range = range(1, 10)) -> tuple[str, list[int]]:
    """`47:1 94:2 ...` up to the first that is not below a, and the values.

    How often stands after the value: who has found a value by its size reads on to it.
    """
    values = [count * b for count in counts if (count - counts.step) * b < a]
    return " ".join(f"{value}:{count}" for count, value in zip(counts, values, strict=False)), values


def exact_divide(a: int, b: int) -> digits.Work:
    """a / b for integers that divide exactly, signs added after the division of the sizes.

    Raises `ValueError` where b does not divide a.
    """
    if b == 0 or a % b:
        raise ValueError(f"an exact division takes a multiple of b, got a = {a} and b = {b}")
    work = long_divide(abs(a), abs(b))
    if a >= 0 and b > 0:
        return work
    return digits.Work(f"{work.text}\n{digits.bracketed(a)}/{digits.bracketed(b)}={a // b}", a // b)
