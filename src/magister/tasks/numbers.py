"""Whole numbers: greatest common divisor, least common multiple, primes, factors, other bases.

Trained to 4-digit gcd, primes to 400, factors to 1000, bases 2 to 9 to 999. Knows nothing of words.
"""

from __future__ import annotations

import random
import re

from magister.answers import extract, same
from magister.tasks import digits, measures, numbers_euclid, numbers_primes
from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import BEYOND, Problem, state

NAME = "numbers"
LEVELS = 4

_KINDS = {"gcd": 20, "lcm": 15, "prime": 20, "factor": 20, "to_base": 13, "from_base": 12}
_GCD_MOST = {1: 50, 2: 99, 3: 999, 4: 9999, BEYOND: 99_999}
_LCM_MOST = {1: 12, 2: 30, 3: 99, 4: 999, BEYOND: 99_999}
_PRIME_MOST = {1: 50, 2: 100, 3: 200, 4: 400}
_FACTOR_MOST = {1: 50, 2: 100, 3: 400, 4: 1000}
_BASE_MOST = {1: 30, 2: 99, 3: 500, 4: 999}
_BEYOND_LEAST, _BEYOND_MOST = 10_000, 99_999
_LONGEST, _LONGEST_BEYOND = 400, 600
"""Characters of their measure above which operands are drawn again."""
_TRIES = 30
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")


