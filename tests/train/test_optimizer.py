import torch

from magister.train.muon import Muon, orthogonalize
from magister.train.optimizer import OptimizerConfig, cosine


def test_orthogonalize_brings_all_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 16, 40), (2, 40, 16), (1, 8, 8)):
        made_nio = orthogonalize(torch.randn(shape), steps=8)
        values = torch.linalg.svdvals(made_nio)
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_muon_descends_a_least_squares_problem() -> None:
    torch.manual_seed(0)
    goal = torch.randn(8, 12)
    weight = torch.nn.Parameter(torch.zeros(8, 12))
    muon = Muon([weight], momentum=0.9, weight_decay=0.0)
    for step in range(200):
        muon.zero_grad()
        loss = (weight - goal).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        muon.step(0.2 * (1 - step / 200))
    assert float(loss.detach()) < 0.05 * float(goal.square().sum())


def test_muon_continues_from_its_state_bit_for_bit() -> None:
    def parameter() -> torch.nn.Parameter:
        torch.manual_seed(1)
        return torch.nn.Parameter(torch.randn(6, 4))

    def run(muon: Muon, weight: torch.nn.Parameter, steps: int) -> None:
        for _ in range(steps):
            muon.zero_grad()
            weight.pow(4).sum().backward()  # type: ignore[no-untyped-call]
            muon.step(0.05)

    straight, resumed = parameter(), parameter()
    run(Muon([straight], momentum=0.9, weight_decay=0.1), straight, 6)
    first = Muon([resumed], momentum=0.9, weight_decay=0.1)
    run(first, resumed, 3)
    second = Muon([resumed], momentum=0.9, weight_decay=0.1)
    second.load_state_dict(first.state_dict())
    run(second, resumed, 3)
    assert torch.equal(straight, resumed)


def test_the_schedule_rises_then_falls_to_the_floor() -> None:
    config = OptimizerConfig()
    values = [cosine(step / 1000, config) for step in range(1001)]
    top = values.index(max(values))
    assert values[0] == 0
    assert abs(top / 1000 - config.warmup) < 0.002
    assert values[top:] == sorted(values[top:], reverse=True)
    assert abs(values[-1] - config.floor) < 1e-9
