"""Conversations to train on, drawn from the task families by seed.

Mixes families, levels, system prompts, several turns, answers without a thought, thoughts cut short,
and the noise of real typing. Knows nothing of token ids; `encode` turns these into them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache

from magister.tasks import BEYOND, FAMILIES, HONEST, Phrasebook, Problem, Split, load_book
from magister.tasks.family import draw
from magister.tasks.phrasebook import first_wording
from magister.tasks.quotation import MARK, quotations
from magister.train.noise import figures, retype
from magister.train.retell import retold


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its reply."""

    user: str
    thinking: str
    """Empty for a reply without a thought."""
    reply: str
    cut: bool = False
    """The thought was cut short: its end is forced, not learned."""
    spelled: str = ""
    """What of the reply has a token a letter."""
    opening: bool = False
    """Only how the thought begins; nothing follows, no reply either."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A line of a thought that quotes a sentence."""

    sentence: str
    """The mark, the sentence and a colon."""
    meant: str
    """What it means, with the blank before it."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns after an optional system prompt."""

    turns: tuple[Turn, ...]
    official: bool = False
    """The official reasoning instruction stands first."""
    system: str = ""
    """A user's own system message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """How often each thing happens; shares are of conversations unless said otherwise."""

    families: tuple[tuple[str, float], ...]
    """Families with their weights."""
    drills: float = 0.0
    """Of all sequences: drills in place of conversations."""
    openings: float = 0.0
    """Of all sequences: a question and no more of its thought than says what was asked, in place of conversations."""
    readings: float = 0.0
    """Of all sequences: sentences as thoughts quote them, where only what they mean is learned."""
    beyond: float = 0.04
    """Of problems: past the trained ranges, answered with the warning."""
    direct: float = 0.15
    """Of level-1 problems that have a thought: asked for, and given, without it."""
    cut: float = 0.05
    """Of problems: the thought ends early and a best answer follows."""
    official: float = 0.035
    system: float = 0.035
    both: float = 0.03
    several_turns: float = 0.12
    noise: float = 0.35
    """Of prompts: typed as people type."""
    strange_words: float = 0.3
    """Of names, nouns and words: any word of the full vocabulary, so that no word is unexpected."""
    plain: float = 0.25
    """Of phrasings of the families in `ORDERS`: one of the shortest, as people ask who only want to know."""
    ordinary: float = 0.2
    """Of stories: told from beginning to end in the first sentences of the lists, as everybody tells them."""


DIRECT_ASKS = (
    " Answer directly.",
    " Just the answer.",
    " Only give the answer, no thinking.",
    " No reasoning please.",
    " Don't think, just answer.",
    " Short answer only.",
)

SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a maths tutor. Be patient.",
    "Answer in one sentence.",
    "Be concise.",
    "You help a pupil with homework.",
    "You are Ada, a friendly teacher.",
    "Today is Monday. The user is a student.",
    "You are an expert in arithmetic and logic. Think carefully before you answer.",
    "Reply politely and briefly.",
    "The assistant works for a small shop and answers questions of its customers.",
)


class ConversationSource:
    """Draws conversations; the same seed gives the same conversation whatever was drawn before."""

    def __init__(self, mixture: Mixture, words: tuple[str, ...]) -> None:
        """`words`: lower-case words of any kind, for names, nouns and spelling, without a family's held-out ones."""
        self._mixture = mixture
        self._names = [name for name, _ in mixture.families]
        self._weights = [weight for _, weight in mixture.families]
        self._books = {name: _training_book(name, words, mixture) for name in self._names}
        self._people = (
            frozenset(self._books["word_problems"].words["names"]) if "word_problems" in self._books else frozenset()
        )
        self._ordinary = _ordinary_book(mixture)
        self._tellers = [name for name in self._names if name in TELLERS]
        self._orders = [
            (name, kind)
            for name in self._names
            if name in ORDERS
            for kind in self._books[name].kinds
            for _ in range(_MISTAKEN.get(kind, 1))
        ]
        self._orders += [(name, kind) for name in self._tellers for kind in _TOLD[name]]

    def draw(self, seed: int) -> Conversation:
        """The conversation of this seed."""
        rng = random.Random(seed)
        mixture = self._mixture
        count = rng.choice((2, 2, 3)) if rng.random() < mixture.several_turns else 1
        turns = tuple(self._turn(rng) for _ in range(count))
        kind = rng.random()
        official = kind < mixture.official + mixture.both
        own = mixture.official <= kind < mixture.official + mixture.both + mixture.system
        return Conversation(turns, official=official, system=rng.choice(SYSTEM_MESSAGES) if own else "")

    def opening(self, seed: int) -> Conversation:
        """A question and the lines in which the thought says what was asked; every kind as often as the others, but for
        those that are taken for another (`_TOLD`, `_MISTAKEN`).

        What a question asks is known after a line, and the lines after it are most of the tokens. An honest reply,
        which has no thought, is whole: some questions have another answer.
        """
        rng = random.Random(seed)
        if rng.random() < _HONEST_OPENINGS:
            problem = self._of_family(rng, rng.choice(sorted(HONEST)))
            return Conversation((Turn(self._typed(rng, problem), "", problem.reply),))
        name, kind = rng.choice(self._orders)
        problem = self._of_family(rng, name)
        while problem.kind != kind or (kind == "story" and not 1 <= problem.level <= _SHORT_STORY):
            problem = self._of_family(rng, name)
        return Conversation((opened(problem, self._typed(rng, problem)),))

    def reading(self, seed: int) -> tuple[Reading, ...]:
        """Sentences of a few problems told in sentences, each with what it means there.

        Without prompts and sums a thousand tokens hold 40 sentences; whole stories and puzzles hold 14.
        """
        rng = random.Random(seed)
        read: list[Reading] = []
        while len(read) < _SENTENCES:
            problem = self._of_family(rng, rng.choice(self._tellers))
            if problem.kind == "truth" and rng.random() < _LEFT_OUT:
                continue
            told = quotations(problem.thinking)
            read += [Reading(f"{MARK}{sentence}:", f" {meant}") for sentence, meant in told]
        return tuple(read)

    def _turn(self, rng: random.Random) -> Turn:
        mixture = self._mixture
        problem = self._of_family(rng, rng.choices(self._names, self._weights)[0])
        prompt = self._typed(rng, problem)
        thinking, spelled = quoted(problem, prompt), problem.spelled
        if not thinking:
            return Turn(prompt, "", problem.reply)
        if problem.level == 1 and rng.random() < mixture.direct:
            return Turn(prompt + rng.choice(DIRECT_ASKS), "", problem.reply, spelled=spelled)
        if rng.random() < mixture.cut:
            lines = thinking.split("\n")
            kept = "\n".join(lines[: rng.randint(0, len(lines) - 1)])
            return Turn(prompt, kept, problem.reply, cut=True, spelled=spelled)
        return Turn(prompt, thinking, problem.reply, spelled=spelled)

    def _of_family(self, rng: random.Random, name: str) -> Problem:
        level = rng.randint(1, FAMILIES[name].LEVELS)
        if name not in HONEST and rng.random() < self._mixture.beyond:
            level = BEYOND
        ordinary = name == "word_problems" and rng.random() < self._mixture.ordinary
        book = self._ordinary if ordinary else self._books[name]
        problem = draw(FAMILIES[name], rng, level, book, Split.TRAIN)
        while not _held_out_words(name).isdisjoint(map(str, problem.operands)):  # A made-up word may be one of them.
            problem = draw(FAMILIES[name], rng, level, book, Split.TRAIN)
        if name != "word_problems":
            return problem
        return retold(rng, problem, self._people, _RETOLD if ordinary else 1.0)

    def _typed(self, rng: random.Random, problem: Problem) -> str:
        """The problem's prompt, as it is or as people type."""
        prompt = figures(rng, problem.prompt, problem.family)
        if rng.random() < self._mixture.noise:
            return retype(rng, prompt, careful=problem.family in CAREFUL)
        return prompt


