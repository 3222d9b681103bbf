"""Randomness as a pure function of (seed, choice, position): nothing that runs beside a request can shift it.

`position` is the place of the token in its sequence, prompt included, so that a reply cut anywhere and continued as a
prompt under the same seed goes on as it would have.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def choice_seed(seed: int, choice: int) -> int:
    """The seed under which choice 0 of a request draws what `choice` of this one does; `seed` itself for choice 0."""
    if choice == 0:
        return seed
    return _mix(_mix(seed & _MASK) + choice * _GOLDEN) >> 1


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) with 52 random bits: so few that `uniform * total` in float64 stays below any `total`."""
    return (_mix(_mix(seed & _MASK) ^ (position + 1) * _GOLDEN) >> 12) * 2.0**-52


def _mix(z: int) -> int:
    # The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every input bit reaches every output bit.
    z = (z + _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
