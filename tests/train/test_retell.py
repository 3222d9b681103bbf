"""Stories told as people tell them: what changes in the prompt changes in the quotations, and nothing else does."""

from __future__ import annotations

import random
import re

import pytest
from tests.tasks import checks

from magister.cli import places
from magister.tasks import FAMILIES, Problem, Split, load_book
from magister.tasks.family import draw
from magister.tasks.quotation import MARK
from magister.text.tokenizer import load_tokenizer
from magister.train import nano, retell
from magister.train.conversations import Conversation, Turn
from magister.train.retell import _Told, retold

NAMES = frozenset(load_book("word_problems").words["names"])
NUMBERS = ["two", "three", "four", "five", "six", "seven", "eight", "nine"]
WORDS = {word: str(number) for number, word in enumerate(NUMBERS, 2)}


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Problem, Problem]]:
    """Stories, and what became of them where every way of telling is taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retell, "_HOW_OFTEN", 1.0)
        rng, book, family = random.Random(3), load_book("word_problems"), FAMILIES["word_problems"]
        drawn = (draw(family, rng, 1 + at % family.LEVELS, book, Split.TRAIN) for at in range(1500))
        return [(one, retold(rng, one, NAMES)) for one in drawn]


def test_quotations_stand_in_the_prompt_and_sums_stay(pairs: list[tuple[Problem, Problem]]) -> None:
    for before, after in pairs:
        checks.retells(after)
        assert after.answer == before.answer
        for old, new in zip(before.thinking.split("\n"), after.thinking.split("\n"), strict=True):
            if old.startswith(MARK):
                assert new.rsplit(": ", 1)[1] == old.rsplit(": ", 1)[1]
            else:
                assert new == old


def test_the_numbers_are_the_same_in_words_or_figures(pairs: list[tuple[Problem, Problem]]) -> None:
    spelled = 0
    for before, after in pairs:
        told = [re.findall(r"\d+", _in_figures(one.prompt)) for one in (before, after)]
        assert told[0] == told[1], after.prompt
        assert not re.search(r"\d(?:two|three|four|five|six|seven|eight|nine)|(?:two|five|nine)\d", after.prompt)
        spelled += before.prompt != after.prompt
    assert spelled > 700


def _in_figures(text: str) -> str:
    return re.sub(rf"\b({'|'.join(WORDS)})\b", lambda match: WORDS[match[1]], text)


def test_a_person_is_named_before_there_is_a_pronoun_and_two_people_have_none(
    pairs: list[tuple[Problem, Problem]],
) -> None:
    pronouns = joined = 0
    for before, after in pairs:
        fresh = re.findall(r"\b(?:He|She)\b", after.prompt)
        if not fresh or re.search(r"\b(?:He|She)\b", before.prompt):
            continue
        pronouns += 1
        assert len(set(fresh)) == 1
        assert ": other " not in after.thinking
        assert any(name in re.split(rf"\b{fresh[0]}\b", after.prompt)[0] for name in NAMES)
    joined = sum(bool(re.search(r", (and|then) ", after.prompt)) for _, after in pairs)
    assert pronouns > 300
    assert joined > 500
    assert sum("of them" in after.prompt and "of them" not in before.prompt for before, after in pairs) > 100


def test_few_stories_change_and_wholes_never_do() -> None:
    rng, book, family = random.Random(3), load_book("word_problems"), FAMILIES["word_problems"]
    drawn = [draw(family, rng, 1 + at % family.LEVELS, book, Split.TRAIN) for at in range(800)]
    changed = [one for one in drawn if retold(rng, one, NAMES) != one]
    assert 0.1 < len(changed) / len(drawn) < 0.35
    assert {one.kind for one in changed} == {"story"}


def test_of_two_words_that_may_be_names_the_one_inside_sentences_is_the_person() -> None:
    told = [_Told("", "The crates of Darius are 4", ""), _Told(". ", "The rest is for Darius", "")]
    # Sets have another order in another process; what is said must not.
    for names in (frozenset({"The", "Darius"}), frozenset({"Darius", "The", "Ada"})):
        assert retell._person(told, names) == "Darius"
    tied = [_Told("", "Zoe and Ada go", ""), _Told(". ", "Ada and Zoe stay", "")]
    assert retell._person(tied, frozenset({"Ada", "Zoe"})) == "Zoe"


def test_the_longest_story_fits_a_row(pairs: list[tuple[Problem, Problem]]) -> None:
    encoder = nano.make_encoder(load_tokenizer(places.find("nano") / "tekken.json"))
    for _, after in pairs:
        whole = encoder.encode(Conversation((Turn(after.prompt, after.thinking, after.reply),)))
        assert len(whole.ids) < nano.NanoRun().row_length
