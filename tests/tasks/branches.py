"""Checks for books with too many expansions to walk through, and for equations inside lines of words."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterable

from tests.tasks.checks import evaluate

from magister.tasks.phrasebook import expand

_CHOICE = re.compile(r"\[\[([^\[\]]*)\]\]")
_EQUATION = re.compile(r"(?<![\w)|])([(\d][\d+*/()-]*|-\d[\d+*/()-]*)=(-?\d+)(?![\d:|*/+-])")


def slots_of(template: str) -> list[str] | None:
    """The slots of a template, sorted; None where two branches of a choice differ in them."""
    while match := _CHOICE.search(template):
        branches = [sorted(_named(branch)) for branch in match.group(1).split("|")]
        if any(branch != branches[0] for branch in branches):
            return None
        template = template[: match.start()] + match.group(1).split("|")[0] + template[match.end() :]
    return sorted(_named(template))


def odd_templates(templates: Iterable[str], slots: set[str]) -> list[str]:
    """The templates whose slots are not exactly these, once each, or that give odd spaces in 20 fillings."""
    rng, odd = random.Random(0), []
    for template in templates:
        texts = [expand(rng, template).format(**dict.fromkeys(slots, "Xy")) for _ in range(20)]
        spaced = any("  " in text or text != text.strip() or "[[" in text or "|" in text for text in texts)
        if slots_of(template) != sorted(slots) or spaced:
            odd.append(template)
    return odd


def wrong_sums(thinking: str) -> list[str]:
    """The equations of plain integers anywhere in the thought that are not true, divisions with a remainder aside."""
    return [
        f"{left}={right}"
        for line in thinking.splitlines()
        if "remainder" not in line
        for left, right in _EQUATION.findall(line.split("|")[0])
        if evaluate(left) != int(right)
    ]


def _named(text: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
