"""Medians, pairs, and what counts as reached."""

import itertools

import pytest
from bench.measure import Sample, Side, Target, alternate, decode, prefill, prompts, record, throughput
from bench.process import Answer, Question


def samples(*values: float) -> list[Sample]:
    return [Sample(value, value * 2) for value in values]


def answer(first: float, total: float, cpu: float) -> Answer:
    return Answer(first=first, total=total, cpu=cpu, peak_bytes=0, extra={})


def test_sides_are_asked_in_turn_and_warm_rounds_do_not_count() -> None:
    clock = itertools.count()
    asked: list[str] = []

    def side(name: str) -> Sample:
        asked.append(name)
        return Sample(next(clock))

    rounds = alternate([lambda i: side("a"), lambda i: side("b")], repetitions=2, warm=1)
    assert asked == ["a", "b"] * 3
    assert [[sample.value for sample in pair] for pair in rounds] == [[2, 3], [4, 5]]


def test_the_ratio_is_the_median_of_pairs_and_not_that_of_medians() -> None:
    found = record(Side("us", samples(10, 20, 90)), Side("them", samples(5, 20, 30)), Target(ratio=2.0))
    assert found["ratio"] == 2.0
    assert found["ratio_per_cpu"] == 2.0
    assert (found["ours"]["median"], found["peer"]["median"]) == (20, 20)
    assert found["reached"] is True
    assert record(Side("us", samples(19)), Side("them", samples(10)), Target(ratio=2.0))["reached"] is False


def test_a_figure_alone_is_held_to_its_limit() -> None:
    assert record(Side("us", samples(2, 3, 4)), None, Target(most=3))["reached"] is True
    assert record(Side("us", samples(2, 4, 4)), None, Target(most=3))["reached"] is False
    assert record(Side("us", samples(2, 3, 4)), None, Target(least=3))["reached"] is True
    assert record(Side("us", samples(2, 2, 4)), None, Target(least=3))["reached"] is False


def test_a_peer_that_does_not_run_leaves_our_figure_and_its_reason() -> None:
    found = record(Side("us", samples(2)), Side("them", refused="it crashed"), Target(ratio=1.2))
    assert found["reached"] is None
    assert found["ours"]["samples"] == [2]
    assert found["peer"]["refused"] == "it crashed"
    assert "ratio" not in found


def test_rates_count_what_their_names_say() -> None:
    one = Question([[1, 2, 3, 4]], tokens=11)
    assert decode(one, answer(first=1.0, total=3.0, cpu=1.0)) == Sample(5.0, 11.0)
    assert prefill(one, answer(first=2.0, total=9.0, cpu=4.0)) == Sample(2.0, 1.0)
    many = Question([[1], [2], [3]], tokens=10, n=2)
    assert throughput(many, answer(first=1.0, total=6.0, cpu=12.0)) == Sample(10.0, 5.0)


def test_no_repetition_asks_what_another_asked() -> None:
    asked = [tuple(ids) for repetition in range(6) for ids in prompts(repetition, 3, 16)]
    assert len(set(asked)) == len(asked)
    assert prompts(4, 3, 16) == prompts(4, 3, 16)


def test_a_target_is_one_thing() -> None:
    with pytest.raises(AssertionError):
        Target()
    with pytest.raises(AssertionError):
        Target(ratio=1.0, most=1.0)
