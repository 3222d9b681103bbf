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


class Wheel(NamedTuple):
    """What text rotations of one head dim and base have in common: both [k], float32."""

    turns: Tensor
    """The frequency of each pair, written twice."""
    signs: Tensor
    """-1 for the first of a pair, 1 for the second."""


def make_wheel(head_dim: int, theta: float, device: torch.device) -> Wheel:
    """The wheel of a decoder."""
    turns_k = frequencies(head_dim, theta, device).repeat_interleave(2)
    return Wheel(turns_k, torch.tensor([-1.0, 1.0], device=device).repeat(head_dim // 2))


def text_rotation(positions_t: Tensor, wheel: Wheel) -> Rotation:
    """The rotation of tokens at integer positions [..., t]. Few operations: a decoded token pays for it alone."""
    angles_tk = positions_t[..., None, None] * wheel.turns
    return Rotation(angles_tk.cos(), angles_tk.sin() * wheel.signs)


def image_rotation(height: int, width: int, head_dim: int, theta: float, device: torch.device) -> Rotation:
    """The rotation of a grid of height x width patches, flattened row by row (t = height * width).

    Even-numbered frequencies turn with the row and fill the first half of the pairs, odd-numbered ones turn with the
    column and fill the second (Pixtral, arXiv 2410.07073).
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
