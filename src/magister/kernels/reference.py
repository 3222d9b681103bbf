"""The hot spots of the network, each once, in plain torch: the definition that every faster kernel must equal.

Knows nothing of layers, weights, caches or devices: a function here sees tensors and gives tensors.

Shapes: `...` any leading dims, t tokens (queries), s tokens (keys), h query heads, g key/value heads, k head dim, d
model dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight_d: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dim.

    x [..., d], weight [d] -> [..., d] in x's dtype. Statistics are float32 whatever the dtype of x (Zhang and Sennrich,
    2019).
    """
    if x.is_cuda:
        return F.rms_norm(x, weight_d.shape, weight_d, eps)
    # On a CPU torch makes twice as many passes of it.
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight_d


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`, the middle of the feed-forward block (Shazeer, 2020). Both [..., f] -> [..., f]."""
    return F.silu(gate) * up


def rope(x_thk: Tensor, cos_tk: Tensor, sin_tk: Tensor) -> Tensor:
    """Rotates each interleaved pair (x0, x1), (x2, x3), ... of the last dim by its token's angle (Su et al., 2021).

    x [..., t, h, k]; cos and sin [..., t, 1, k] float32, each angle written twice, the first sine of a pair negated:
    `out = x * cos + swapped(x) * sin`. The product is float32; the result has x's dtype.

    Worked pair at angle a: cos = (cos a, cos a), sin = (-sin a, sin a), swapped = (x1, x0), so
    out = (x0 cos a - x1 sin a, x1 cos a + x0 sin a), the complex product (x0 + i x1) e^(ia).
    """
    swapped_thk = x_thk.view(*x_thk.shape[:-1], -1, 2).flip(-1).view(x_thk.shape)
    return torch.addcmul(x_thk * cos_tk, swapped_thk, sin_tk).to(x_thk.dtype)


def attention(q_thk: Tensor, k_sgk: Tensor, v_sgk: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """`softmax(q k^T / sqrt(head dim) + mask) v` for grouped queries (Ainslie et al., 2023): query head i reads key
    head i // (h / g).

    q [..., t, h, k], k and v [..., s, g, k] -> [..., t, h, k]. `mask` is additive, in q's dtype, broadcastable to [...,
    h, t, s]. `causal` lets token i see keys 0..i and asks for s = t and no mask.
    """
    grouped = q_thk.shape[-2] != k_sgk.shape[-2]
    o_htk = F.scaled_dot_product_attention(
        q_thk.transpose(-3, -2),
        k_sgk.transpose(-3, -2),
        v_sgk.transpose(-3, -2),
        attn_mask=mask,
        is_causal=causal,
        enable_gqa=grouped,
    )
    return o_htk.transpose(-3, -2)


def attention_one(q_bhk: Tensor, k_bsgk: Tensor, v_bsgk: Tensor, mask_bs: Tensor | None = None) -> Tensor:
    """`attention` for one query token per sequence, the shape of decoding: [b, h, k] over [b, s, g, k] -> [b, h, k].

    `mask_bs` [b, s] is additive, in q's dtype. The query heads of a group stand in for query tokens, so that each key
    is read once per group rather than once per head.
    """
    b, h, k = q_bhk.shape
    o_bgnk = F.scaled_dot_product_attention(
        q_bhk.reshape(b, k_bsgk.shape[2], -1, k),
        k_bsgk.transpose(1, 2),
        v_bsgk.transpose(1, 2),
        attn_mask=None if mask_bs is None else mask_bs[:, None, None, :],
    )
    return o_bgnk.reshape(b, h, k)
