"""Euclid's algorithm written out: `gcd 84 36`, what is left of 84 after 36, `gcd 36 12`, and so on.

The one way the families find a greatest common divisor. Knows nothing of problems.
"""

from __future__ import annotations

from magister.tasks import digits
from magister.tasks.arithmetic_division import exact_divide

_TABLE = 12


def gcd(a: int, b: int) -> digits.Work:
    """The greatest common divisor of two non-negative integers, one line `gcd a b` a round."""
    lines = []
    if a < b:
        lines.append(f"gcd {a} {b}")
        a, b = b, a
    while b > 1:
        lines += [f"gcd {a} {b}", _rest(a, b)]
        a, b = b, a % b
    if b == 1:
        return digits.Work("\n".join([*lines, f"gcd {a} 1=1"]), 1)
    return digits.Work("\n".join([*lines, f"gcd {a} 0={a}"]), a)


def lcm(a: int, b: int) -> digits.Work:
    """The least common multiple of two positive integers: a over their gcd, times b."""
    common = gcd(a, b)
    share = exact_divide(a, common.result)
    whole = digits.multiply(b, share.result)
    lines = [common.text]
    if common.result > 1:
        lines.append(share.text)
    return digits.Work("\n".join([*lines, whole.text, f"lcm {a} {b}={whole.result}"]), whole.result)


def reduce(top: int, bottom: int) -> tuple[str, int, int]:
    """The lines that bring a fraction with positive bottom to lowest terms; its new top and bottom."""
    common = gcd(abs(top), bottom)
    if common.result == 1:
        return common.text, top, bottom
    above, below = exact_divide(top, common.result), exact_divide(bottom, common.result)
    return f"{common.text}\n{above.text}\n{below.text}", above.result, below.result


def _rest(a: int, b: int) -> str:
    times = a // b
    if times == 1:
        return digits.subtract(a, b).text if a != b else f"{a}-{b}=0"
    if times >= 10:
        return digits.divide(a, b).text
    if b <= _TABLE:
        return f"{a}-{times}*{b}={a % b}"
    part = digits.multiply(b, times)
    rest = f"{a}-{a}=0" if part.result == a else digits.subtract(a, part.result).text
    return f"{part.text}\n{rest}"
