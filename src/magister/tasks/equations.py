"""Linear equations in one letter and systems of two in two letters, with integer solutions.

Trained to two-digit coefficients in one letter, one-digit ones in two. Knows nothing of words.
"""

from __future__ import annotations

import random
import re

from magister.answers import extract, rational
from magister.tasks import equations_linear, equations_system
from magister.tasks.equations_linear import Equation
from magister.tasks.equations_system import System
from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import BEYOND, Problem, state

NAME = "equations"
LEVELS = 4

_LETTERS = "yzabckmnpqrstuvw"
_PAIRS = (("a", "b"), ("m", "n"), ("p", "q"), ("u", "v"), ("s", "t"), ("y", "z"), ("c", "d"), ("x", "z"))


def generate(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    """One problem of the family at `level`, `BEYOND` included."""
    if rng.random() < 0.6:
        letter = "x" if rng.random() < 0.5 else rng.choice(_LETTERS)
        equation = equations_linear.draw(rng, level)
        thinking, solution = equations_linear.work_out(equation, letter)
        prompt = book.phrase(rng, "linear", e=equations_linear.write(rng, equation, letter), v=letter)
        return _problem("linear", level, equation, prompt, thinking, f"{letter} = {solution}")
    letters = ("x", "y") if rng.random() < 0.6 else rng.choice(_PAIRS)
    system = equations_system.draw(rng, level)
    first, second = equations_system.write(rng, system, letters)
    thinking = equations_system.work_out(system, letters)
    prompt = book.phrase(rng, "system", e1=first, e2=second)
    answer = f"{letters[0]} = {system.x}, {letters[1]} = {system.y}"
    return _problem("system", level, system, prompt, thinking, answer)


def grade(problem: Problem, reply: str) -> bool:
    """Whether every letter has its value, in any order; a single letter need not be named."""
    given, wanted = _values(extract(reply)), _values(problem.answer)
    if problem.kind == "linear" and given is None:
        return rational(extract(reply)) == rational(problem.answer)
    return given is not None and given == wanted


def _problem(kind: str, level: int, drawn: Equation | System, prompt: str, thinking: str, answer: str) -> Problem:
    return Problem(
        family=NAME,
        kind=kind,
        level=level,
        operands=drawn.operands(),
        same=drawn.same(),
        prompt=prompt,
        thinking=thinking,
        answer=answer,
        reply=state(answer, beyond=level == BEYOND),
    )


def _values(text: str) -> dict[str, object] | None:
    """The values by letter of `x = 2, y = 5`; None where the text is anything else."""
    found: dict[str, object] = {}
    for part in re.split(r"\s*(?:,|;|\band\b)\s*", text.strip().rstrip(".")):
        match = re.fullmatch(r"([A-Za-z])\s*=\s*(.+)", part)
        value = rational(match.group(2)) if match else None
        if match is None or value is None or match.group(1) in found:
            return None
        found[match.group(1)] = value
    return found
