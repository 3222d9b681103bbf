"""Integer arithmetic written out digit by digit, the one way every family computes.

Four things make these steps learnable by a small model and checkable by a reader: one token a digit,
each step computable from the line above it, least significant digit first, and the digits found so
far copied at the end of each line behind a bar (`4+8+1=13|32`: the sum, then the result so far).
Small facts are stated at once. Every computation ends in the whole equation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Work(NamedTuple):
    """A computation written out and its result."""

    text: str
    """One line `47+28=75`, or a heading, a line a digit and the equation."""
    result: int


def add(a: int, b: int) -> Work:
    """a + b for any integers; at once below 100, else by columns."""
    if a < 0 or b < 0:
        return _signed_add(a, b)
    if a < 100 and b < 100:
        return _fact(a, "+", b, a + b)
    lines, carry, done, place = [f"{a}+{b}:"], 0, "", 0
    while place < max(len(str(a)), len(str(b))):
        terms = [digit for digit in (_digit(a, place), _digit(b, place)) if digit is not None]
        total = sum(terms) + carry
        shown = "+".join(map(str, terms + ([carry] if carry else [])))
        last = place + 1 == max(len(str(a)), len(str(b)))
        done = f"{total if last else total % 10}{done}"
        lines.append(f"{shown}={total}|{done}")
        carry, place = total // 10, place + 1
    return _whole(lines, a, "+", b, a + b)


def subtract(a: int, b: int) -> Work:
    """a - b for any integers; at once below 100, else by columns."""
    if b < 0:
        inner = add(a, -b)
        return Work(f"{a}-({b})={a}+{-b}\n{inner.text}", a - b)
    if a < 0:
        inner = add(-a, b)
        return Work(f"{a}-{b}=-({-a}+{b})\n{inner.text}\n{a}-{b}={a - b}", a - b)
    if a < 100 and b < 100:
        return _fact(a, "-", b, a - b)
    if a < b:
        inner = subtract(b, a)
        return Work(f"{a}-{b}=-({b}-{a})\n{inner.text}\n{a}-{b}={a - b}", a - b)
    lines, borrow, done = [f"{a}-{b}:"], 0, ""
    for place in range(len(str(a))):
        top, bottom = _digit(a, place), _digit(b, place)
        shown = f"{top}" + (f"-{bottom}" if bottom is not None else "") + ("-1" if borrow else "")
        value = (top or 0) - (bottom or 0) - borrow
        if value < 0:
            shown, value, borrow = f"{shown}+10", value + 10, 1
        else:
            borrow = 0
        done = f"{value}{done}"
        lines.append(f"{shown}={value}|{done}")
    return _whole(lines, a, "-", b, a - b)


def plus(a: int, b: int) -> Work:
    """a + b, as a difference where b is negative."""
    return add(a, b) if b >= 0 else subtract(a, -b)


def multiply(a: int, b: int) -> Work:
    """a * b for any integers; table facts at once, else digit by digit and summed."""
    if a < 0 or b < 0:
        inner = multiply(abs(a), abs(b))
        return Work(f"{inner.text}\n{bracketed(a)}*{bracketed(b)}={a * b}", a * b)
    if min(a, b) < 2 or (min(a, b) <= 10 and max(a, b) <= 12):
        return _fact(a, "*", b, a * b)
    if b < 10:
        return _whole([f"{a}*{b}:", *_by_one_digit(a, b)], a, "*", b, a * b)
    if a < 10 or _nonzero(a) < _nonzero(b):
        inner = multiply(b, a)
        return Work(f"{inner.text}\n{a}*{b}={a * b}", a * b)
    parts = [int(digit) * 10**place for place, digit in enumerate(reversed(str(b))) if digit != "0"]
    if len(parts) == 1:
        return Work("\n".join(_by_part(a, b)), a * b)
    lines = [f"{a}*{b}=" + "+".join(f"{a}*{part}" for part in parts)]
    total = 0
    for part in parts:
        lines += _by_part(a, part)
    for part in parts:
        if total:
            lines.append(add(total, a * part).text)
        total += a * part
    return _whole(lines, a, "*", b, total)


def divide(a: int, b: int) -> Work:
    """The quotient a // b of non-negative a by positive b, long division; the remainder is stated.

    Raises `ValueError` for a negative dividend or a divisor below 1.
    """
    if a < 0 or b < 1:
        raise ValueError(f"long division takes a >= 0 and b >= 1, got a = {a} and b = {b}")
    quotient, remainder = divmod(a, b)
    shown = stated_quotient(a, b)
    if b == 1 or (b <= 10 and a <= 100 and not remainder) or a < b:
        return Work(shown, quotient)
    return Work("\n".join([*division_lines(a, b), shown]), quotient)


def stated_quotient(a: int, b: int) -> str:
    """a / b at once: `56/7=8`, `59/7=8 remainder 3`."""
    quotient, remainder = divmod(a, b)
    return f"{a}/{b}={quotient}" + (f" remainder {remainder}" if remainder else "")


def division_lines(a: int, b: int) -> list[str]:
    """A long division without its equation: the heading, and a line for each digit of the quotient."""
    steps = (f"{rest}-{times}*{b}={rest - times * b}|{done}" for rest, times, done in division_steps(a, b))
    return [f"{a}/{b}:", *steps]


def division_steps(a: int, b: int) -> Iterator[tuple[int, int, str]]:
    """The steps of a long division: what is divided, how often b is in it, the quotient's digits so far."""
    done, rest = "", 0
    for digit in str(a):
        rest = rest * 10 + int(digit)
        if not done and rest < b:
            continue
        times = rest // b
        done += str(times)
        yield rest, times, done
        rest -= times * b


