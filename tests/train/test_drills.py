"""Drills: what is learned in one follows from what stands before it, and nothing held out is in one."""

import random
import re

import pytest

from magister.cli import places
from magister.tasks import is_held_out
from magister.text.tokenizer import Tokenizer, load_tokenizer
from magister.train import nano
from magister.train.drills import Drills, held_out_words
from magister.train.packing import Sequence
from magister.train.vocabulary import plain_words, real_ranks


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(places.find("nano") / "tekken.json")


@pytest.fixture(scope="module")
def drills(tokenizer: Tokenizer) -> Drills:
    return nano.make_drills(tokenizer, plain_words(real_ranks()))


def drawn(drills: Drills, count: int = 400) -> list[Sequence]:
    rng = random.Random(7)
    return [drills.draw(rng) for _ in range(count)]


def test_the_first_token_is_given_and_something_is_learned(drills: Drills) -> None:
    for sequence in drawn(drills):
        assert sequence.ids[0] == drills.begin
        assert not sequence.learn[0]
        assert any(sequence.learn)
        assert len(sequence.ids) == len(sequence.learn) <= 512


def test_what_is_learned_of_copies_stood_there_before(drills: Drills, tokenizer: Tokenizer) -> None:
    others = re.compile(r"spell|=\d|:\d|/\d+ no|^ ?([A-Z]\w+): ?\1$", re.MULTILINE)
    copies = [s for s in drawn(drills, 1200) if not others.search(tokenizer.decode(s.ids[1:]))]
    assert len(copies) > 100
    for sequence in copies:
        pairs = set()
        for at in range(1, len(sequence.ids)):
            if sequence.learn[at]:
                assert sequence.ids[at] in sequence.ids[1:at]
                # A token after the same token: induction can find it.
                assert (sequence.ids[at - 1], sequence.ids[at]) in pairs
            pairs.add((sequence.ids[at - 1], sequence.ids[at]))


def test_words_are_spelled_and_facts_are_true(drills: Drills, tokenizer: Tokenizer) -> None:
    spelled = equations = said_again = 0
    for sequence in drawn(drills, 600):
        text = tokenizer.decode(sequence.ids[1:])
        for word, letters in re.findall(r'spell[ :]"?(\w+)"?\n([\w-]+)\n', text):
            assert letters == "-".join(word.lower())
            spelled += 1
        for left, right in re.findall(r"^([\d+*-]+)=(-?\d+)$", text, flags=re.MULTILINE):
            assert eval(left) == int(right)
            equations += 1
        for first, again in re.findall(r"^ ?([A-Z]\w+): ?([A-Z]\w+)$", text, flags=re.MULTILINE):
            assert first == again
            assert first.casefold() not in drills.without
            said_again += 1
    assert said_again > 300
    assert spelled > 500
    assert equations > 500


def test_nothing_held_out_is_drilled(drills: Drills, tokenizer: Tokenizer) -> None:
    without = held_out_words()
    assert len(without) > 100
    for sequence in drawn(drills):
        assert not {tokenizer.decode([id_]).strip().casefold() for id_ in sequence.ids[1:]} & without
        text = tokenizer.decode(sequence.ids[1:])
        for a, sign, b in re.findall(r"^(\d+)([+-])(\d+)=", text, flags=re.MULTILINE):
            if int(a) > 9 or int(b) > 9:
                assert not is_held_out("arithmetic", "add" if sign == "+" else "sub", (int(a), int(b)))
