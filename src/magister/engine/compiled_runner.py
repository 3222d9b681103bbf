"""Spans -> logits in compiled code: one C call a step, and torch for images only.

Knows no sampling, no callers and no plans. Shapes: b rows that are asked for, v vocabulary.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from magister.engine.features import Features
from magister.engine.sequence import Span
from magister.model import compiled
from magister.model.cache import KVFormat
from magister.model.compiled import CompiledDecoder
from magister.model.config import ModelConfig
from magister.model.vision import Vision


class CompiledRunner:
    """Runs a compiled decoder on this machine's CPU; a `Runner`."""

    def __init__(
        self,
        config: ModelConfig,
        decoder: CompiledDecoder,
        vision: Vision | None,
        blocks: int,
        block_size: int,
        kv: KVFormat = KVFormat.BF16,
        *,
        matrices: torch.dtype | None = None,
    ) -> None:
        """`decoder` has all of its weights, `vision` is there exactly where `config` has one.

        Takes the memory of `blocks` blocks as they are first written. `matrices` is the dtype in which replaced ones
        are kept, so that they do not grow when a trainer hands them over in float32; None says as they come.
        """
        assert (vision is None) == (config.vision is None)
        assert not decoder.missing, decoder.missing
        self.config = config
        self.blocks = blocks
        self.block_size = block_size
        self.device = torch.device("cpu")
        self._decoder = decoder
        self._cache = decoder.cache(blocks, block_size, kv)
        self._tables: dict[int, tuple[list[int], array[int]]] = {}
        self._matrices = matrices
        self._features = None if vision is None else Features(vision)
        self._image_parameters = {} if vision is None else dict(vision.named_parameters())

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """See `Runner.shapes`."""
        images = {name: tuple(parameter.shape) for name, parameter in self._image_parameters.items()}
        return compiled.shapes(self.config.decoder) | images

    @property
    def remembered(self) -> set[int]:
        """See `Runner.remembered`."""
        images = set() if self._features is None else self._features.remembered
        return images | self._tables.keys()

    def run(self, spans: Sequence[Span]) -> Tensor:
        """See `Runner.run`."""
        ids: list[int] = []
        rows: list[int] = []
        bounds: list[tuple[int, int]] = []
        tables: list[array[int]] = []
        for span in spans:
            ids += span.ids
            bounds.append((span.start, span.stop))
            tables.append(self._table(span))
            if span.rows == 1:
                rows.append(len(ids) - 1)
            else:
                rows += range(len(ids) - span.rows, len(ids))
        places, features = self._images(spans)
        return self._decoder.forward(self._cache, compiled.Step(ids, bounds, tables, rows, places, features))

    @torch.no_grad()
    def replace(self, tensors: Mapping[str, Any]) -> None:
        """See `Runner.replace`."""
        for name, tensor in tensors.items():
            if name in self._image_parameters:
                self._image_parameters[name].copy_(tensor)
            elif self._matrices is not None and tensor.dim() == 2:
                self._decoder.put(name, tensor.to(self._matrices))
            else:
                self._decoder.put(name, tensor)
        if self._features is not None:
            self._features.clear()

    def forget(self, numbers: Iterable[int]) -> None:
        """See `Runner.forget`."""
        for number in numbers:
            self._tables.pop(number, None)
            if self._features is not None:
                self._features.forget([number])

    def _table(self, span: Span) -> array[int]:
        """The sequence's blocks as C likes them. Its list of blocks grows, and is a new one after a preemption."""
        blocks = span.sequence.blocks
        known = self._tables.get(span.sequence.number)
        if known is None or known[0] is not blocks:
            known = self._tables[span.sequence.number] = (blocks, array("i", blocks))
        elif len(known[1]) != len(blocks):
            known[1].extend(blocks[len(known[1]) :])
        return known[1]

    def _images(self, spans: Sequence[Span]) -> tuple[list[int], Tensor | None]:
        """Which tokens of the step are image tokens, and their features."""
        if self._features is None:
            return [], None
        places: list[int] = []
        rows: list[Tensor] = []
        start = 0
        for span in spans:
            part = self._features.within(span)
            if part is not None:
                places += [start + offset for offset in part.offsets]
                rows.append(part.rows_nd)
            start += span.stop - span.start
        return places, torch.cat(rows).float().contiguous() if rows else None
