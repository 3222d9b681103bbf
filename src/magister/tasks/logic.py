"""Logic puzzles: people put in order by clues, and people who always lie or always tell the truth.

Knows who stands where and who lies; the sentences come from the book's themes. The statements of the
second sort are symmetric (flip everybody and all still hold), so one sentence of this module's own says
what one of the people is.
"""

from __future__ import annotations

import random
import re
from collections import deque
from typing import NamedTuple

from magister.answers.exact import extract, same
from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import BEYOND, Problem, state
from magister.tasks.quotation import quote

NAME = "logic"
LEVELS = 4

NOBODY = "nobody"

_ORDER_PEOPLE = {1: (3,), 2: (3, 4), 3: (4, 5), 4: (5,), BEYOND: (6, 7)}
_TRUTH_PEOPLE = {1: (2,), 2: (2,), 3: (3,), 4: (3,), BEYOND: (6, 7)}
_ASKS = {"top": 0, "bottom": -1, "second": 1}
_LABELS = {"top": "first", "bottom": "first", "second": "second"}
"""What the thought calls what is asked: it counts from the end that the question names."""
_KNOWN_TRUE = (
    "[[It is known|We know|Everybody agrees|It is certain|It turns out]] that {name} [[|always ]]tells the truth.",
    "{name} is known to tell the truth.",
    "{name} [[always tells the truth|never lies|only ever tells the truth]].",
)
_KNOWN_FALSE = (
    "[[It is known|We know|Everybody agrees|It is certain|It turns out]] that {name} [[|always ]]lies.",
    "{name} is known to lie.",
    "{name} [[always lies|never tells the truth|only ever lies]].",
)


class _Statement(NamedTuple):
    """`by` says that `about` tells the truth (`honest`) or lies; people are counted from 0."""

    by: int
    about: int
    honest: bool


