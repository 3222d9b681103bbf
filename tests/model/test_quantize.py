"""Choosing whole numbers and scales: never at a larger angle than rounding to nearest, exact on a grid, at rest after
one time.
"""

import pytest
import torch
from torch import Tensor

from magister.kernels.quantized import Format, Quantized, dequantize
from magister.model.config import DecoderConfig, ModelConfig
from magister.model.network import build, native_parameters
from magister.model.quantize import GROUPS, Plan, Rule, quantize

RULES = [Rule(Format.INT4, group, minimum) for group in GROUPS for minimum in (False, True)]
RULES += [Rule(Format.INT8, group, False) for group in GROUPS]
SHAPES = [(1, 128), (3, 640), (130, 1152)]
CONFIG = ModelConfig(DecoderConfig(64, 2, 16, 96, 6, 2, 1e-5, 100, 1e9, 4096))


def matrix(shape: tuple[int, int], seed: int = 0) -> Tensor:
    """Like trained ones: mostly normal, a few rows and a few numbers much larger."""
    generator = torch.Generator().manual_seed(seed)
    w_oi = torch.randn(shape, generator=generator) * 0.02
    w_oi[torch.rand(shape, generator=generator) < 0.01] *= 6
    return w_oi * torch.rand(shape[0], 1, generator=generator).add(0.1)


def grouped(w_oi: Tensor, group: int) -> Tensor:
    return w_oi.reshape(-1, group)


def cosines(w_ng: Tensor, v_ng: Tensor) -> Tensor:
    w_ng, v_ng = w_ng.double(), v_ng.double()
    return torch.cosine_similarity(w_ng, v_ng, dim=-1, eps=0)


