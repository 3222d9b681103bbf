r"""Answers as exact rationals and plain text.

The answer of a reply is what stands in its last `\boxed{}`, else in its last bold `**...**`, else
its last line. No floating point: `0.5`, `1/2` and `50%` are compared as fractions.
"""

from __future__ import annotations

import re
from fractions import Fraction

_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_BOLD = re.compile(r"\*\*(.+?)\*\*", re.DOTALL)
_NUMBER = re.compile(r"([+-]?)\s*(\d[\d,_ ]*(?:\.\d+)?|\.\d+)(?:\s*/\s*(\d+))?\s*(%)?")
_GROUPED = re.compile(r"^\d{1,3}(?:[, _]\d{3})+(?:\.\d+)?$")
_MOST_DIGITS = 400


def extract(reply: str) -> str:
    """The answer part of a reply, as text; empty where the reply is."""
    for pattern in (_BOXED, _BOLD):
        found = pattern.findall(reply)
        if found:
            return str(found[-1]).strip()
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def rational(text: str) -> Fraction | None:
    """The number that `text` is, exactly, or None where it is not one number.

    Takes a sign, thousands separators, a decimal point, a fraction, a percent sign and a leading
    `x =`; a unit or word around the number makes it None.
    """
    text = text.strip().rstrip(".").replace("−", "-").replace("$", "")
    text = re.sub(r"^[A-Za-z]\s*=\s*", "", text)
    match = _NUMBER.fullmatch(text.strip())
    if match is None or len(text) > _MOST_DIGITS:
        return None
    sign, digits, denominator, percent = match.groups()
    digits = digits.strip()
    if re.search(r"[,_ ]", digits):
        if not _GROUPED.match(digits):
            return None
        digits = re.sub(r"[,_ ]", "", digits)
    value = Fraction(digits)
    if denominator is not None:
        if int(denominator) == 0:
            return None
        value /= int(denominator)
    if percent:
        value /= 100
    return -value if sign == "-" else value


def same(answer: str, reference: str) -> bool:
    """Whether two answers are equal: as exact numbers where both are, else as text.

    Text is compared without case, spaces or a final mark.
    """
    left, right = rational(answer), rational(reference)
    if left is not None and right is not None:
        return left == right
    return _plain(answer) == _plain(reference)


def _plain(text: str) -> str:
    return re.sub(r"\s+", "", text).rstrip(".!").casefold()
