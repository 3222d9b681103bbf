"""Ready-made `Attend`s for passes without a cache: whole sequences laid end to end, and packed rows for training.

Knows who may see whom, not what is computed from it; the arithmetic is `kernels.reference.attention`.

Shapes: b rows, t tokens, h query heads, g key/value heads, k head dim.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from magister.kernels import reference


class CausalAttention:
    """Whole sequences, end to end in one flat row [t]: each token sees itself and what precedes it in its sequence."""

    def __init__(self, lengths: Sequence[int] | None = None) -> None:
        """`lengths`: tokens of each sequence, in order; None says that the row is one sequence."""
        self.lengths = None if lengths is None else list(lengths)

    def __call__(self, layer: int, q_thk: Tensor, k_tgk: Tensor, v_tgk: Tensor) -> Tensor:
        """[t, h, k], [t, g, k], [t, g, k] -> [t, h, k]. ValueError if the lengths do not add up to t."""
        if self.lengths is None:
            return _one_sequence(q_thk, k_tgk, v_tgk)
        if sum(self.lengths) != q_thk.shape[0]:
            raise ValueError(f"lengths add up to {sum(self.lengths)} tokens, the row has {q_thk.shape[0]}")
        parts = zip(*(torch.split(x_tnk, self.lengths) for x_tnk in (q_thk, k_tgk, v_tgk)), strict=True)
        return torch.cat([_one_sequence(q, k, v) for q, k, v in parts])


class PackedAttention:
    """Rows of several sequences each, [b, t], as training packs them: causal within a segment, blind across segments.

    The mask is built once here and shared by all layers; it takes b * t * t elements of `dtype`.
    """

    def __init__(self, segments_bt: Tensor, dtype: torch.dtype = torch.float32) -> None:
        """`segments_bt`: an integer per token, equal for tokens of one sequence (padding is a segment like any other).

        `dtype` must be that of the queries: the model's, or autocast's.
        """
        same_btt = segments_bt[:, :, None] == segments_bt[:, None, :]
        visible_btt = same_btt.tril()
        mask_btt = torch.zeros(visible_btt.shape, dtype=dtype, device=segments_bt.device)
        self.mask = mask_btt.masked_fill(~visible_btt, float("-inf")).unsqueeze(1)

    def __call__(self, layer: int, q_bthk: Tensor, k_btgk: Tensor, v_btgk: Tensor) -> Tensor:
        """[b, t, h, k], [b, t, g, k], [b, t, g, k] -> [b, t, h, k]."""
        return reference.attention(q_bthk, k_btgk, v_btgk, mask=self.mask)


def packed_positions(segments_bt: Tensor) -> Tensor:
    """The position of each token within its run of equal segment numbers, [b, t] -> [b, t] int64, counted from 0.

    Worked example: segments 4 4 4 7 7 9 give positions 0 1 2 0 1 0.
    """
    index_t = torch.arange(segments_bt.shape[1], device=segments_bt.device)
    starts_bt = torch.where(_fresh(segments_bt), index_t, 0).cummax(dim=1).values
    return index_t - starts_bt


def segment_lengths(segments_bt: Tensor) -> list[int]:
    """Lengths of the runs of equal segment numbers, row after row; they add up to b * t."""
    starts = _fresh(segments_bt).flatten().nonzero().flatten().tolist()
    return [stop - start for start, stop in zip(starts, [*starts[1:], segments_bt.numel()], strict=True)]


def _fresh(segments_bt: Tensor) -> Tensor:
    """Where a run of equal segment numbers begins, [b, t] -> [b, t] bool; every row begins one."""
    fresh_bt = torch.ones_like(segments_bt, dtype=torch.bool)
    fresh_bt[:, 1:] = segments_bt[:, 1:] != segments_bt[:, :-1]
    return fresh_bt


def _one_sequence(q_thk: Tensor, k_tgk: Tensor, v_tgk: Tensor) -> Tensor:
    # The fast paths of SDPA want a batch dim.
    return reference.attention(q_thk[None], k_tgk[None], v_tgk[None], causal=True)[0]
