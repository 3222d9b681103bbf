"""A story as people tell one: "she" for a name, "3 of them", two events in one sentence, a small number as a word.

What is changed in the prompt is changed in the thought's quotations too; what sentences mean stays. Training only: the
books say one event a sentence, with its name and its figures.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Set
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from magister.tasks import Problem
from magister.tasks.quotation import MARK, quotations, quote
from magister.train.noise import IN_WORDS, SMALL

_HOW_OFTEN = 0.12
"""Of stories, for each of the ways; two ways may come together."""
_JOINED = 0.4
"""Of places where two sentences could be one, in a story in which some are."""
_SHORTENED = 0.6
"""Of sentences that tell of one number of things, in a story in which some are shortened."""
_SHORTER = ((r"loses \d+", "of them"), (r"gets \d+", "more"))
_IN_WORDS = 0.5
"""Of small numbers in a story in which some are words."""
_PRONOUNS = (("He", "his"), ("She", "her"))
_SUBJECTS = frozenset(subject for subject, _ in _PRONOUNS)
_LINKS = ("and then", "then", "and", "and after that", "and later")
_TIMES = frozenset({"Then", "Later", "After", "Afterwards", "Next"})
_SECOND = "other "
"""How the meaning of a sentence begins that brings in a second person: nobody is "she" there."""


class _Told(NamedTuple):
    """A sentence of the prompt that the thought quotes."""

    before: str
    """What stands between the sentence before and this one."""
    text: str
    meant: str


def retold(rng: random.Random, problem: Problem, names: Set[str], times: float = 1.0) -> Problem:
    """`problem`, a story now and then told in another way, or so many times as often; `names`: what people in stories
    are called.
    """
    ways = [way for way in (_pronouns, _things, _one_sentence, _number_words) if rng.random() < times * _HOW_OFTEN]
    if problem.kind != "story" or not ways:
        return problem
    told, rest = _sentences(problem)
    name = _person(told, names)
    for way in ways:
        told = way(rng, told, name)
    quoted = iter([quote(one.text, one.meant, first=not one.before) for one in told])
    lines = [next(quoted) if line.startswith(MARK) else line for line in problem.thinking.split("\n")]
    prompt = "".join(one.before + one.text for one in told) + rest
    return replace(problem, prompt=prompt, thinking="\n".join(lines))


def _sentences(problem: Problem) -> tuple[list[_Told], str]:
    """The quoted sentences, and what of the prompt follows them."""
    told, at = [], 0
    for sentence, meant in quotations(problem.thinking):
        text = sentence.strip()
        start = problem.prompt.index(text, at)
        told.append(_Told(problem.prompt[at:start], text, meant))
        at = start + len(text)
    return told, problem.prompt[at:]


def _person(told: list[_Told], names: Set[str]) -> str:
    """Who the story is about: of all that may be a name, any capitalised word, what most sentences have; of two that
    as many have, the one that stands more often where no sentence begins.
    """
    counts: Counter[str] = Counter(word for one in told for word in names & set(re.findall(r"\w+", one.text)))
    inside: Counter[str] = Counter(word for one in told for word in names & set(re.findall(r"\w+", one.text)[1:]))
    return max(counts, key=lambda word: (counts[word], inside[word], word))


def _pronouns(rng: random.Random, told: list[_Told], name: str) -> list[_Told]:
    """`He` or `She`, and `his` or `her`, after a first sentence with the name, where there is one person only."""
    if not re.search(rf"\b{name}\b", told[0].text) or any(one.meant.startswith(_SECOND) for one in told):
        return told
    subject, owner = rng.choice(_PRONOUNS)
    changed = [told[0]]
    for one in told[1:]:
        text = re.sub(rf"\b{name}'s\b", owner, one.text)
        text = text[0].upper() + text[1:]
        if text.count(name) == 1:
            text = re.sub(rf"^{name}\b", subject, text)
        changed.append(one._replace(text=text))
    return changed


def _things(rng: random.Random, told: list[_Told], _name: str) -> list[_Told]:
    """`3 of them` for what is lost and `3 more` for what is got, where the sentences before have said of what."""
    item = _item(told)
    if not item or not re.search(rf"\b{item}\b", told[0].text):
        return told
    changed = [told[0]]
    for one in told[1:]:
        short = next((short for meant, short in _SHORTER if re.fullmatch(meant, one.meant)), "")
        fits = short and one.text.count(item) == 1 and rng.random() < _SHORTENED
        text = re.sub(rf"\b(\d+) (?:of the |more |new )?{item}\b", rf"\1 {short}", one.text) if fits else one.text
        changed.append(one._replace(text=text))
    return changed


def _item(told: list[_Told]) -> str:
    """What is counted: of the one or two words that follow numbers those that most sentences have."""
    ones, twos = (
        Counter[str](found for one in told for found in re.findall(rf"\d+ ({phrase})", one.text))
        for phrase in (r"[a-z][\w-]*", r"[a-z][\w-]* [a-z][\w-]*")
    )
    if not ones or ones.most_common(1)[0][1] < 2:
        return ""
    word, count = ones.most_common(1)[0]
    return next((both for both, often in twos.items() if often == count and both.startswith(f"{word} ")), word)


def _one_sentence(rng: random.Random, told: list[_Told], name: str) -> list[_Told]:
    """Some sentences joined to the one before: `..., and then gives 3 away`; never three of them."""
    changed, joined = [told[0]], False
    for last, one in pairwise(told):
        fits = one.before == ". " and one.text[0].isalpha() and not one.meant.startswith(_SECOND)
        joined = not joined and fits and rng.random() < _JOINED
        changed.append(one._replace(before=", ", text=_linked(rng, last.text, one.text, name)) if joined else one)
    return changed


def _linked(rng: random.Random, last: str, text: str, name: str) -> str:
    """`text` as it goes on after `last`, without its first word where both begin with the same name or pronoun."""
    first, _, others = text.partition(" ")
    link = rng.choice(_LINKS)
    if last.partition(" ")[0] == first and first in (name, *_SUBJECTS):
        return f"{link} {others}"
    if re.match(rf"{name}\b", text):
        return f"{link} {text}"
    return f"{'and' if first in _TIMES else link} {text[0].lower()}{text[1:]}"


def _number_words(rng: random.Random, told: list[_Told], _name: str) -> list[_Told]:
    """Numbers below ten as words, each with an even chance; but none at a sentence's start, where it has a capital."""

    def word(match: re.Match[str]) -> str:
        return match[0] if match.start() == 0 or rng.random() < _IN_WORDS else IN_WORDS[int(match[0])]

    return [one._replace(text=SMALL.sub(word, one.text)) for one in told]
