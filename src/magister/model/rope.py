"""Rotary position angles, in one dimension for text and in two for image patches.

Knows the positions and the base, not what is rotated: the rotation itself is `kernels.reference.rope`. Tables are made
once per forward pass and shared by all layers; nothing is held between passes, so a model can be moved and cast freely.

Shapes: t tokens, k head dim, j = k / 2 pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """The float32 tables that `kernels.reference.rope` takes, for one pass: both [..., t, 1, k]."""

    cos: Tensor
    """Cosine of each pair's angle, written twice."""
    sin: Tensor
    """Sine of each pair's angle, written twice, the first negated."""


def frequencies(head_dim: int, theta: float, device: torch.device) -> Tensor:
    """`theta ** (-2j / head_dim)` for each pair j: [j] float32, radians per position."""
    # Written as the published code writes it: at position 131071 one rounding step of a frequency is visible.
    return 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim))


def text_rotation(positions_t: Tensor, head_dim: int, theta: float) -> Rotation:
    """The rotation of tokens at integer positions [..., t]."""
    angles_tj = positions_t[..., None].float() * frequencies(head_dim, theta, positions_t.device)
    return _rotation(angles_tj)


def image_rotation(height: int, width: int, head_dim: int, theta: float, device: torch.device) -> Rotation:
    """The rotation of a grid of height x width patches, flattened row by row (t = height * width).

    Even-numbered frequencies turn with the row and fill the first half of the pairs, odd-numbered ones turn with the
    column and fill the second (Pixtral; facts sheet 3.1).
    """
    freqs_j = frequencies(head_dim, theta, device)
    rows_h = torch.arange(height, dtype=torch.float32, device=device)
    cols_w = torch.arange(width, dtype=torch.float32, device=device)
    row_part = torch.outer(rows_h, freqs_j[0::2])[:, None, :].expand(height, width, -1)
    col_part = torch.outer(cols_w, freqs_j[1::2])[None, :, :].expand(height, width, -1)
    return _rotation(torch.cat((row_part, col_part), dim=-1).flatten(0, 1))


def _rotation(angles_tj: Tensor) -> Rotation:
    cos_tk = angles_tj.cos().repeat_interleave(2, dim=-1)
    sin_tj = angles_tj.sin()
    sin_tk = torch.stack((-sin_tj, sin_tj), dim=-1).flatten(-2)
    return Rotation(cos_tk.unsqueeze(-2), sin_tk.unsqueeze(-2))
