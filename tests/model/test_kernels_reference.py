"""The definitions equal the formulas they stand for, written out slowly."""

import math

import pytest
import torch
from torch import Tensor

from magister.kernels import reference
from magister.model.rope import frequencies, image_rotation, make_wheel, text_rotation

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_has_float32_statistics(dtype: torch.dtype) -> None:
    x, weight = (torch.randn(5, 64) * 300).to(dtype), torch.randn(64).to(dtype)
    wide = x.float()
    expected = (wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()) * weight.float()
    out = reference.rms_norm(x, weight, 1e-5)
    assert out.dtype == dtype
    assert torch.allclose(out.float(), expected, rtol=1e-5 if dtype == torch.float32 else 2**-7, atol=1e-6)


def test_swiglu() -> None:
    gate, up = torch.randn(3, 8), torch.randn(3, 8)
    assert torch.allclose(reference.swiglu(gate, up), gate * torch.sigmoid(gate) * up)


def _rotated_as_complex(x_thk: Tensor, angles_tj: Tensor) -> Tensor:
    turned = (
        torch.view_as_complex(x_thk.view(*x_thk.shape[:-1], -1, 2))
        * torch.polar(torch.ones_like(angles_tj), angles_tj)[:, None]
    )
    return torch.view_as_real(turned).flatten(-2)


def test_rope_is_a_complex_product() -> None:
    x_thk, positions_t = torch.randn(6, 3, 8), torch.tensor([0, 1, 2, 500, 40_000, 131_071])
    angles_tj = positions_t[:, None] * torch.tensor([1e9 ** (-2 * j / 8) for j in range(4)])
    rotation = text_rotation(positions_t, make_wheel(8, 1e9, CPU))
    out_thk = reference.rope(x_thk, rotation.cos, rotation.sin)
    assert torch.allclose(out_thk, _rotated_as_complex(x_thk, angles_tj), atol=1e-5)
    assert torch.equal(out_thk[0], x_thk[0])


def test_rope_in_bfloat16_rounds_once() -> None:
    x_thk, rotation = torch.randn(4, 2, 8).bfloat16(), text_rotation(torch.arange(4) + 1000, make_wheel(8, 1e4, CPU))
    out_thk = reference.rope(x_thk, rotation.cos, rotation.sin)
    assert torch.equal(out_thk, reference.rope(x_thk.float(), rotation.cos, rotation.sin).bfloat16())


def test_image_rotation_turns_first_half_with_row_and_second_with_column() -> None:
    freqs = frequencies(8, 100.0, CPU).tolist()
    rotation = image_rotation(2, 3, 8, 100.0, CPU)
    row, column = 1, 2
    angles = [row * freqs[0], row * freqs[2], column * freqs[1], column * freqs[3]]
    at = rotation.cos[row * 3 + column, 0]
    assert torch.allclose(at, torch.tensor([math.cos(angle) for angle in angles for _ in range(2)]))
    assert rotation.sin.shape == (6, 1, 8)


def _slow_attention(q_thk: Tensor, k_sgk: Tensor, v_sgk: Tensor, visible_ts: Tensor) -> Tensor:
    group = q_thk.shape[1] // k_sgk.shape[1]
    heads = []
    for head in range(q_thk.shape[1]):
        scores_ts = q_thk[:, head] @ k_sgk[:, head // group].T / math.sqrt(q_thk.shape[-1])
        heads.append(scores_ts.masked_fill(~visible_ts, -math.inf).softmax(-1) @ v_sgk[:, head // group])
    return torch.stack(heads, dim=1)


def test_attention_causal_and_masked() -> None:
    q, k, v = torch.randn(1, 5, 6, 8), torch.randn(1, 5, 2, 8), torch.randn(1, 5, 2, 8)
    visible = torch.ones(5, 5, dtype=torch.bool).tril()
    expected = _slow_attention(q[0], k[0], v[0], visible)
    assert torch.allclose(reference.attention(q, k, v, causal=True)[0], expected, atol=1e-6)
    mask = torch.zeros(5, 5).masked_fill(~visible, -math.inf)
    assert torch.allclose(reference.attention(q, k, v, mask=mask)[0], expected, atol=1e-6)


def test_attention_one_is_attention_of_one_query() -> None:
    q, k, v = torch.randn(2, 6, 8), torch.randn(2, 7, 2, 8), torch.randn(2, 7, 2, 8)
    visible = torch.arange(7) < torch.tensor([[7], [4]])
    mask = torch.zeros(2, 7).masked_fill(~visible, -math.inf)
    out = reference.attention_one(q, k, v, mask)
    for row in range(2):
        assert torch.allclose(out[row], _slow_attention(q[row, None], k[row], v[row], visible[row, None])[0], atol=1e-6)
