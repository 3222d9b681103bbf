"""Euclid's algorithm written out: `gcd 84 36`, `36:1 72:2 108:3`, `84-72=12`, then `gcd 36 12`, and so on.

The one way the families find a greatest common divisor. Knows nothing of problems.
"""

from __future__ import annotations

from magister.tasks import digits
from magister.tasks.arithmetic_division import exact_divide, long_divide, multiples


def gcd(a: int, b: int) -> digits.Work:
    """The greatest common divisor of two non-negative integers, one line `gcd a b` a round."""
    lines = []
    while b > 1:
        lines.append(f"gcd {a} {b}")
        if a < b:
            a, b = b, a
            continue
        work = _rest(a, b)
        lines.append(work.text)
        a, b = b, work.result
    if b == 1:
        return digits.Work("\n".join([*lines, f"gcd {a} 1=1"]), 1)
    return digits.Work("\n".join([*lines, f"gcd {a} 0={a}"]), a)


def lcm(a: int, b: int) -> digits.Work:
    """The least common multiple of two positive integers: a over their gcd, times b."""
    common = gcd(a, b)
    lines = [common.text]
    if common.result > 1:
        lines.append(share(a, common.result).text)
    whole = digits.multiply(b, a // common.result)
    return digits.Work("\n".join([*lines, whole.text, f"lcm {a} {b}={whole.result}"]), whole.result)


def reduce(top: int, bottom: int) -> tuple[str, int, int]:
    """The lines that bring a fraction with positive bottom to lowest terms; its new top and bottom."""
    common = gcd(bottom, abs(top))
    if common.result == 1:
        return common.text, top, bottom
    above, below = share(top, common.result), share(bottom, common.result)
    return f"{common.text}\n{above.text}\n{below.text}", above.result, below.result


def share(a: int, b: int) -> digits.Work:
    """a / b for a multiple a of a positive b; a number over itself is a fact."""
    return digits.Work(f"{a}/{b}=1", 1) if a == b else exact_divide(a, b)


def _rest(a: int, b: int) -> digits.Work:
    """What is left of a when b is taken from it: as often as fits, a two-digit number of times only in tens.

    The units of those are left to further rounds: a line takes one digit of a quotient at a time. How often it fits
    is read off the multiples, which are listed up to the first that is not below a.
    """
    times = a // b
    if times > 99:
        return digits.Work(long_divide(a, b).text, a % b)
    scale = 10 if times > 9 else 1
    part = b * (times - times % scale)
    rest = digits.Work(f"{a}-{a}=0", 0) if part == a else digits.subtract(a, part)
    if b > 9:
        listed, _ = multiples(b, a, range(scale, 10 * scale, scale))
        return digits.Work(f"{listed}\n{rest.text}", rest.result)
    return rest if times == 1 else digits.Work(f"{b}*{part // b}={part}\n{rest.text}", rest.result)
