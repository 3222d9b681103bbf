"""What is guessed, and when it pays."""

import pytest

from magister.engine.speculation import Confidence, NGrams


@pytest.mark.parametrize(
    ("ids", "count", "guess"),
    [
        ([], 3, ()),
        ([1], 3, ()),
        ([1, 2, 3, 4], 3, ()),
        ([1, 2, 3, 9, 1, 2], 2, (3, 9)),
        ([1, 2, 3, 1, 2, 3, 1, 2], 7, (3, 1, 2, 3, 1, 2, 3)),
        ([5, 5, 5], 4, (5, 5, 5, 5)),
        ([1, 2, 7, 1, 2, 8, 1, 2], 1, (8,)),
        ([0, 1, 2, 7, 9, 1, 2, 8, 0, 1, 2], 1, (7,)),
    ],
)
def test_what_followed_last_time_is_guessed_longer_context_first(
    ids: list[int], count: int, guess: tuple[int, ...]
) -> None:
    assert NGrams(ids).follow(count) == guess


def test_a_list_that_grows_is_the_list_read_at_once() -> None:
    whole = [1, 2, 3, 1, 2, 4, 1, 2, 3, 4, 1, 2, 4, 4, 4, 2, 1, 2]
    ids: list[int] = []
    growing = NGrams(ids)
    for id_ in whole:
        ids.append(id_)
        assert growing.follow(3) == NGrams(ids.copy()).follow(3)


def _tokens_a_cost(chance: float, row_cost: float, streams: int, guesses: int) -> float:
    tokens = streams + sum(chance**place for place in range(1, guesses + 1))
    return tokens / (1 + row_cost * (streams - 1 + guesses))


@pytest.mark.parametrize("row_cost", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("streams", [1, 4, 64])
@pytest.mark.parametrize("chance", [0.1, 0.6, 0.95, 1.0])
def test_as_many_guesses_as_give_the_most_tokens_for_the_time(chance: float, streams: int, row_cost: float) -> None:
    confidence = Confidence(8, row_cost)
    confidence.chance = chance
    best = max(range(9), key=lambda guesses: (round(_tokens_a_cost(chance, row_cost, streams, guesses), 12), -guesses))
    made = confidence.guesses(streams)
    assert made == best


def test_chances_are_learnt_and_hope_comes_back() -> None:
    confidence = Confidence(8, 0.3)
    assert confidence.guesses(1) == 1
    for _ in range(30):
        confidence.learn(4, 0)
    assert confidence.guesses(1) == 0
    tries = [confidence.guesses(1) for _ in range(200)]
    assert sum(count > 0 for count in tries) > 0
    for _ in range(60):
        confidence.learn(4, 4)
    assert confidence.guesses(1) == 8
