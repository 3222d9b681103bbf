"""Drills: short documents without a question, dense in what every thought needs, uniform over what there is.

Copying any token again in its place, looking up what follows a name, saying a name as it begins a text and as it
stands inside one, spelling any piece of a word, small facts of arithmetic. A thought uses each now and then; a
drill uses nothing else. No held-out word is in one, and `drill_facts` says what of held-out operands.

On conversations alone copying comes late: after 14.7 million tokens nano still wrote other names than the
question's, because most tokens had hardly ever been copied.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass

from magister.tasks import FAMILIES, load_book
from magister.train.drill_facts import Fact, fact, picks
from magister.train.packing import Sequence

_TOKENS = 120
"""About how long a drill is."""

_SHARES = (2, 2, 1, 4, 8, 2)
"""Of the kinds of drills: words and facts are thousands, the others are one skill each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drills:
    """What drills need to know of a tokenizer."""

    text: Callable[[str], list[int]]
    """Ids of plain text."""
    begin: int
    ordinary: tuple[int, ...]
    """Ids of all tokens that are not special."""
    words: tuple[str, ...]
    """Words to spell."""
    pieces: tuple[str, ...]
    """The text of every token that is letters only."""
    without: frozenset[str]
    """Held-out words, in lower case."""
    allowed: frozenset[int]
    """The ordinary tokens once more; those left out are held-out words by themselves."""

    def draw(self, rng: random.Random) -> Sequence:
        """One drill of a kind at random."""
        kinds = (self._echo, self._names, self._starts, self._spell, self._facts, self._picks)
        ids, learn = rng.choices(kinds, _SHARES)[0](rng)
        return Sequence((self.begin, *ids), (False, *learn))

    def _echo(self, rng: random.Random) -> tuple[list[int], list[bool]]:
        """Tokens at random, and the same again: learned from the second time on."""
        length = rng.randint(3, 30)
        part = rng.choices(self.ordinary, k=length)
        times = max(2, min(8, _TOKENS // length))
        return part * times, [False] * length + [place > 0 for place in range(length)] * (times - 1)

    def _names(self, rng: random.Random) -> tuple[list[int], list[bool]]:
        """Names of one to four tokens in changing order: once seen, a name's rest follows from its beginning.

        Each name stands with a mark of its own before it, so that from the second time on its beginning follows too.
        Half the time the names share their pieces ("Wini-fred", "Tini-fred"), so that the last token alone tells
        nothing and only the ones before it do.
        """
        count = rng.randint(2, 6)
        marks = rng.sample(self.ordinary, count)
        shared = rng.random() < 0.5
        pool = rng.choices(self.ordinary, k=rng.randint(3, 6)) if shared else self.ordinary
        names = [rng.choices(pool, k=rng.choice((2, 3, 3, 4) if shared else (1, 1, 2, 2, 3, 4))) for _ in range(count)]
        between = self.text(rng.choice((",", " >", ".", ";", "\n")))
        ids: list[int] = []
        learn: list[bool] = []
        first = True
        while len(ids) < _TOKENS:
            for one in rng.sample(range(count), count):
                ids += [marks[one], *names[one], *between]
                learn += [False, *([not first] * len(names[one])), *([not first] * len(between))]
            first = False
        return ids, learn

    def _starts(self, rng: random.Random) -> tuple[list[int], list[bool]]:
        """Made-up names as they begin a text and as they stand inside one, which are other tokens, both ways round."""
        ids: list[int] = []
        learn: list[bool] = []
        while len(ids) < _TOKENS:
            name = "".join(rng.choices(self.pieces, k=rng.choice((1, 1, 2)))).lower()[: rng.randint(3, 10)].capitalize()
            ends = [self.text(f"{name}:"), self.text(f" {name}\n")]
            asked, told = ends if rng.random() < 0.6 else [self.text(f" {name}:"), self.text(f"{name}\n")]
            if name.casefold() in self.without or not self.allowed.issuperset(asked + told):
                continue
            ids += asked + told
            learn += [False] * len(asked) + [True] * len(told)
        return ids, learn

    def _spell(self, rng: random.Random) -> tuple[list[int], list[bool]]:
        """Words and pieces of words, each spelled: letters joined by hyphens."""
        ids: list[int] = []
        learn: list[bool] = []
        while len(ids) < _TOKENS:
            word = rng.choice(self.words) if rng.random() < 0.3 else rng.choice(self.pieces).lower()
            shown = word.capitalize() if rng.random() < 0.2 else word
            # With the blank as inside a sentence; without it as a piece within a longer word, or between quotes.
            asked = self.text(
                rng.choice((f"spell {shown}\n", f"spell {shown}\n", f"spell:{shown}\n", f'spell "{shown}"\n'))
            )
            told = self.text(f"{'-'.join(word)}\n")
            if not self.allowed.issuperset(asked):
                continue
            ids += asked + told
            learn += [False] * len(asked) + [True] * len(told)
        return ids, learn

    def _facts(self, rng: random.Random) -> tuple[list[int], list[bool]]:
        """Facts of one step each."""
        ids: list[int] = []
        learn: list[bool] = []
        while len(ids) < _TOKENS:
            self._ask(fact(rng), ids, learn)
        return ids, learn

    def _picks(self, rng: random.Random) -> tuple[list[int], list[bool]]:
        """Digits of quotients, each by the multiple that is taken off."""
        ids: list[int] = []
        learn: list[bool] = []
        for one in picks(rng):
            self._ask(one, ids, learn)
        return ids, learn

    def _ask(self, one: Fact, ids: list[int], learn: list[bool]) -> None:
        left, right = self.text(one.asked), self.text(f"{one.told}\n")
        ids += left + right
        learn += [False] * len(left) + [True] * len(right)


def held_out_words() -> frozenset[str]:
    """Every word of every held-out book, in lower case."""
    return frozenset[str]().union(*(load_book(family, "held_out").vocabulary() for family in FAMILIES))


def drillable(pieces: Items[bytes], special: Callable[[int], bool], without: frozenset[str]) -> tuple[int, ...]:
    """Ids of all tokens that are neither special nor, by themselves, one of the words `without`."""
    return tuple(
        id_
        for id_, piece in enumerate(pieces)
        if not special(id_) and piece.decode("utf-8", "replace").strip().casefold() not in without
    )


def letter_pieces(pieces: Items[bytes], ids: Items[int]) -> tuple[str, ...]:
    """The text of those tokens that are two plain letters or more, without the blank before them."""
    texts = (pieces[id_].decode("utf-8", "replace").strip(" ") for id_ in ids)
    return tuple(text for text in texts if len(text) > 1 and text.isascii() and text.isalpha())
