"""The words problems are asked in: books of phrasings, one JSON file a family and language.

A book is either `train` or `held_out`; the held-out one was written first, by itself, and is never
edited. A template has named slots, `{a}`, and choices, `[[find|work out]]`, that may nest and may
be empty. Knows nothing of answers.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources

_TRIES = 200
_CHOICE = re.compile(r"\[\[([^\[\]]*)\]\]")


@dataclass(frozen=True, slots=True)
class Phrasebook:
    """The phrasings of one family in one language."""

    family: str
    kinds: dict[str, tuple[str, ...]]
    """Templates by kind."""
    themes: tuple[dict[str, str], ...]
    """Sets of templates that belong together (one comparison, one island), by role."""
    words: dict[str, tuple[str, ...]]
    """Word lists: `names`, `nouns`, `topics`, `words` as the family needs."""
    without: frozenset[str] = frozenset()
    """Templates that are never said, whichever way choices would lead to them: the held-out ones, in training."""

    def phrase(self, rng: random.Random, kind: str, /, **slots: object) -> str:
        """One phrasing of `kind`, its choices taken at random, its slots filled."""
        return self.say(rng, self.kinds[kind], **slots)

    def say(self, rng: random.Random, templates: tuple[str, ...], /, **slots: object) -> str:
        """One of `templates`, its choices taken at random, its slots filled.

        Raises `ValueError` where all of them seem to be in `without`.
        """
        for _ in range(_TRIES):
            template = expand(rng, rng.choice(templates))
            if template not in self.without:
                return template.format(**slots)
        raise ValueError(f"{self.family}: {templates[0]!r} and its like lead to held-out phrasings only")

    def theme(self, rng: random.Random) -> dict[str, str]:
        """One coherent set of templates; say each with `say`."""
        return rng.choice(self.themes)

    def word(self, rng: random.Random, name: str) -> str:
        """One word of the list `name`."""
        return rng.choice(self.words[name])

    def vocabulary(self) -> frozenset[str]:
        """Every word of its lists, in lower case."""
        return frozenset(word.casefold() for listed in self.words.values() for word in listed)

    def sample(self, rng: random.Random, name: str, count: int) -> list[str]:
        """`count` different words of the list `name`, which may have one more than once."""
        while len(set(found := rng.sample(self.words[name], count))) < count:
            pass
        return found


def expand(rng: random.Random, template: str) -> str:
    """`template` with its choices taken at random, its slots still open."""
    return _expanded(template, rng.choice)


def first_wording(template: str) -> str:
    """`template` with the first of every choice taken, its slots still open."""
    return _expanded(template, lambda options: options[0])


def _expanded(template: str, choose: Callable[[list[str]], str]) -> str:
    while True:
        chosen = _CHOICE.sub(lambda match: choose(match.group(1).split("|")), template)
        if chosen == template:
            return chosen
        template = chosen


def digest(book: str = "train") -> str:
    """What names the words of a book: they are data that a training run depends on."""
    whole = hashlib.sha256()
    languages = resources.files("magister.tasks") / "phrasings" / book
    for language in sorted(languages.iterdir(), key=lambda place: place.name):
        for file in sorted(language.iterdir(), key=lambda place: place.name):
            whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:16]


@cache
def load_book(family: str, book: str = "train", language: str = "en") -> Phrasebook:
    """The phrasings of `family` from the packaged book `train` or `held_out`.

    Raises `ValueError` where the package has no such book.
    """
    path = resources.files("magister.tasks") / "phrasings" / book / language / f"{family}.json"
    if not path.is_file():
        raise ValueError(f"no phrasings for family {family!r} in book {book!r}, language {language!r}")
    data = json.loads(path.read_text(encoding="utf-8"))
    return Phrasebook(
        family=family,
        kinds={kind: tuple(templates) for kind, templates in data.get("kinds", {}).items()},
        themes=tuple(data.get("themes", ())),
        words={name: tuple(words) for name, words in data.get("words", {}).items()},
    )
