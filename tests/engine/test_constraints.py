"""The thinking cap and the stop strings, as automata."""

import random

import pytest

from magister.engine.constraints import Found, StopStrings, Thought, reserve


def _said(thought: Thought, *ids: int) -> tuple[int | None, int | None]:
    for id_ in ids:
        thought.push(id_)
    return thought.forced, thought.banned


def test_a_thought_is_closed_when_its_tokens_are_spent_and_none_opens_again() -> None:
    thought = Thought(1, 2, 3, 100, inside=False)
    assert _said(thought) == (None, None)
    assert _said(thought, 1, 7, 7) == (None, None)
    assert _said(thought, 7) == (2, None)
    assert _said(thought, 2) == (None, 1)
    assert _said(thought, 7, 7) == (None, 1)


def test_what_one_thought_leaves_the_next_may_use() -> None:
    thought = Thought(1, 2, 3, 100, inside=False)
    assert _said(thought, 1, 7, 2, 9, 9) == (None, None)
    assert _said(thought, 1, 7, 7) == (2, None)


def test_zero_forbids_a_thought_and_closes_an_open_one() -> None:
    assert _said(Thought(1, 2, 0, 100, inside=False)) == (None, 1)
    assert _said(Thought(1, 2, 0, 100, inside=True)) == (2, None)


def test_a_thought_is_closed_early_enough_to_leave_a_quarter_for_the_answer() -> None:
    thought = Thought(1, 2, 1000, 20, inside=False)
    assert reserve(20) == 5
    assert _said(thought, 1, *[7] * 12) == (None, None)
    assert _said(thought, 7) == (2, None)
    assert _said(thought, 2) == (None, 1)
    assert reserve(20) == 20 - 15


def test_a_thought_that_could_hold_nothing_does_not_open() -> None:
    assert _said(Thought(1, 2, 1000, 1, inside=False)) == (None, 1)
    assert _said(Thought(1, 2, 1000, 20, inside=False), *[7] * 12) == (None, None)
    assert _said(Thought(1, 2, 1000, 20, inside=False), *[7] * 13) == (None, 1)
    assert _said(Thought(1, 2, 1000, 1, inside=True)) == (2, None)


@pytest.mark.parametrize(("room", "kept"), [(1, 0), (3, 0), (4, 1), (2048, 512), (40_000, 512)])
def test_the_reserve(room: int, kept: int) -> None:
    assert reserve(room) == kept


def test_a_copy_goes_its_own_way() -> None:
    thought = Thought(1, 2, 3, 100, inside=True)
    twin = thought.copy()
    assert _said(twin, 7, 7, 7) == (2, None)
    assert _said(thought) == (None, None)


@pytest.mark.parametrize(
    ("stops", "pieces", "found"),
    [
        (["stop"], [b"no stop"], Found("stop", 4)),
        (["stop"], [b"s", b"t", b"o", b"p!"], Found("stop", 5)),
        (["aab"], [b"aa", b"ab", b"c"], Found("aab", 3)),
        (["€"], [b"a\xe2", b"\x82", b"\xacb"], Found("€", 4)),
        (["abcd", "bc"], [b"abcd"], Found("bc", 3)),
        (["bc", "abc"], [b"abc"], Found("abc", 3)),
        (["ab"], [b"a", b"", b"b"], None),
        (["abc"], [b"ab", b"ab", b"ab"], None),
    ],
)
def test_stop_strings(stops: list[str], pieces: list[bytes], found: Found | None) -> None:
    automaton = StopStrings(stops)
    results = [automaton.push(piece) for piece in pieces]
    assert next((result for result in results if result is not None), None) == found


def test_what_is_held_is_the_longest_end_that_may_go_on() -> None:
    automaton = StopStrings(["abac", "ba"])
    held = []
    for piece in (b"x", b"a", b"b", b"b", b"y"):
        assert automaton.push(piece) is None
        held.append(automaton.held)
    assert held == [0, 1, 2, 1, 0]


def test_any_cut_into_tokens_finds_the_same_stop() -> None:
    chance = random.Random(0)
    for _ in range(500):
        text = bytes(chance.choice(b"ab") for _ in range(chance.randint(1, 20)))
        stops = ["".join(chance.choice("ab") for _ in range(chance.randint(1, 5))) for _ in range(chance.randint(1, 3))]
        ends = [(text.find(stop.encode()) + len(stop), -len(stop)) for stop in stops if stop.encode() in text]
        automaton, said, found = StopStrings(stops), b"", None
        while said != text and found is None:
            piece = text[len(said) : len(said) + chance.randint(1, 4)]
            before = len(said) - automaton.held
            said += piece
            found = automaton.push(piece)
        if not ends:
            assert found is None
            continue
        assert found is not None
        end, minus_length = min(ends)
        assert len(said) - found.trim == end + minus_length
        assert before <= end + minus_length, "a byte of the stop string was let go"
