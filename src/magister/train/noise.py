"""The noise of real typing, put on training prompts: manners, case, marks, spaces, slips.

Digits, and in careful mode all letters of the problem, stay as they are; `figures` changes what stands between them.
"""

from __future__ import annotations

import random
import re

_BEFORE = (
    "Please help. ", "Hey, ", "Hi! ", "Hello, ", "Can you help me? ", "Quick question: ", "ok so ", "Question: ",
    "I need help with this: ", "please: ", "Q: ", "So, ", "One more: ", "Next one. ", "my homework says: ", "Problem: ",
)  # fmt: skip
_AFTER = (
    " Thanks!", " please", " Please.", " Show your work.", " Think step by step.", " Explain.", " thank you", " ?",
    " I need it today.", " Take your time.", "\n", " (homework)", " Is that hard?", " Let me know.",
)  # fmt: skip
_LONG = re.compile(r"(?<![\d.,])\d{4,6}(?![\d.,]*\d)")
_EARLY = re.compile(r"\b0(\d:\d\d)\b")
_SEPARATED = frozenset({"arithmetic", "fractions", "units"})
"""Families whose numbers some write with a comma between thousands; in others commas part one number from another."""
SMALL = re.compile(r"(?<![\w/.,-])[2-9](?![\w/%.,-])")
"""A number below ten that stands alone."""
IN_WORDS = ("", "", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SIGNS = re.compile(r"\d[^\w\s]*\s*[-+*/=÷×·−x^()]|[-+*/=÷×·−^()]\s*\d")
"""What stands beside the figures of an expression: there nobody writes words."""
_FIGURES = 0.15
"""How often figures are written another way where they can be."""
_WORD = re.compile(r"\b[a-z]{4,}\b")


def retype(rng: random.Random, prompt: str, *, careful: bool) -> str:
    """`prompt` as somebody in a hurry, or somebody polite, would type it."""
    kinds = [_manners, _no_final_mark] if careful else [_manners, _no_final_mark, _lower, _slip, _spaces]
    for change in rng.sample(kinds, rng.choice((1, 1, 2))):
        prompt = change(rng, prompt)
    return prompt


def figures(rng: random.Random, prompt: str, family: str) -> str:
    """`prompt` of a family with its figures now and then as some write them: `1,248`, `9:45` for `09:45`, `three`."""
    if family == "arithmetic" and rng.random() < _FIGURES and not _SIGNS.search(prompt):
        prompt = SMALL.sub(_in_words, prompt)
    pattern, other = (_LONG, _with_comma) if family in _SEPARATED else (_EARLY, _without_nought)
    if family not in _SEPARATED | {"dates"} or not pattern.search(prompt) or rng.random() >= _FIGURES:
        return prompt
    return pattern.sub(other, prompt)


def _in_words(match: re.Match[str]) -> str:
    word = IN_WORDS[int(match[0])]
    return word.capitalize() if match.start() == 0 else word


def _with_comma(match: re.Match[str]) -> str:
    return f"{int(match[0]):,}" if match[0][0] != "0" else match[0]


def _without_nought(match: re.Match[str]) -> str:
    return match[1]


def _manners(rng: random.Random, prompt: str) -> str:
    place = rng.random()
    before = rng.choice(_BEFORE) if place < 0.7 else ""
    return before + prompt + (rng.choice(_AFTER) if place > 0.4 else "")


def _no_final_mark(rng: random.Random, prompt: str) -> str:
    return prompt.rstrip("?.! ")


def _lower(rng: random.Random, prompt: str) -> str:
    return prompt.lower() if rng.random() < 0.7 else prompt.upper()


def _slip(rng: random.Random, prompt: str) -> str:
    words = list(_WORD.finditer(prompt))
    if not words:
        return prompt
    word = rng.choice(words)
    at = rng.randrange(word.start(), word.end() - 1)
    if rng.random() < 0.5:
        return prompt[:at] + prompt[at + 1] + prompt[at] + prompt[at + 2 :]
    return prompt[:at] + prompt[at + 1 :]


def _spaces(rng: random.Random, prompt: str) -> str:
    at = [match.start() for match in re.finditer(" ", prompt)]
    if not at:
        return prompt
    place = rng.choice(at)
    return prompt[:place] + " " + prompt[place:]