TELLERS = frozenset({"word_problems", "logic"})
"""Families whose thoughts quote a question sentence by sentence."""

_TOLD = {
    "word_problems": (*("story",) * 6, "shop", "two_prices", "travel", "work", "pool"),
    "logic": ("order", "order", "truth"),
}
"""Kinds that those families' openings are of: which it is shows in the first line of a thought, in nothing before."""

_MISTAKEN = {"count": 3, "time_before": 3, "date_before": 2, "percent_down": 2, "percent_up": 2}
"""How much more often openings are of a kind: it is taken for another, or its letter for an article."""

_RETOLD = 3.0
"""How much more often a story in ordinary sentences is told as people tell it."""

_SHORT_STORY = 2
"""Highest level of stories in openings: the longer ones are hardly taken for anything else."""

_SENTENCES = 6
"""Fewest sentences of a reading."""

_LEFT_OUT = 0.6
"""Of puzzles of truth in readings: who calls whom a liar is easily read, who stands over whom is not."""

_HONEST_OPENINGS = 0.12
"""Of openings: questions with an honest reply."""

_SAID_IN = {"letters": 2}
"""Lines that say what was asked, where it is not one: of a word its letters too."""


def opened(problem: Problem, prompt: str) -> Turn:
    """The problem asked as `prompt`, and as much of its thought as says what was asked."""
    lines = quoted(problem, prompt).split("\n")[: _SAID_IN.get(problem.family, 1)]
    return Turn(prompt, "\n".join(lines) + "\n", "", opening=True)