def nearest(w_ng: Tensor, rule: Rule) -> Tensor:
    """Round-to-nearest as llama.cpp defines it: Q4_0 puts the largest magnitude on -8, Q4_1 spreads 0..15, Q8_0 puts it
    on 127.
    """
    if rule.minimum:
        low, high = w_ng.amin(-1, keepdim=True), w_ng.amax(-1, keepdim=True)
        scale = (high - low) / 15
        return ((w_ng - low) / scale).round().clamp(0, 15) * scale.half().float() + low.half().float()
    extreme = w_ng.gather(-1, w_ng.abs().argmax(-1, keepdim=True))
    bits = -8 if rule.format is Format.INT4 else 127
    scale = extreme / bits
    return (w_ng / scale).round().clamp(-8 if bits == -8 else -127, 7 if bits == -8 else 127) * scale.half().float()


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_group_is_at_a_larger_angle_than_by_rounding_to_nearest(rule: Rule, shape: tuple[int, int]) -> None:
    w_oi = matrix(shape)
    w_ng, v_ng = grouped(w_oi, rule.group), grouped(dequantize(quantize(w_oi, rule)), rule.group)
    plain_ng = nearest(w_ng, rule)
    if rule.minimum:
        w_ng, v_ng, plain_ng = (x_ng - x_ng.mean(-1, keepdim=True) for x_ng in (w_ng, v_ng, plain_ng))
    # Q8_0 rounds by the scale before it is stored, so that one number in thousands goes the other way.
    slack = 1e-5 if rule.format is Format.INT8 else 1e-6
    assert bool((cosines(w_ng, v_ng) >= cosines(w_ng, plain_ng) - slack).all())


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.format is Format.INT4], ids=str)
def test_each_group_keeps_its_length_along_itself(rule: Rule) -> None:
    w_oi = matrix((64, 640))
    w_ng, v_ng = (grouped(x_oi, rule.group).double() for x_oi in (w_oi, dequantize(quantize(w_oi, rule))))
    if rule.minimum:
        # The mean stays, but for float16, and so does what differs from it.
        step_n = (w_ng.amax(-1) - w_ng.amin(-1)) / 15
        assert bool(((w_ng.mean(-1) - v_ng.mean(-1)).abs() < 0.02 * step_n).all())
        w_ng, v_ng = w_ng - w_ng.mean(-1, keepdim=True), v_ng - v_ng.mean(-1, keepdim=True)
    torch.testing.assert_close((w_ng * v_ng).sum(-1), (w_ng * w_ng).sum(-1), rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_error_of_a_matrix_is_smaller_than_by_rounding_to_nearest(rule: Rule) -> None:
    w_oi = matrix((64, 640))
    w_ng = grouped(w_oi, rule.group)
    error = (grouped(dequantize(quantize(w_oi, rule)), rule.group) - w_ng).square().sum()
    plain = (nearest(w_ng, rule) - w_ng).square().sum()
    assert float(error / plain) < (0.98 if rule.format is Format.INT4 else 1.0)


def on_a_grid(rule: Rule, shape: tuple[int, int], seed: int) -> Tensor:
    """A matrix of groups that are whole numbers without a common factor, times a scale in float16; with a minimum, both
    ends are used.
    """
    outputs, inputs = shape
    generator = torch.Generator().manual_seed(seed)
    sizes = (outputs, inputs // rule.group, rule.group)
    scales_on1 = (torch.rand(*sizes[:2], 1, generator=generator) * 0.01 + 1e-3).half().float()
    if rule.format is Format.INT8:
        q_ong = torch.randint(-127, 128, sizes, generator=generator)
        q_ong[..., 5] = 127
        return (q_ong * scales_on1).flatten(1)
    q_ong = torch.randint(0, 16, sizes, generator=generator)
    if rule.minimum:
        q_ong[..., 3], q_ong[..., 7] = 0, 15
        mins_on1 = (torch.randn(*sizes[:2], 1, generator=generator) * 0.05).half().float()
        return (q_ong * scales_on1 + mins_on1).flatten(1)
    reach_on1 = torch.randint(1, 9, (*sizes[:2], 1), generator=generator)
    q_ong = (q_ong - 8).clamp(-reach_on1, reach_on1 - 1)
    q_ong[..., 5] = -1
    return (q_ong * scales_on1).flatten(1)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_what_is_on_a_grid_already_is_kept_exactly(rule: Rule) -> None:
    w_oi = on_a_grid(rule, (40, 640), 1)
    assert torch.equal(dequantize(quantize(w_oi, rule)), w_oi)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_second_time_changes_nothing(rule: Rule, shape: tuple[int, int]) -> None:
    once = dequantize(quantize(matrix(shape, 2), rule))
    assert torch.equal(dequantize(quantize(once, rule)), once)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_number_of_threads_changes_nothing(rule: Rule) -> None:
    w_oi = matrix((600, 640))
    one, many = quantize(w_oi, rule), quantize(w_oi, rule, workers=3)
    assert torch.equal(one.values, many.values)
    assert torch.equal(one.scales, many.scales)
    assert one.mins is None or (many.mins is not None and torch.equal(one.mins, many.mins))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", RULES[:2] + RULES[-1:], ids=str)
def test_halves_are_as_good_as_floats(rule: Rule, dtype: torch.dtype) -> None:
    w_oi = matrix((8, 128)).to(dtype)
    assert torch.equal(dequantize(quantize(w_oi, rule)), dequantize(quantize(w_oi.float(), rule)))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_zeros_and_equal_numbers(rule: Rule) -> None:
    w_oi = torch.zeros(4, 128)
    w_oi[1] = 0.25
    w_oi[2] = -0.25
    w_oi[3, 64:] = 0.5
    made = dequantize(quantize(w_oi, rule))
    assert bool(made.isfinite().all())
    torch.testing.assert_close(made, w_oi, rtol=1e-3, atol=1e-4)
    assert torch.equal(made[0], w_oi[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("rule", RULES[:2] + RULES[-1:], ids=str)
def test_what_has_no_scale_in_float16_is_refused(rule: Rule, bad: float) -> None:
    w_oi = matrix((4, 128))
    w_oi[2, 17] = bad
    with pytest.raises(ValueError, match=r"not finite|too large"):
        quantize(w_oi, rule)


def test_a_group_must_divide_the_inputs() -> None:
    with pytest.raises(ValueError, match="group is 64, must divide the 96 inputs"):
        quantize(torch.zeros(2, 96), Rule(Format.INT4, 64, False))
    with pytest.raises(ValueError, match=r"group is 64, must divide the 96 inputs of layers\.0\.attention\.wo\.weight"):
        Plan(group=64).check(CONFIG)
    Plan(group=32).check(CONFIG)


def test_a_plan_names_the_decoders_matrices_and_the_head() -> None:
    plan = Plan(bits=4, group=32, minimum=True, head_bits=8)
    rules = {name: plan.rule(name) for name, _ in native_parameters(build(CONFIG))}
    assert rules.pop("output.weight") == Rule(Format.INT8, 32, False)
    kept = {name for name, rule in rules.items() if rule is None}
    assert kept == {name for name in rules if "norm" in name or "embeddings" in name}
    assert {rule for rule in rules.values() if rule} == {Rule(Format.INT4, 32, True)}
    assert plan.rule("vision_encoder.transformer.layers.0.attention.wq.weight") is None
    assert Plan(head_bits=16).rule("output.weight") is None
    assert Plan(bits=8, group=64, head_bits=8).rule("output.weight") == Rule(Format.INT8, 64, False)
    assert Plan(bits=8, group=64, head_bits=4).rule("output.weight") == Rule(Format.INT4, 32, False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 3}, "bits is 3, must be one of 4, 8"),
        ({"group": 48}, "group is 48, must be one of 16, 32, 64, 128"),
        ({"head_bits": 2}, "head_bits is 2, must be one of 4, 8, 16"),
        ({"bits": 8, "minimum": True}, "minimum is for bits 4"),
    ],
)
def test_what_is_no_plan_is_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", RULES[:8], ids=str)
def test_bytes_are_foretold(rule: Rule) -> None:
    made: Quantized = quantize(matrix((24, 640)), rule)
    assert made.bytes == rule.bytes((24, 640))
