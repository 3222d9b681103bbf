"""Attention of a pass over a paged cache on a GPU: an `Attend` around the kernels of `kernels.cuda.attention`.

A block is a run of `page` slots; the n-th block of a sequence holds its tokens n * page and on. Knows block numbers,
and not who gave them. Importing this module imports triton.

Shapes: t new tokens of all spans end to end, b sequences, n blocks of the longest, g key/value heads, h query heads, k
head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from magister.kernels.cuda.attention import Fresh, Pages, Work, attend, cut_work, write
from magister.model.config import DecoderConfig


class PagedSpan(NamedTuple):
    """The new tokens of one sequence in one pass."""

    blocks: Sequence[int]
    """Of the whole sequence, in order; at least as many as `stop` tokens fill."""
    start: int
    """Position of the first new token; everything before is in the cache."""
    stop: int
    """Position after the last new token."""


class Plan(NamedTuple):
    """What all layers of one pass share, on the device."""

    slots_t: Tensor
    """int32: where each new token's key and value go."""
    work: Work
    """What is attended to."""


def allocate_pages(
    config: DecoderConfig, blocks: int, page: int, *, device: torch.device | str, dtype: torch.dtype
) -> tuple[Pages, ...]:
    """Room for `blocks` blocks of `page` tokens in every layer, zeros at first. `dtype` may be torch.int8."""
    shape = (config.n_layers, blocks * page, config.n_kv_heads)
    k, v = (torch.zeros(*shape, config.head_dim, device=device, dtype=dtype) for _ in range(2))
    if dtype is not torch.int8:
        return tuple(Pages(k[layer], v[layer], None, None, page) for layer in range(config.n_layers))
    k_scales, v_scales = (torch.zeros(shape, device=device) for _ in range(2))
    return tuple(Pages(k[i], v[i], k_scales[i], v_scales[i], page) for i in range(config.n_layers))


def plan_pass(spans: Sequence[PagedSpan], config: DecoderConfig, page: int, device: torch.device | str) -> Plan:
    """One copy to the device for a whole pass. `spans`: in the order in which their tokens stand in the row [t].

    ValueError for a span without tokens or with too few blocks.
    """
    for span in spans:
        _check(span, page)
    fresh, row = [], 0
    for span in spans:
        fresh.append(Fresh(row, span.start, span.stop))
        row += span.stop - span.start
    few, many = cut_work(fresh, config.n_heads // config.n_kv_heads)
    width = max(len(span.blocks) for span in spans)
    numbers = [slot_of(span.blocks, at, page) for span in spans for at in range(span.start, span.stop)]
    for pieces in (few, many):
        for field in range(4):
            numbers += [piece[field] for piece in pieces]
    for span in spans:
        numbers += [*span.blocks, *[0] * (width - len(span.blocks))]
    flat = torch.tensor(numbers, dtype=torch.int32)
    if torch.device(device).type == "cuda":
        flat = flat.pin_memory().to(device, non_blocking=True)
    slots_t, few_4w, many_4w, tables = torch.split(flat, [row, 4 * len(few), 4 * len(many), len(spans) * width])
    deep = max((piece[2] for piece in few), default=0)
    return Plan(slots_t, Work(tables.view(-1, width), few_4w.view(4, -1), many_4w.view(4, -1), deep))


def slot_of(blocks: Sequence[int], position: int, page: int) -> int:
    """Where the token at `position` of a sequence lies."""
    return blocks[position // page] * page + position % page


class PagedAttend:
    """Attention of new tokens to themselves and to their sequence's past. Made for one pass and used by all its layers.

    Each call writes the new keys and values of its layer, then reads. With an int8 cache the new keys, too, are read as
    they were rounded.
    """

    def __init__(self, pages: Sequence[Pages], plan: Plan) -> None:
        """`pages`: one of each layer."""
        self.pages = pages
        self.plan = plan

    def __call__(self, layer: int, q_thk: Tensor, k_tgk: Tensor, v_tgk: Tensor) -> Tensor:
        """[t, h, k], [t, g, k], [t, g, k] -> [t, h, k]. ValueError if the row is not as long as the plan's."""
        if len(q_thk) != len(self.plan.slots_t):
            raise ValueError(f"the spans have {len(self.plan.slots_t)} new tokens, the row has {len(q_thk)}")
        pages = self.pages[layer]
        write(k_tgk, self.plan.slots_t, pages.k, pages.k_scales)
        write(v_tgk, self.plan.slots_t, pages.v, pages.v_scales)
        return attend(q_thk, pages, self.plan.work)


def _check(span: PagedSpan, page: int) -> None:
    if not 0 <= span.start < span.stop:
        raise ValueError(f"start is {span.start} and stop is {span.stop}, must be 0 <= start < stop")
    if len(span.blocks) * page < span.stop:
        raise ValueError(f"blocks hold {len(span.blocks) * page} tokens, stop is {span.stop}")
