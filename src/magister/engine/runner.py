"""Spans -> logits: what an engine asks of whatever computes its steps, and the one that asks torch.

The one place where sequences and block numbers become tensors. Knows no sampling, no callers and no plans.

Shapes: t tokens of a step, b rows that are asked for, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from magister.engine.features import Features
from magister.engine.sequence import Span
from magister.model import cache
from magister.model.cache import KVFormat
from magister.model.config import ModelConfig
from magister.model.network import Model, native_parameters


class Runner(Protocol):
    """A network and its cache. All calls but the properties come from the engine's one thread."""

    @property
    def config(self) -> ModelConfig:
        """Of the network."""
        ...

    @property
    def blocks(self) -> int:
        """Blocks in the cache."""
        ...

    @property
    def block_size(self) -> int:
        """Tokens a block."""
        ...

    @property
    def device(self) -> torch.device:
        """Where logits are."""
        ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of the parameters that can be replaced, by native name."""
        ...

    @property
    def remembered(self) -> set[int]:
        """Numbers of the sequences for which more is held than the cache has, and more than time saved."""
        ...

    def run(self, spans: Sequence[Span]) -> Tensor:
        """Computes the spans' keys and values, and the logits [b, v] of the last `rows` tokens of each, in order.

        The tensor may be written to again by the next call. Nothing reads blocks that another span of the same step
        writes.
        """
        ...

    def replace(self, tensors: Mapping[str, Any]) -> None:
        """Takes new values, of the right shapes, for parameters that there are."""
        ...

    def forget(self, numbers: Iterable[int]) -> None:
        """Drops what is held for sequences that ended."""
        ...


class TorchRunner:
    """Runs a model in this process, on its own device."""

    def __init__(self, model: Model, blocks: int, block_size: int, kv: KVFormat | None = None) -> None:
        """Takes the memory of `blocks` blocks at once. Without `kv` they are held in the model's dtype.

        The model must be left alone from here on; new weights come by `replace`.
        """
        weight = model.decoder.tok_embeddings.weight
        self.config = model.config
        self.blocks = blocks
        self.block_size = block_size
        self.device = weight.device
        self._model = model
        self._parameters = dict(native_parameters(model))
        self._cache = cache.KVCache.allocate(
            model.config.decoder, blocks * block_size, device=weight.device, dtype=weight.dtype, kv=kv
        )
        self._slots = torch.arange(blocks * block_size)
        self._tables: dict[int, _Table] = {}
        self._features = None if model.vision is None else Features(model.vision)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """See `Runner.shapes`."""
        return {name: tuple(parameter.shape) for name, parameter in self._parameters.items()}

    @property
    def remembered(self) -> set[int]:
        """See `Runner.remembered`."""
        images = set() if self._features is None else self._features.remembered
        return images | self._tables.keys()

    def run(self, spans: Sequence[Span]) -> Tensor:
        """See `Runner.run`."""
        ids: list[int] = []
        positions: list[int] = []
        rows: list[int] = []
        for span in spans:
            ids += span.ids
            positions += range(span.start, span.stop)
            rows += range(len(ids) - span.rows, len(ids))
        attend = cache.CachedAttention(self._cache, [self._cache_span(span) for span in spans])
        ids_t = torch.tensor(ids, device=self.device)
        hidden_td = self._model(self._embed(ids_t, spans), torch.tensor(positions, device=self.device), attend)
        hidden_bd = hidden_td if len(rows) == len(ids) else hidden_td[rows]
        return self._model.logits(hidden_bd)

    @torch.no_grad()
    def replace(self, tensors: Mapping[str, Any]) -> None:
        """See `Runner.replace`."""
        for name, tensor in tensors.items():
            self._parameters[name].copy_(tensor)
        if self._features is not None:
            self._features.clear()

    def forget(self, numbers: Iterable[int]) -> None:
        """See `Runner.forget`."""
        for number in numbers:
            self._tables.pop(number, None)
            if self._features is not None:
                self._features.forget([number])

    def _cache_span(self, span: Span) -> cache.Span:
        sequence = span.sequence
        table = self._tables.get(sequence.number)
        if table is None or table.blocks is not sequence.blocks:
            table = self._tables[sequence.number] = _Table(sequence.blocks)
        if table.known != len(sequence.blocks):
            table.update(self._slots, self.block_size)
        return cache.Span(table.slots, span.start, span.stop, table.first)

    def _embed(self, ids_t: Tensor, spans: Sequence[Span]) -> Tensor:
        """Ids as they are, or embeddings with image features in their places where a span has some."""
        if self._features is None:
            return ids_t
        parts = [self._features.within(span) for span in spans]
        rows = [part.rows_nd for part in parts if part is not None]
        return self._model.embed(ids_t, rows) if rows else ids_t


class _Table:
    """The slots of one sequence's blocks, worked out again only when it has more blocks."""

    def __init__(self, blocks: list[int]) -> None:
        self.blocks = blocks
        self.known = 0
        self.slots = torch.empty(0, dtype=torch.int64)
        self.first: int | None = None
        """The first slot, where they are all neighbours."""

    def update(self, slots: Tensor, size: int) -> None:
        """`slots` are those of the whole cache, blocks of `size`."""
        before, self.known = self.known, len(self.blocks)
        start = self.blocks[0]
        grown = self.blocks[before:]
        neighbours = before == 0 or self.first is not None
        if neighbours and grown == list(range(start + before, start + self.known)):
            self.first = start * size
            self.slots = slots[self.first : (start + self.known) * size]
        else:
            self.first = None
            self.slots = slots.view(-1, size)[self.blocks].view(-1)
