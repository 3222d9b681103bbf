"""Every field of `Sampling` that shapes a distribution, against the definition written out in float64."""

import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from magister.engine.sampler import Row, Sampler
from magister.types import Sampling

V = 700
CPU = torch.device("cpu")


def _logits(seed: int = 0, rows: int = 1, scale: float = 2.0) -> Tensor:
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(seed)) * scale


def _definition(logits_v: Tensor, row: Row, never: tuple[int, ...] = ()) -> Tensor:
    """The distribution a row is drawn from, one step after the other, each on the outcome of the one before."""
    s = row.sampling
    x = logits_v.double().clone()
    for id_, count in row.counts.items():
        x[id_] -= s.presence_penalty + s.frequency_penalty * count
    for id_, bias in s.logit_bias.items():
        x[id_] += bias
    x[[*never, *([] if row.banned is None else [row.banned])]] = -math.inf
    if s.temperature == 0:
        return torch.nn.functional.one_hot(x.argmax(), V).double()
    p = (x / s.temperature).softmax(-1)
    order = p.argsort(descending=True)
    if s.top_k:
        p[order[s.top_k :]] = 0
        p /= p.sum()
    if s.top_p < 1:
        before = p[order].cumsum(-1) - p[order]
        p[order[before >= s.top_p]] = 0
        p /= p.sum()
    p[p < s.min_p * p.max()] = 0
    return p / p.sum()


CASES: list[dict[str, Any]] = [
    {},
    {"temperature": 0.3},
    {"temperature": 1.7},
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": 300},
    {"top_k": 5000},
    {"top_p": 0.9},
    {"top_p": 0.05},
    {"top_p": 0.001},
    {"top_p": 0.999},
    {"min_p": 0.1},
    {"top_k": 30, "top_p": 0.8},
    {"top_k": 300, "top_p": 0.95, "min_p": 0.01, "temperature": 0.8},
    {"logit_bias": {3: 5.0, 9: -100.0}},
    {"frequency_penalty": 0.7},
    {"presence_penalty": -1.5},
    {"frequency_penalty": 2.0, "presence_penalty": 1.0, "logit_bias": {1: 4.0, 2: -1.0}, "top_p": 0.9},
    {"temperature": 0.0, "logit_bias": {5: 50.0}},
    {"logit_bias": {id_: id_ % 7 - 3.0 for id_ in range(0, V, 2)}, "frequency_penalty": 0.5},
    {"temperature": 0.8, "logit_bias": {id_: id_ % 5 - 2.0 for id_ in range(V)}},
    {"temperature": 0.0, "top_p": 0.5, "top_k": 3, "min_p": 0.5},
]


@pytest.mark.parametrize("fields", CASES, ids=lambda fields: str(fields)[:60])
@pytest.mark.parametrize("flat", [False, True])
def test_every_token_is_drawn_for_just_its_share_of_luck(fields: dict[str, Any], flat: bool) -> None:
    """Luck in the middle of a token's share of [0, 1) must give that token, were the share as small as 1e-5."""
    logits_1v = _logits(1, scale=0.01 if flat else 2.0)
    never = (0, 699)
    values = {"temperature": 1.0, "logprobs": True} | fields
    row = Row(Sampling(**values), counts={1: 3, 2: 1, 50: 7}, banned=17)
    p = _definition(logits_1v[0], row, never)
    kept = (p > 1e-5).nonzero().flatten()
    middles = (p.cumsum(-1) - p / 2)[kept].tolist()
    rows = [row._replace(uniform=middle) for middle in middles]
    drawn = Sampler(V, never, CPU).draw(logits_1v.expand(len(rows), -1), rows)
    assert [one.id for one in drawn if one is not None] == kept.tolist()
    said = torch.tensor([one.report.sampled_logprob for one in drawn if one is not None and one.report is not None])
    torch.testing.assert_close(said.double(), p[kept].log(), rtol=0, atol=1e-5)


