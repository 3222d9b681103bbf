"""Moves query and key weights between the two orders of rotary pairs.

Native checkpoints interleave a pair's two rows, (x0, x1), (x2, x3), ...; Hugging Face ones keep all first rows of a
head, then all second rows. Worked example, head_dim 6, rows named by pair and half: native 0a 0b 1a 1b 2a 2b is Hugging
Face 0a 1a 2a 0b 1b 2b. Source: transformers'
`permute_for_rope`. Values and output projections are the same in both.

Shapes: h heads, k head dim, i inputs.
"""

from torch import Tensor


def native_to_hf(weight: Tensor, head_dim: int) -> Tensor:
    """[h * k, i] interleaved -> [h * k, i] half by half."""
    rows, inputs = weight.shape
    return weight.view(rows // head_dim, head_dim // 2, 2, inputs).transpose(1, 2).reshape(rows, inputs)


def hf_to_native(weight: Tensor, head_dim: int) -> Tensor:
    """[h * k, i] half by half -> [h * k, i] interleaved."""
    rows, inputs = weight.shape
    return weight.view(rows // head_dim, 2, head_dim // 2, inputs).transpose(1, 2).reshape(rows, inputs)
