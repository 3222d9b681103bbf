"""Counting, reversing, sorting and numbering the letters of a word, spelled out first.

Half the words are made up here, so that every piece of a word must be learned by its spelling.
Knows nothing of meanings, capitals or sentences.
"""

from __future__ import annotations

import random
import re

from magister.answers import extract, same
from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import BEYOND, Problem, state

NAME = "letters"
LEVELS = 4

_LENGTHS = ((12, 15), (3, 4), (5, 6), (7, 8), (9, 10))
_KINDS = ("count", "reverse", "sort", "length")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_OPENINGS = (
    "b c d f g h j k l m n p qu r s t v w x y z bl br ch cl cr dr dw fl fr gh gl gn gr kn ph pl pr ps rh sc sch "
    "scr sh shr sk sl sm sn sp spl spr st str sw th thr tr tw wh wr y z"
)
_VOWELS = "a e i o u y aa ae ai ao au aw ay ea ee ei eo eu ew ey ia ie io oa oe oi oo ou ow oy ua ue ui uo"
_CLOSINGS = (
    "b c d f g h k l m n p r s t v w x z bb ck ct dd dge ff ft gg ght ld lf lk ll lm lp lt mb mm mp nce nch nd ng "
    "nge nk nn nt nth pp pt rb rd rf rg rk rl rm rn rp rr rt rth sh sk sm sp ss st tch th tt xt zz"
)
_PIECES = (
    "able ace act age al ally ance ant ard ark ase ate ation ble cent cess cial cian cle come con cor counter cy "
    "de der dis dom ed el em en ence end ent er ers ery ess est eth ever ex ful fy graph hood ian ible ic ical "
    "ide ied ies ight ill im in ine ing inter ion ious ise ish ism ist ity ive ize king land less let ling logy "
    "ly man ment meter micro mis multi ness non off ological ome ong or ory ost ough ought ound our ous out over "
    "par per phone port pose pre pro quest ran re round rupt scope ship side sion some spect sta sub super ted "
    "ten ter tern tial tic ties tin ting tion tive tor tra trans tri ture ty ual ude ular ule um un under up ure "
    "use ver ward ware way well wise work"
)


def generate(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    """One question about a word of the book or a made-up one."""
    if not BEYOND <= level <= LEVELS:
        raise ValueError(f"{NAME} has levels 1 to {LEVELS} and BEYOND, got {level}")
    kind, word = rng.choice(_KINDS), _word(rng, level, book)
    letter = _letter(rng, word) if kind == "count" else ""
    lines, answer = think(kind, word, letter)
    upper = rng.random() < 0.08
    slots = {"word": word.capitalize() if upper else word}
    if kind == "count":
        slots["letter"] = letter.upper() if upper and rng.random() < 0.5 else letter
    return Problem(
        family=NAME,
        kind=kind,
        level=level,
        operands=(letter, word) if kind == "count" else (word,),
        prompt=book.phrase(rng, kind, **slots),
        thinking="\n".join(lines),
        answer=answer,
        reply=state(answer, beyond=level == BEYOND),
        spelled=answer if kind in ("reverse", "sort") else "",
    )


def grade(problem: Problem, reply: str) -> bool:
    """Whether the reply gives the word or number; `4 times` and `4 letters` count too."""
    text = extract(reply).strip().strip("\"'“”")
    if problem.kind in ("count", "length"):
        text = re.sub(r"\s*(times?|letters?)\.?$", "", text, flags=re.IGNORECASE)
    elif re.search(r"[^A-Za-z.!]", text):
        return False
    return same(text, problem.answer)


def think(kind: str, word: str, letter: str) -> tuple[list[str], str]:
    """The thought about `word` and the answer.

    The word itself is not said again, only spelled: with another mark before it, it would be other tokens than in
    the question.
    """
    spelled = "-".join(word)
    numbered = [f"{place}{one}" for place, one in enumerate(word, 1)]
    if kind == "count":
        marks, seen = [], 0
        for one in word:
            seen += one == letter
            marks.append(f"{one}{seen}" if one == letter else one)
        return [f"count {letter}", spelled, " ".join(marks), f"count {seen}"], str(seen)
    if kind == "length":
        return ["length", spelled, " ".join(numbered), f"{len(word)} letters"], str(len(word))
    if kind == "reverse":
        return ["reverse", spelled, " ".join(numbered), " ".join(reversed(numbered))], word[::-1]
    # Each letter with the how manyth it is of its kind, so that nothing need be counted: after `a1` comes `a2` if there
    # is one. Then the whole alphabet, so that no step asks which of the word's letters comes next.
    marked = [f"{one}{word[: place + 1].count(one)}" for place, one in enumerate(word)]
    row = [mark for one in _ALPHABET for mark in [mark for mark in marked if mark[0] == one] or [one]]
    return ["sort", spelled, " ".join(marked), " ".join(row)], "".join(sorted(word))


def pseudo_word(rng: random.Random, length: int) -> str:
    """A made-up word: syllables and common pieces, now and then letters at random."""
    if rng.random() < 0.1:
        return "".join(rng.choices(_ALPHABET, k=length))
    word = ""
    while len(word) < length:
        if rng.random() < 0.4:
            word += rng.choice(_PIECES.split())
            continue
        word += rng.choice(_OPENINGS.split()) + rng.choice(_VOWELS.split())
        if rng.random() < 0.5:
            word += rng.choice(_CLOSINGS.split())
    return word[:length] if rng.random() < 0.5 else word[-length:]


def _word(rng: random.Random, level: int, book: Phrasebook) -> str:
    low, high = _LENGTHS[level]
    length = rng.randint(low, high)
    if rng.random() < 0.5:
        known = [word for word in book.words["words"] if len(word) == length]
        if known:
            return rng.choice(known)
    return pseudo_word(rng, length)


def _letter(rng: random.Random, word: str) -> str:
    """Mostly a letter of the word, repeated ones often, sometimes one it lacks."""
    if rng.random() < 0.12:
        return rng.choice([one for one in _ALPHABET if one not in word])
    repeated = sorted(one for one in set(word) if word.count(one) > 1)
    return rng.choice(repeated) if repeated and rng.random() < 0.5 else rng.choice(sorted(set(word)))