def test_reports_are_of_the_untouched_distribution() -> None:
    logits_bv = _logits(2, rows=3)
    sampling = Sampling(temperature=0.4, top_k=2, logit_bias={4: 9.0}, logprobs=True, top_logprobs=4)
    rows = [Row(sampling, luck) for luck in (0.1, 0.5, 0.9)]
    logprobs_bv = logits_bv.double().log_softmax(-1)
    for index, drawn in enumerate(Sampler(V, (7,), CPU).draw(logits_bv, rows)):
        assert drawn is not None
        assert drawn.report is not None
        assert drawn.report.logprob == pytest.approx(float(logprobs_bv[index, drawn.id]), abs=1e-5)
        entropy = -(logprobs_bv[index].exp() * logprobs_bv[index]).sum()
        assert drawn.report.entropy == pytest.approx(float(entropy), abs=1e-4)
        values, ids = logprobs_bv[index].topk(4)
        assert [alternative.id for alternative in drawn.report.top] == ids.tolist()
        assert [alternative.logprob for alternative in drawn.report.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_a_row_draws_the_same_alone_and_beside_others() -> None:
    kinds = [Sampling(**({"temperature": 0.9, "logprobs": True} | fields)) for fields in CASES]
    kinds += [Sampling(temperature=0), Sampling(temperature=1, logprobs=True, top_logprobs=20)]
    logits_bv = _logits(3, rows=len(kinds))
    rows = [Row(kind, (index + 0.5) / len(kinds), {index: 2}) for index, kind in enumerate(kinds)]
    rows[2] = rows[2]._replace(forced=11)
    rows[3] = rows[3]._replace(banned=int(logits_bv[3].argmax()))
    sampler = Sampler(V, (1, 2), CPU)
    alone = [sampler.draw(logits_bv[index : index + 1], [row])[0] for index, row in enumerate(rows)]
    for one, other in zip(alone, sampler.draw(logits_bv, rows), strict=True):
        assert one is not None
        assert other is not None
        assert (one.id, one.forced) == (other.id, other.forced)
        assert (one.report is None) == (other.report is None)
        if one.report is not None and other.report is not None:
            assert one.report[:3] == pytest.approx(other.report[:3], abs=1e-5)
            assert [a.id for a in one.report.top] == [a.id for a in other.report.top]


def test_a_forced_token_is_certain_but_keeps_its_own_logprob() -> None:
    logits_1v = _logits(4)
    row = Row(Sampling(temperature=1, logprobs=True), 0.5, forced=123, banned=123)
    drawn = Sampler(V, (123,), CPU).draw(logits_1v, [row])[0]
    assert drawn is not None
    assert drawn.report is not None
    assert (drawn.id, drawn.forced, drawn.report.sampled_logprob) == (123, True, 0.0)
    assert drawn.report.logprob == pytest.approx(float(logits_1v[0].log_softmax(-1)[123]), abs=1e-5)


def test_rows_that_are_not_finite_give_nothing_and_disturb_nobody() -> None:
    for sampling in (
        Sampling(temperature=0),
        Sampling(temperature=1, logprobs=True),
        Sampling(temperature=1, top_p=0.9),
    ):
        logits_bv = _logits(5, rows=4)
        rows = [Row(sampling, 0.3)] * 4
        sampler = Sampler(V, (), CPU)
        clean = sampler.draw(logits_bv, rows)
        logits_bv[0, 5] = math.nan
        logits_bv[1, 6] = math.inf
        logits_bv[2] = -math.inf
        drawn = sampler.draw(logits_bv, rows)
        assert drawn[:3] == [None, None, None]
        assert drawn[3] == clean[3]


@pytest.mark.parametrize("temperature", [1e-4, 1e-20, 1e-40, 5e-324])
def test_the_coldest_temperatures_are_greedy(temperature: float) -> None:
    logits_1v = _logits(6)
    for luck in (0.0, 0.5, 1 - 2.0**-52):
        drawn = Sampler(V, (), CPU).draw(logits_1v, [Row(Sampling(temperature=temperature), luck)])[0]
        assert drawn is not None
        assert drawn.id == int(logits_1v.argmax())


@pytest.mark.parametrize("temperature", [1e30, 1e46, 1e300])
def test_the_hottest_temperatures_draw_any_token_but_one_ruled_out(temperature: float) -> None:
    hot = Row(Sampling(temperature=temperature), banned=698)
    for rows in ([hot], [hot, Row(Sampling(temperature=0.7))]):
        for luck, id_ in ((0.0, 1), (0.5, 350), (1 - 2.0**-52, 697)):
            rows[0] = hot._replace(uniform=luck)
            drawn = Sampler(V, (0, 699), CPU).draw(_logits(6, rows=len(rows)), rows)[0]
            assert drawn is not None
            assert abs(drawn.id - id_) <= 1


def test_the_largest_biases_decide_and_are_numbers() -> None:
    for temperature in (5e-324, 0.7, 1e300):
        row = Row(Sampling(temperature=temperature, logit_bias={7: 1e30, 9: -1e30}), 0.5, counts={7: 10**6})
        drawn = Sampler(V, (), CPU).draw(_logits(6), [row])[0]
        assert drawn is not None
        assert drawn.id == 7 or temperature > 1e30


def test_a_bias_for_each_token_costs_its_length_once() -> None:
    """Laying out what 131,072 tokens are given takes 60 ms or more; adding it takes less than one."""
    size = 1 << 17
    sampler, logits_1v = Sampler(size, (), CPU), torch.randn(1, size, generator=torch.Generator().manual_seed(0))
    plain = Row(Sampling(temperature=0.7), 0.5)
    rows = [Row(Sampling(temperature=0.7, logit_bias=dict.fromkeys(range(size), 0.5)), 0.5)]
    first, expected = sampler.draw(logits_1v, rows), sampler.draw(logits_1v, [plain])
    assert first == expected, "what all are given moves nobody"
    sampler.draw(logits_1v, rows)
    began = time.thread_time()
    for _ in range(40):
        assert sampler.draw(logits_1v, rows) == expected
    assert time.thread_time() - began < 1.0
    # Another request in the same place has its own.
    rows = [Row(Sampling(temperature=0.0, logit_bias=dict.fromkeys(range(100), 0.0) | {77: 99.0}))]
    assert [one.id for one in sampler.draw(logits_1v, rows) if one] == [77]


def test_the_ends_of_luck_give_tokens_that_can_be_drawn() -> None:
    logits_1v = torch.full((1, V), -math.inf)
    logits_1v[0, [3, 5]] = torch.tensor([1.0, 2.0])
    for luck, id_ in ((0.0, 3), (1 - 2.0**-52, 5)):
        drawn = Sampler(V, (), CPU).draw(logits_1v, [Row(Sampling(temperature=1), luck)])[0]
        assert drawn is not None
        assert drawn.id == id_


def test_ties_at_the_border_are_kept() -> None:
    logits_1v = torch.zeros(1, V)
    rows = [Row(Sampling(temperature=1, top_k=5), (index + 0.5) / V) for index in range(V)]
    drawn = Sampler(V, (), CPU).draw(logits_1v.expand(V, -1), rows)
    assert [one.id for one in drawn if one is not None] == list(range(V))


def test_half_precision_logits_are_read_as_float32() -> None:
    logits_1v = _logits(7).bfloat16()
    row = Row(Sampling(temperature=0.8, top_p=0.9, logprobs=True), 0.37)
    sampler = Sampler(V, (), CPU)
    assert sampler.draw(logits_1v, [row]) == sampler.draw(logits_1v.float(), [row])


def test_no_rows_are_no_trouble() -> None:
    assert Sampler(V, (), CPU).draw(torch.empty(0, V), []) == []


@pytest.mark.parametrize("top_p", [0.001, 0.4, 0.9, 0.999])
def test_a_row_draws_the_same_whether_or_not_it_is_asked_for_logprobs(top_p: float) -> None:
    """Without them, rows of which only the likeliest token is kept take a shorter way."""
    peaked_1v, tied_1v = _logits(8, scale=8.0), _logits(9)
    tied_1v[0, [3, 600]] = tied_1v.max() + 1
    sampler = Sampler(V, (0, 1), CPU)
    for logits_1v in (peaked_1v, tied_1v, _logits(10)):
        for place in range(20):
            row = Row(Sampling(temperature=0.7, top_p=top_p), (place + 0.5) / 20)
            told = row._replace(sampling=Sampling(temperature=0.7, top_p=top_p, logprobs=True))
            (short,), (long,) = sampler.draw(logits_1v, [row]), sampler.draw(logits_1v, [told])
            assert short is not None
            assert long is not None
            assert short.id == long.id


@pytest.mark.parametrize("width", [640, 641])
@pytest.mark.parametrize("count", [1, 80])
def test_the_likeliest_of_wide_and_many_rows_is_the_likeliest(width: int, count: int) -> None:
    logits_bv = torch.randn(count, width, generator=torch.Generator().manual_seed(11))
    logits_bv[0, [5, 300]] = 9.0
    drawn = Sampler(width, (), CPU).draw(logits_bv, [Row(Sampling(temperature=0))] * count)
    assert [one.id for one in drawn if one is not None] == logits_bv.argmax(-1).tolist()
    logits_bv[-1, 7] = math.nan
    assert Sampler(width, (), CPU).draw(logits_bv, [Row(Sampling(temperature=0))] * count)[-1] is None