def bracketed(number: int) -> str:
    """A number where a sign may stand before it: in brackets where it is negative."""
    return f"({number})" if number < 0 else str(number)


def _by_one_digit(a: int, b: int) -> list[str]:
    lines, carry, done = [], 0, ""
    for place in range(len(str(a))):
        digit = _digit(a, place)
        assert digit is not None
        value = digit * b + carry
        done = f"{value if place + 1 == len(str(a)) else value % 10}{done}"
        lines.append(f"{digit}*{b}" + (f"+{carry}" if carry else "") + f"={value}|{done}")
        carry = value // 10
    return lines


def _by_part(a: int, part: int) -> list[str]:
    """a times a digit followed by zeros; times 1, 10, 100 is a fact."""
    digit = int(str(part)[0])
    worked = [] if digit == 1 else [f"{a}*{part}:", *_by_one_digit(a, digit)]
    return [*worked, f"{a}*{part}={a * part}"]


def _signed_add(a: int, b: int) -> Work:
    if a < 0 and b < 0:
        inner, shown = add(-a, -b), f"-({-a}+{-b})"
    elif b < 0:
        inner = subtract(a, -b)
        return Work(f"{a}+({b})={a}-{-b}\n{inner.text}", a + b)
    else:
        inner = subtract(b, -a)
        return Work(f"{a}+{b}={b}-{-a}\n{inner.text}", a + b)
    return Work(f"{a}+({b})={shown}\n{inner.text}\n{a}+({b})={a + b}", a + b)


def _nonzero(number: int) -> int:
    return sum(digit != "0" for digit in str(number))


def _digit(number: int, place: int) -> int | None:
    text = str(number)
    return int(text[-1 - place]) if place < len(text) else None


def _fact(a: int, operator: str, b: int, result: int) -> Work:
    return Work(f"{a}{operator}{b}={result}", result)


def _whole(lines: list[str], a: int, operator: str, b: int, result: int) -> Work:
    return Work("\n".join([*lines, f"{a}{operator}{b}={result}"]), result)
