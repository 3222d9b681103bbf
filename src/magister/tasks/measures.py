"""The measure by which operands are drawn again where a problem is long: a plain way to work it out.

It is not the way thoughts go. It stays as it is, so that a seed gives the same problem whatever form
thoughts take later. Knows nothing of problems.
"""

from __future__ import annotations

from math import gcd as greatest_common
from math import lcm as least_common

from magister.tasks import digits

_TABLE = 12

Row = tuple[int, int, int]


def quotient(a: int, b: int) -> str:
    """a / b by long division, the multiples of b before it past the tables."""
    size, of = abs(a), abs(b)
    text = digits.divide(size, of).text
    if of > _TABLE and size >= of:
        multiples = " ".join(f"{times}:{times * of}" for times in range(1, 10) if times * of <= size)
        short = size // of < 10 and size % of == 0
        text = f"{multiples}\n" + (f"{size}/{of}={size // of}" if short else text)
    if a >= 0 and b > 0:
        return text
    return f"{text}\n{digits.bracketed(a)}/{digits.bracketed(b)}={a // b}"


def gcd(a: int, b: int) -> str:
    """Euclid's algorithm by division with remainder."""
    lines = []
    if a < b:
        lines.append(f"gcd {a} {b}")
        a, b = b, a
    while b > 1:
        lines += [f"gcd {a} {b}", _remainder(a, b)]
        a, b = b, a % b
    return "\n".join([*lines, f"gcd {a} 1=1" if b == 1 else f"gcd {a} 0={a}"])


def lcm(a: int, b: int) -> str:
    """The least common multiple by the greatest common divisor."""
    common = greatest_common(a, b)
    lines = [gcd(a, b), *([quotient(a, common)] if common > 1 else [])]
    return "\n".join([*lines, digits.multiply(b, a // common).text, f"lcm {a} {b}={least_common(a, b)}"])


def reduce(top: int, bottom: int) -> str:
    """A fraction brought to lowest terms."""
    common = greatest_common(top, bottom)
    parts = [] if common == 1 else [quotient(top, common), quotient(bottom, common)]
    return "\n".join([gcd(abs(top), bottom), *parts])


def calculate(a: int, b: int, sign: str, c: int, d: int) -> str:
    """a/b and c/d joined by `sign`, over the least common bottom."""
    left, right = (str(top) if bottom == 1 else f"{top}/{bottom}" for top, bottom in ((a, b), (c, d)))
    whole = f"({left})/({right})" if sign == "/" else f"{left}{sign}{right}"
    lines = [whole]
    if 1 in (b, d):
        lines.append(f"({a}/{b})/({c}/{d})" if sign == "/" else f"{a}/{b}{sign}{c}/{d}")
    if sign in "*/":
        if sign == "/":
            c, d = d, c
            lines.append(f"{a}/{b}*{c}/{d}")
        lines += [digits.multiply(a, c).text, digits.multiply(b, d).text]
        above, below = a * c, b * d
    else:
        above, below = _common(lines, a, b, sign, c, d)
    lines.append(f"{above}/{below}")
    if above == 0:
        return "\n".join([*lines, f"{whole}=0"])
    if below > 1:
        lines.append(reduce(above, below))
    common = greatest_common(above, below)
    answer = f"{above // common}" + (f"/{below // common}" if below > common else "")
    return "\n".join([*lines, f"{whole}={answer}"])


def eliminate(rows: tuple[Row, Row], solved: tuple[bool, bool], x: int, y: int) -> int:
    """Characters of solving two rows in two letters by the smaller common multiple."""
    lines = ["Solve " + "; ".join(_row(row, given=given) for row, given in zip(rows, solved, strict=True))]
    if any(solved):
        lines.append("; ".join(_row(row) for row in rows))
    common = [least_common(rows[0][place], rows[1][place]) for place in (0, 1)]
    out = 1 if common[1] <= common[0] else 0
    kept, known = 1 - out, (x, y)[1 - out]
    lines.append(f"remove {'xy'[out]}, make it {common[out]}")
    first, second = (_scaled(lines, rows[place], common[out] // abs(rows[place][out])) for place in (0, 1))
    adding = (first[out] > 0) != (second[out] > 0)
    lines.append("row 1 plus row 2:" if adding else "row 1 minus row 2:")
    compute = digits.add if adding else digits.subtract
    count, right = compute(first[kept], second[kept]), compute(first[2], second[2])
    lines += [count.text, right.text, f"{_number(count.result)}x={right.result}"]
    lines += _divided(count.result, right.result)
    lines.append(f"put x={known} in {_row(rows[0])}")
    part = digits.multiply(rows[0][kept], known)
    rest = digits.subtract(rows[0][2], part.result)
    lines += [part.text, rest.text, f"{_number(rows[0][out])}x={rest.result}"]
    lines += _divided(rows[0][out], rest.result)
    return len("\n".join([*lines, f"x = {x}, y = {y}"]))


def _remainder(a: int, b: int) -> str:
    times = a // b
    if times == 1:
        return f"{a}-{b}=0" if a == b else digits.subtract(a, b).text
    if times >= 10:
        return digits.divide(a, b).text
    if b <= _TABLE:
        return f"{a}-{times}*{b}={a % b}"
    rest = f"{a}-{a}=0" if a % b == 0 else digits.subtract(a, times * b).text
    return f"{digits.multiply(b, times).text}\n{rest}"


def _common(lines: list[str], a: int, b: int, sign: str, c: int, d: int) -> tuple[int, int]:
    bottom = b
    if b != d:
        bottom = least_common(b, d)
        if 1 not in (b, d):
            divides = bottom in (b, d)
            lines.append(f"lcm {b} {d}={bottom}" if divides else lcm(b, d))
        for own, top in ((b, a), (d, c)):
            if own != bottom:
                lines += [quotient(bottom, own)] if own > 1 else []
                lines.append(digits.multiply(top, bottom // own).text)
        a, c = a * (bottom // b), c * (bottom // d)
        lines.append(f"{a}/{bottom}{sign}{c}/{bottom}")
    work = digits.add(a, c) if sign == "+" else digits.subtract(a, c)
    lines.append(work.text)
    return work.result, bottom


def _scaled(lines: list[str], row: Row, scale: int) -> Row:
    if scale == 1:
        return row
    grown = (row[0] * scale, row[1] * scale, row[2] * scale)
    lines.append(f"row 1 times {scale}:")
    lines += [digits.multiply(part, scale).text for part in row[:2] if abs(part) > 9]
    lines += [digits.multiply(row[2], scale).text, _row(grown)]
    return grown


def _divided(a: int, right: int) -> list[str]:
    if a == 1:
        return []
    if a == -1:
        return [f"x={-right}"]
    return [f"x={right}/{digits.bracketed(a)}", quotient(right, a), f"x={right // a}"]


def _row(row: Row, *, given: bool = False) -> str:
    a, b, c = row
    if given:
        constant = f"{c * b:+d}" if c else ""
        return f"y={_number(-a * b)}x{constant}"
    sign = "-" if b < 0 else "+"
    return f"{_number(a)}x{sign}{_number(abs(b))}y={c}"


def _number(a: int) -> str:
    return {1: "", -1: "-"}.get(a, str(a))
