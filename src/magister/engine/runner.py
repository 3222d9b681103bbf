"""Spans -> logits: the one place where sequences and block numbers become tensors.

Holds the key/value cache and the features of images in flight. Knows no sampling, no callers and no plans.

Shapes: t tokens of a step, b rows that are sampled from, n image tokens, d model dim, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from magister.engine.sequence import Span
from magister.model import cache
from magister.model.network import Model
from magister.types import Pixels


class Runner:
    """Runs a model over the spans of a step."""

    def __init__(self, model: Model, blocks: int, block_size: int) -> None:
        """Takes the memory of `blocks` blocks at once, on the model's device and in its dtype."""
        weight = model.decoder.tok_embeddings.weight
        self.device = weight.device
        self.model = model
        self._cache = cache.KVCache.allocate(
            model.config.decoder, blocks * block_size, device=weight.device, dtype=weight.dtype
        )
        self._block_size = block_size
        self._slots = torch.arange(blocks * block_size)
        self._features: dict[int, Tensor] = {}

    def run(self, spans: Sequence[Span]) -> Tensor:
        """Computes the spans' keys and values, and the logits [b, v] of those that sample, in order."""
        ids: list[int] = []
        positions: list[int] = []
        rows: list[int] = []
        for span in spans:
            ids += span.sequence.ids[span.start : span.stop]
            positions += range(span.start, span.stop)
            if span.samples:
                rows.append(len(ids) - 1)
        attend = cache.CachedAttention(
            self._cache, [cache.Span(self._slots_of(span.sequence.blocks), span.start, span.stop) for span in spans]
        )
        ids_t = torch.tensor(ids, device=self.device)
        hidden_td = self.model(self._embed(ids_t, spans), torch.tensor(positions, device=self.device), attend)
        hidden_bd = hidden_td if len(rows) == len(ids) else hidden_td[rows]
        return self.model.logits(hidden_bd)

    @property
    def remembered(self) -> set[int]:
        """Numbers of the sequences for which something is held besides the cache."""
        return set(self._features)

    def forget(self, numbers: Iterable[int]) -> None:
        """Drops what is held for sequences that ended."""
        for number in numbers:
            self._features.pop(number, None)

    def _slots_of(self, blocks: list[int]) -> Tensor:
        """The slots of a sequence's tokens. Neighbouring blocks give a run, which attention reads without a copy."""
        size, first = self._block_size, blocks[0]
        if blocks == list(range(first, first + len(blocks))):
            return self._slots[first * size : (first + len(blocks)) * size]
        return self._slots.view(-1, size)[blocks].view(-1)

    def _embed(self, ids_t: Tensor, spans: Sequence[Span]) -> Tensor:
        """Ids as they are, or embeddings with image features in their places where a span has some."""
        rows = [
            self._features_within(span)
            for span in spans
            if span.sequence.images and span.start < span.sequence.prompt_length
        ]
        filled = [rows_nd for rows_nd in rows if len(rows_nd)]
        return self.model.embed(ids_t, filled) if filled else ids_t

    def _features_within(self, span: Span) -> Tensor:
        """The rows of a sequence's image features that fall into a span, [n, d]."""
        assert self.model.vision is not None
        image_id = self.model.vision.config.image_token_id
        sequence = span.sequence
        if sequence.number not in self._features:
            images = [_pixels(image, self.device) for image in sequence.images]
            self._features[sequence.number] = torch.cat(self.model.vision(images))
        before = sequence.ids[: span.start].count(image_id)
        within = sequence.ids[span.start : span.stop].count(image_id)
        return self._features[sequence.number][before : before + within]


def _pixels(image: Pixels, device: torch.device) -> Tensor:
    # A bytearray, because torch warns of tensors over memory that may not be written.
    flat = torch.frombuffer(bytearray(image.data), dtype=torch.float32)
    return flat.view(image.channels, image.height, image.width).to(device)
