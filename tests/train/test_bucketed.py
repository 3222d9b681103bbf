"""Bucketed attention against its definition, forward and backward, whatever the lengths."""

import pytest
import torch
from torch import Tensor

from magister.model.attention import CausalAttention
from magister.train.bucketed import BucketedAttention, attend

LENGTHS = [[1], [32], [33, 31], [1, 2, 3, 64, 65, 200, 7], [40] * 9]


def inputs(tokens: int, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(tokens)
    return [torch.randn(tokens, heads, 16, dtype=dtype, requires_grad=True) for heads in (6, 2, 2)]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_it_is_causal_attention_and_so_are_its_gradients(lengths: list[int]) -> None:
    of = inputs(sum(lengths), torch.float64)
    toward_thk = torch.randn_like(of[0])
    outcomes = []
    for attention in (CausalAttention(lengths), BucketedAttention(lengths)):
        out_thk = attention(0, *of)
        outcomes.append((out_thk, *torch.autograd.grad(out_thk, of, toward_thk)))
    for wanted, given in zip(*outcomes, strict=True):
        torch.testing.assert_close(given, wanted)


def test_in_bfloat16_it_is_as_close_as_bfloat16_is() -> None:
    lengths = LENGTHS[3]
    of = inputs(sum(lengths), torch.float32)
    wanted = CausalAttention(lengths)(0, *of)
    given = BucketedAttention(lengths)(0, *(x.bfloat16() for x in of))
    assert float((given.float() - wanted).detach().abs().max()) < 0.05


def test_a_sequence_does_not_see_its_neighbours() -> None:
    q_thk, k_tgk, v_tgk = inputs(50, torch.float32)
    before = BucketedAttention([20, 30])(0, q_thk, k_tgk, v_tgk)
    with torch.no_grad():
        k_tgk[20:] += 1
        v_tgk[20:] += 1
    after = BucketedAttention([20, 30])(0, q_thk, k_tgk, v_tgk)
    assert torch.equal(before[:20], after[:20])
    assert not torch.equal(before[20:], after[20:])


def test_what_a_compiler_is_told_of_it_is_true() -> None:
    torch.library.opcheck(attend, (*inputs(40, torch.float32), torch.tensor([15, 25])))


def test_lengths_must_add_up() -> None:
    with pytest.raises(ValueError, match="lengths add up to 9 tokens, the row has 10"):
        BucketedAttention([4, 5])(0, *inputs(10, torch.float32))
