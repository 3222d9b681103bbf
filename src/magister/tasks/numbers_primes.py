"""Trial division written out: is a number prime, what are its prime factors.

2 and 5 are read off the last digit, 3 off the sum of the digits, the rest is long division.
Knows nothing of problems.
"""

from __future__ import annotations

from magister.tasks import digits

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
"""The divisors tried; enough for numbers below 41 * 41."""


def smallest_factor(n: int) -> int:
    """The smallest prime that divides n >= 2, n itself where it is prime."""
    for divisor in range(2, n):
        if divisor * divisor > n:
            break
        if n % divisor == 0:
            return divisor
    return n


def decide_prime(n: int, most: int) -> str:
    """The lines that decide whether n is prime, trying divisors up to `most`; the last says which."""
    if n < 2:
        return f"{n} is less than 2\n{n} is not prime"
    lines: list[str] = []
    for prime in PRIMES:
        if prime * prime > n:
            return "\n".join([*lines, f"{prime}*{prime}={prime * prime}>{n}", f"{n} is prime"])
        if prime > most:
            break
        lines.append(_try(n, prime))
        if n % prime == 0:
            return "\n".join([*lines, f"{n} is not prime"])
    return "\n".join([*lines, f"no small factor, {n} is likely prime"])


def factorise(n: int) -> tuple[str, list[int]]:
    """The lines that split n >= 2 into primes, and the primes in rising order.

    Raises `ValueError` where the divisors tried are not enough.
    """
    lines, found, rest, place = [], [], n, 0
    while True:
        if place == len(PRIMES):
            raise ValueError(f"{n} has two factors above {PRIMES[-1]}")
        prime = PRIMES[place]
        if prime * prime > rest:
            break
        lines.append(_try(rest, prime))
        if rest % prime:
            place += 1
            continue
        if prime <= 5:
            lines.append(digits.divide(rest, prime).text)
        found.append(prime)
        rest //= prime
        lines.append(f"{n}=" + "*".join(map(str, [*found, rest])))
    lines.append(f"{prime}*{prime}={prime * prime}>{rest}")
    found.append(rest)
    return "\n".join([*lines, f"{n}=" + "*".join(map(str, found))]), found


def _try(n: int, prime: int) -> str:
    says = "no" if n % prime else "yes"
    last = n % 10
    if prime == 2:
        return f"by 2: {last} {'odd' if n % 2 else 'even'}, {says}"
    if prime == 5:
        return f"by 5: ends in {last}, {says}"
    if prime == 3:
        total = sum(map(int, str(n)))
        shown = f"{'+'.join(str(n))}={total}" if n > 9 else str(n)
        return f"by 3: {shown}, {says}"
    if prime == 7 and n <= 100:
        # At once, with or without a rest: which of the two it is shows only at its end.
        return digits.stated_quotient(n, prime)
    return digits.divide(n, prime).text