def generate(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    """A puzzle of 3 to 5 people in order, or of 2 or 3 who lie or tell the truth; 6 or 7 beyond."""
    return _order(rng, level, book) if rng.random() < 0.5 else _truth(rng, level, book)


def grade(problem: Problem, reply: str) -> bool:
    """Whether exactly the right names are given, in any order."""
    given = extract(reply)
    if problem.kind == "order":
        return same(given, problem.answer)
    return _names_of(given) == _names_of(problem.answer)


def _names_of(text: str) -> list[str]:
    text = text.strip().rstrip(".!").casefold()
    if text in (NOBODY, "no one", "none", "none of them"):
        return [NOBODY]
    return sorted(part.strip() for part in re.split(r",\s*and\s+|,|\s+and\s+|\s*&\s*", text) if part.strip())


def _order(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    theme = rng.choice([theme for theme in book.themes if "more" in theme])
    people = book.sample(rng, "names", rng.choice(_ORDER_PEOPLE[level]))
    clues = rng.sample(range(len(people) - 1), len(people) - 1)
    ask = rng.choice(tuple(_ASKS))
    turned = ask == "bottom"
    parts: list[str] = []
    meant: list[str] = []
    operands: list[int | str] = [len(people), ask]
    for upper in clues:
        role = rng.choice(("more", "less"))
        a, b = (upper, upper + 1) if role == "more" else (upper + 1, upper)
        parts.append(book.say(rng, (theme[role],), a=people[a], b=people[b]))
        # Over and under as the question counts: its word stands in the clues or does not, whatever the theme.
        meant.append(_named(parts[-1], "over" if (role == "more") != turned else "under", people[a], people[b]))
        operands += [upper, role]
    asked = book.say(rng, (theme[f"ask_{ask}"],))
    prompt = " ".join([*parts, asked])
    # The question first: which of two people is over the other depends on what it names.
    lines = [quote(asked, _LABELS[ask])]
    lines += [quote(part, one, first=not place) for place, (part, one) in enumerate(zip(parts, meant, strict=True))]
    row = people[::-1] if turned else people
    at = len(row) - 2 - clues[0] if turned else clues[0]
    # A blank before every name: inside a sentence a name is another token than at the start of a line.
    lines.append("down " + ", ".join(row[at:]))
    lines.append("up " + ", ".join(row[at::-1]))
    lines.append("line " + ", ".join(row))
    answer = people[_ASKS[ask]]
    lines.append(f"so {_LABELS[ask]} {answer}")
    return _problem("order", level, tuple(operands), prompt, lines, answer)


def _named(sentence: str, link: str, a: str, b: str) -> str:
    """`a over b`, or `b under a` where the sentence names b first: names are copied in the order they stand in."""
    turned = {"over": "under", "under": "over"}
    return f"{a} {link} {b}" if _place(sentence, a) < _place(sentence, b) else f"{b} {turned.get(link, link)} {a}"


def _place(sentence: str, name: str) -> int:
    found = re.search(rf"\b{re.escape(name)}\b", sentence)
    assert found is not None
    return found.start()


def _truth(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    theme = rng.choice([theme for theme in book.themes if "liar" in theme])
    people = book.sample(rng, "names", rng.choice(_TRUTH_PEOPLE[level]))
    truths = [rng.random() < 0.5 for _ in people]
    extra = 1 if level in (2, 4) else 0
    statements = _statements(rng, truths, extra)
    anchor = rng.randrange(len(people))
    known = book.say(rng, _KNOWN_TRUE if truths[anchor] else _KNOWN_FALSE, name=people[anchor])
    intro = book.say(rng, (theme["intro"],), names=", ".join(people[:-1]) + f" and {people[-1]}")
    said = [
        book.say(
            rng, (theme["honest" if statement.honest else "liar"],), a=people[statement.by], b=people[statement.about]
        )
        for statement in statements
    ]
    meant = [
        _named(part, "like" if honest else "unlike", people[by], people[about])
        for part, (by, about, honest) in zip(said, statements, strict=True)
    ]
    fact = f"{people[anchor]} {_word(truths[anchor])}"
    early = rng.random() < 0.5
    body = [known, *said] if early else [*said, known]
    prompt = " ".join([intro, *body, book.say(rng, (theme["ask"],))])
    operands: list[int | str] = [len(people), anchor, _word(truths[anchor]), "early" if early else "late"]
    for statement in statements:
        operands += [statement.by, statement.about, _word(statement.honest)]
    lines = list(map(quote, body, [fact, *meant] if early else [*meant, fact]))
    deduced, order = _deductions(people, truths, statements, meant, anchor)
    lines += deduced
    answer = ", ".join(people[one] for one in order if truths[one]) or NOBODY
    lines.append(f"so truth {answer}")
    return _problem("truth", level, tuple(operands), prompt, lines, answer)


def _statements(rng: random.Random, truths: list[bool], extra: int) -> list[_Statement]:
    """Statements that link everybody, and `extra` more, as these people would make them."""
    joined = rng.sample(range(len(truths)), len(truths))
    pairs = []
    for place in range(1, len(joined)):
        pair = [joined[place], joined[rng.randrange(place)]]
        rng.shuffle(pair)
        pairs.append((pair[0], pair[1]))
    left = [(a, b) for a in range(len(truths)) for b in range(len(truths)) if a != b and (a, b) not in pairs]
    pairs += rng.sample(left, extra)
    rng.shuffle(pairs)
    # A liar who speaks of a liar calls them honest, as one honest person does of another.
    return [_Statement(a, b, truths[a] == truths[b]) for a, b in pairs]


def _deductions(
    people: list[str], truths: list[bool], statements: list[_Statement], meant: list[str], anchor: int
) -> tuple[list[str], list[int]]:
    """A line for each look at a statement until none is left, and the order in which people are found out.

    Who calls somebody honest is like them, who calls them a liar is unlike them, whoever of the two lies. Statements
    are taken in turn, never picked: which is next, whose fact it wants and what follows are three small steps. Those
    that tell nothing new are looked at too: that everybody is found out need not be noticed.
    """
    facts = [f"{name} {_word(truth)}" for name, truth in zip(people, truths, strict=True)]
    lines, known = [], [anchor]
    waiting = deque(zip(statements, meant, strict=True))
    while waiting:
        statement, words = waiting.popleft()
        old = [one for one in (statement.by, statement.about) if one in known]
        new = [one for one in (statement.by, statement.about) if one not in known]
        if old and new:
            found = f"{facts[old[0]]}, {facts[new[0]]}"
            known += new
        elif old:
            found = "known"
        else:
            found = "later"
            waiting.append((statement, words))
        # A blank first, as behind the sentence: the statement is copied in the same tokens.
        lines.append(f" {words}: {found}")
    return lines, known


def _word(truth: bool) -> str:
    return "truth" if truth else "lies"


def _problem(
    kind: str, level: int, operands: tuple[int | str, ...], prompt: str, lines: list[str], answer: str
) -> Problem:
    return Problem(
        family=NAME,
        kind=kind,
        level=level,
        operands=operands,
        prompt=prompt,
        thinking="\n".join(lines),
        answer=answer,
        reply=state(answer, beyond=level == BEYOND),
    )
