"""Luck is a function of (seed, choice, position), and looks like luck."""

from itertools import pairwise

from magister.engine.randomness import choice_seed, uniform


def test_the_same_arguments_give_the_same_luck() -> None:
    assert uniform(5, 17) == uniform(5, 17)
    assert len({uniform(seed, position) for seed in range(50) for position in range(50)}) == 2500


def test_luck_is_evenly_spread_along_positions_and_along_seeds() -> None:
    count = 20_000
    for lucks in (
        [uniform(3, position) for position in range(count)],
        [uniform(seed, 3) for seed in range(count)],
        [uniform(choice_seed(9, choice), 3) for choice in range(count)],
    ):
        bins = [0] * 20
        for luck in lucks:
            assert 0 <= luck < 1
            bins[int(luck * 20)] += 1
        chi_square = sum((bin_ - count / 20) ** 2 / (count / 20) for bin_ in bins)
        assert chi_square < 43.8  # 99.9th percentile of 19 degrees of freedom
        mean = sum(lucks) / count
        pairs = pairwise(lucks)
        correlation = sum((a - mean) * (b - mean) for a, b in pairs) / (count / 12)
        assert abs(correlation) < 0.03


def test_choices_have_seeds_of_their_own() -> None:
    assert choice_seed(123, 0) == 123
    seeds = {choice_seed(seed, choice) for seed in (-(2**63), -1, 0, 1, 2**63 - 1) for choice in range(64)}
    assert len(seeds) == 5 * 64
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)


def test_the_largest_luck_stays_below_any_total() -> None:
    largest = 1 - 2.0**-52
    for total in (1.0, 1.5, 2.0 - 2.0**-52, 1e-300, 3e300):
        assert largest * total < total