def quoted(problem: Problem, prompt: str) -> str:
    """The thought as it quotes `prompt`, the problem's as somebody typed it.

    A thought quotes the question's first words without a blank before them, as they stand there and in the same
    tokens; after a greeting they have one.
    """
    thinking = problem.thinking
    first = thinking.startswith(MARK) and not thinking.startswith(f"{MARK} ")
    return f"{MARK} {thinking[1:]}" if first and not prompt.startswith(thinking[1:6]) else thinking


CAREFUL = frozenset({"letters", "logic", "units", "equations", "word_problems"})
"""Families in which a changed letter changes the problem, or what the thought says again of it."""


ORDERS = frozenset(FAMILIES) - HONEST - {"word_problems"}
"""Families in which each phrasing is a whole question, the shortest of them nothing but an order."""

_TRIPLED, _TWICE = 20, 2
"""How often more a word is drawn that has a letter more than twice."""

_SHORTEST = 8
"""One in so many phrasings of a kind counts as short."""

_FIRST = 12
"""Sentences at the beginning of a story's lists: the most ordinary, each with choices for thousands."""


@cache
def _held_out_words(family: str) -> frozenset[str]:
    """The words of the family's held-out book, in lower case."""
    return load_book(family, "held_out").vocabulary()


@cache
def _training_book(family: str, words: tuple[str, ...], mixture: Mixture) -> Phrasebook:
    """The train book, its word lists widened by `words` and cleared of the words of the family's held-out book."""
    strange = mixture.strange_words
    book, held_out = load_book(family), load_book(family, "held_out")
    taken = _held_out_words(family)
    lists: dict[str, tuple[str, ...]] = {}
    for name, listed in book.words.items():
        kept = [word for word in listed if word.casefold() not in taken]
        extra = [word.capitalize() if name == "names" else word for word in words if word.casefold() not in taken]
        if family == "letters":
            # Of ordinary words hardly one has a letter three times, and those are the ones that are counted wrongly.
            extra += _TRIPLED * [word for word in extra if max(map(word.count, word)) > _TWICE]
        copies = round(len(extra) * (1 - strange) / (strange * len(kept))) if extra and strange > 0 else 1
        lists[name] = tuple(kept * max(1, copies) + extra)
    said = {template for listed in held_out.kinds.values() for template in listed}
    said |= {template for theme in held_out.themes for template in theme.values()}
    kinds = book.kinds
    if family in ORDERS:
        kinds = {kind: weighted(templates, shortest(templates), mixture.plain) for kind, templates in kinds.items()}
    return replace(book, kinds=kinds, words=lists, without=frozenset(said))


def _ordinary_book(mixture: Mixture) -> Phrasebook:
    """Of stories the first sentences of each list, with names and things from the book alone."""
    book = _training_book("word_problems", (), mixture)
    return replace(book, kinds={kind: templates[:_FIRST] for kind, templates in book.kinds.items()})


def shortest(templates: tuple[str, ...]) -> tuple[str, ...]:
    """The shortest of a kind's phrasings, one in `_SHORTEST`.

    Most are situations; without a weight of their own "What is 3 + 4?" and its like are hardly ever heard.
    """
    by_length = sorted(templates, key=lambda template: len(first_wording(template)))
    return tuple(by_length[: len(templates) // _SHORTEST])


def weighted(templates: tuple[str, ...], some: tuple[str, ...], share: float) -> tuple[str, ...]:
    """`templates`, `some` of them so often that they are about that share of all, or what they are if more."""
    if not some:
        return templates
    copies = round((share * len(templates) / len(some) - 1) / (1 - share))
    return templates + some * max(0, copies)