def generate(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    """One problem of the family at `level`, `BEYOND` included."""
    kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    if kind in ("gcd", "lcm"):
        a, b, work = _pair(rng, kind, level)
        lines = [f"{kind} {a} {b}", *work.text.split("\n")]
        if lines[0] == lines[1]:
            del lines[1]
        return _problem(rng, level, book, kind, (a, b), lines, str(work.result), {"a": a, "b": b})
    if kind == "prime":
        n = _prime_candidate(rng, level)
        answer = "Yes" if n > 1 and numbers_primes.smallest_factor(n) == n else "No"
        text = numbers_primes.decide_prime(n, 13 if level == BEYOND else numbers_primes.PRIMES[-1])
        return _problem(rng, level, book, kind, (n,), [f"prime {n}", text], answer, {"n": n})
    if kind == "factor":
        n = _composite(rng, level)
        text, primes = numbers_primes.factorise(n)
        answer = " * ".join(map(str, primes))
        return _problem(rng, level, book, kind, (n,), [f"factor {n}", text], answer, {"n": n})
    return _based(rng, level, book, kind)


def grade(problem: Problem, reply: str) -> bool:
    """Whether the reply gives the number, the factors in any order, or yes or no."""
    given = extract(reply)
    if problem.kind == "prime":
        word = re.match(r"\s*(yes|no)\b", given, re.IGNORECASE)
        return word is not None and word.group(1).casefold() == problem.answer.casefold()
    if problem.kind == "factor":
        return _factors(given) == _factors(problem.answer)
    if problem.kind == "to_base":
        base = problem.operands[1]
        given = re.sub(rf"\s*(?:\(?base {base}\)?|_{base}|_\{{{base}\}})$", "", given.strip())
        return re.sub(r"\s", "", given) == problem.answer
    return same(given, problem.answer)


def _problem(
    rng: random.Random,
    level: int,
    book: Phrasebook,
    kind: str,
    operands: tuple[int | str, ...],
    lines: list[str],
    answer: str,
    slots: dict[str, object],
) -> Problem:
    return Problem(
        family=NAME,
        kind=kind,
        level=level,
        operands=operands,
        prompt=book.phrase(rng, kind, **slots),
        thinking="\n".join(lines),
        answer=answer,
        reply=state(answer, beyond=level == BEYOND),
    )


def _pair(rng: random.Random, kind: str, level: int) -> tuple[int, int, digits.Work]:
    """Two numbers, most often with a common divisor, and the work; the shortest of some draws at worst."""
    most = (_GCD_MOST if kind == "gcd" else _LCM_MOST)[level]
    compute = numbers_euclid.gcd if kind == "gcd" else numbers_euclid.lcm
    measure = measures.gcd if kind == "gcd" else measures.lcm
    drawn = []
    for _ in range(_TRIES):
        a, b = _related(rng, most, level)
        length = len(measure(a, b))
        drawn.append((length, a, b))
        if length <= (_LONGEST_BEYOND if level == BEYOND else _LONGEST):
            break
    _, a, b = min(drawn)
    return a, b, compute(a, b)


def _related(rng: random.Random, most: int, level: int) -> tuple[int, int]:
    if level == BEYOND:
        common = rng.randint(1000, 4999)
        least = -(-_BEYOND_LEAST // common)
        return tuple(common * rng.randint(least, most // common) for _ in range(2))  # type: ignore[return-value]
    size = rng.randint(1 if most < 100 else 2, len(str(most)))
    top = min(most, 10**size - 1)
    common = 1 if rng.random() < 0.25 else rng.randint(2, max(2, top // 3))
    a, b = (common * rng.randint(1, top // common) for _ in range(2))
    return (a, b) if a != b else (a, common)


def _prime_candidate(rng: random.Random, level: int) -> int:
    """Prime half of the time; a composite has often no factor below 7, past the range one to 13."""
    least, most = (_BEYOND_LEAST, _BEYOND_MOST) if level == BEYOND else (1, _PRIME_MOST[level])
    wanted, hard = rng.random() < 0.5, rng.random() < 0.5
    n = least
    for _ in range(200):
        n = rng.randint(least, most)
        factor = numbers_primes.smallest_factor(n) if n > 1 else 1
        if wanted != (factor == n and n > 1):
            continue
        if wanted or ((factor >= 7) == (hard and most > 50) and not (level == BEYOND and factor > 13)):
            return n
    return least


def _composite(rng: random.Random, level: int) -> int:
    if level != BEYOND:
        size = rng.randint(1, 2) if _FACTOR_MOST[level] <= 100 else rng.randint(2, 3)
        return rng.randint(4 if size == 1 else 10 ** (size - 1), min(_FACTOR_MOST[level], 10**size))
    for _ in range(200):
        n = rng.choice((7, 11, 13, 17, 19))
        while n < _BEYOND_LEAST:
            n *= rng.choice((2, 3, 5, 7, 11, 13, 17))
        if n <= _BEYOND_MOST and len(numbers_primes.factorise(n)[0]) <= _LONGEST_BEYOND:
            return n
    return 12_155


def _based(rng: random.Random, level: int, book: Phrasebook, kind: str) -> Problem:
    if level == BEYOND:
        n, base = rng.randint(_BEYOND_LEAST, _BEYOND_MOST), rng.randint(5, 9)
    else:
        size = rng.randint(1 if level == 1 else 2, len(str(_BASE_MOST[level])))
        n = rng.randint(max(2, 10 ** (size - 1)), min(_BASE_MOST[level], 10**size - 1))
        base = 2 if rng.random() < 0.25 else rng.randint(2, 9)
    n += base if n < base else 0
    written = _in_base(n, base)
    if kind == "to_base":
        lines, answer = _to_base(n, base), written
        return _problem(rng, level, book, kind, (n, base), lines, answer, {"n": n, "base": base})
    lines = _from_base(written, base)
    return _problem(rng, level, book, kind, (n, base), lines, str(n), {"digits": written, "base": base})


def _to_base(n: int, base: int) -> list[str]:
    lines, rest, done = [f"{n} to base {base}"], n, ""
    while rest:
        quotient, digit = divmod(rest, base)
        done = f"{digit}{done}"
        if rest > 100:
            lines += digits.divide(rest, base).text.split("\n")[:-1]
        lines.append(f"{rest}/{base}={quotient} remainder {digit}|{done}")
        rest = quotient
    return [*lines, f"base {base}: {done}"]


def _from_base(written: str, base: int) -> list[str]:
    lines, total = [f"{written} from base {base}"], int(written[0])
    for place, digit in enumerate(written[1:], start=1):
        lines.append(f"{total} then {written[place:]}")
        product = digits.multiply(total, base)
        lines.append(product.text)
        total = product.result + int(digit)
        carries = product.result % 10 + int(digit) > 9
        shown = digits.add(product.result, int(digit)).text if carries else f"{product.result}+{digit}={total}"
        lines.append(shown)
    return [*lines, f"base 10: {total}"]


def _in_base(n: int, base: int) -> str:
    return (_in_base(n // base, base) if n >= base else "") + str(n % base)


def _factors(text: str) -> list[int] | None:
    text = re.sub("[⁰¹²³⁴-⁹]+", lambda match: f"^{match.group().translate(_SUPERSCRIPTS)}", text)
    text = re.sub(r"^\s*\d+\s*=", "", text)
    found: list[int] = []
    for part in re.split(r"[*×·x]|\\times|\\cdot", text):
        match = re.fullmatch(r"\s*(\d{1,9})(?:\^\{?(\d{1,2})\}?)?\s*", part)
        if match is None:
            return None
        found += [int(match.group(1))] * int(match.group(2) or 1)
    return sorted(found)
