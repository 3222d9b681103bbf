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
from magister.tasks.quotation import MARK
from magister.train.noise import retype


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
        """`words`: lower-case words of any kind, for names, nouns and spelling; held-out ones are dropped here."""
        self._mixture = mixture
        self._names = [name for name, _ in mixture.families]
        self._weights = [weight for _, weight in mixture.families]
        self._books = {name: _training_book(name, words, mixture.strange_words) for name in self._names}

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

    def _turn(self, rng: random.Random) -> Turn:
        mixture = self._mixture
        problem = self._problem(rng)
        prompt = problem.prompt
        if rng.random() < mixture.noise:
            prompt = retype(rng, prompt, careful=problem.family in CAREFUL)
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

    def _problem(self, rng: random.Random) -> Problem:
        name = rng.choices(self._names, self._weights)[0]
        level = rng.randint(1, FAMILIES[name].LEVELS)
        if name not in HONEST and rng.random() < self._mixture.beyond:
            level = BEYOND
        return draw(FAMILIES[name], rng, level, self._books[name], Split.TRAIN)


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


@cache
def _training_book(family: str, words: tuple[str, ...], strange: float) -> Phrasebook:
    """The train book, its word lists widened by `words` and cleared of every held-out word."""
    book, held_out = load_book(family), load_book(family, "held_out")
    taken = {word.casefold() for listed in held_out.words.values() for word in listed}
    lists: dict[str, tuple[str, ...]] = {}
    for name, listed in book.words.items():
        kept = [word for word in listed if word.casefold() not in taken]
        extra = [word.capitalize() if name == "names" else word for word in words if word.casefold() not in taken]
        copies = round(len(extra) * (1 - strange) / (strange * len(kept))) if extra and strange > 0 else 1
        lists[name] = tuple(kept * max(1, copies) + extra)
    said = {template for listed in held_out.kinds.values() for template in listed}
    said |= {template for theme in held_out.themes for template in theme.values()}
    return replace(book, words=lists, without=frozenset(said))
