"""Division written out for integers of any sign, with the multiples of long divisors listed first.

Adds to `digits.divide` what a divisor past the tables needs. Knows nothing of problems.
"""

from __future__ import annotations

from magister.tasks import digits

_TABLE = 12
"""Up to this divisor the multiples are known facts."""


def long_divide(a: int, b: int) -> digits.Work:
    """a // b of non-negative a by positive b; past the tables by the multiples of b, which are listed first.

    The list `1:47 2:94 ...` ends with the first that is not below a. Where that is a itself its place is the quotient;
    else each digit takes the multiple it stands for off the rest, as every difference is worked out.

    Raises `ValueError` where `digits.divide` does.
    """
    work = digits.divide(a, b)
    if b <= _TABLE or a < b:
        return work
    multiples = [times * b for times in range(1, 10) if (times - 1) * b < a]
    lines = [" ".join(f"{times}:{value}" for times, value in enumerate(multiples, 1))]
    if multiples[-1] == a:
        return digits.Work("\n".join([*lines, f"{a}/{b}={work.result}"]), work.result)
    lines.append(f"{a}/{b}:")
    done, rest = "", 0
    for digit in str(a):
        rest = rest * 10 + int(digit)
        if not done and rest < b:
            continue
        times = rest // b
        done += str(times)
        taken = multiples[times - 1] if times else 0
        at_once = taken in (0, rest)
        lines.append((f"{rest}-{taken}={rest - taken}" if at_once else digits.subtract(rest, taken).text) + f"|{done}")
        rest -= taken
    lines.append(f"{a}/{b}={done}" + (f" remainder {rest}" if rest else ""))
    return digits.Work("\n".join(lines), work.result)


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
