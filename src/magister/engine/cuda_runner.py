"""Spans -> logits on a GPU: paged keys and values read by Triton kernels, steps that only decode replayed as graphs.

Holds one block more than it says, which no sequence is ever given: the scratch block of padded steps. Knows no
sampling, no callers and no plans. Importing this module imports triton.

Shapes: b rows that are asked for, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from magister.engine.features import Features
from magister.engine.sequence import Span
from magister.model.cache import KVFormat
from magister.model.graphs import DecodeGraphs, DecodeRow
from magister.model.network import Model, native_parameters
from magister.model.paged import PagedAttend, PagedSpan, allocate_pages, plan_pass

_STORED = {KVFormat.FP32: torch.float32, KVFormat.BF16: torch.bfloat16, KVFormat.INT8: torch.int8}


class CudaRunner:
    """Runs a model on its own device; a `Runner`."""

    def __init__(self, model: Model, blocks: int, block_size: int, context: int, kv: KVFormat | None = None) -> None:
        """Takes the memory of `blocks` blocks, and one, at once. Without `kv` they are held in the model's dtype.

        `context`: tokens of the longest sequence there can be. The model, laid out by `layout.arrange`, must be left
        alone from here on; new weights come by `replace`. ValueError where the cache is neither int8 nor in the
        model's dtype.
        """
        weight = model.decoder.tok_embeddings.weight
        stored = weight.dtype if kv is None else _STORED[kv]
        if stored not in (torch.int8, weight.dtype):
            raise ValueError(f"kv is {kv}, the kernels read int8 or the model's own {weight.dtype}")
        self.config = model.config
        self.blocks = blocks
        self.block_size = block_size
        self.device = weight.device
        self._model = model
        self._parameters = dict(native_parameters(model))
        self._pages = allocate_pages(model.config.decoder, blocks + 1, block_size, device=weight.device, dtype=stored)
        width = min(blocks, -(-context // block_size))
        self._graphs = DecodeGraphs(model, self._pages, scratch=blocks, width=width)
        self._features = None if model.vision is None else Features(model.vision)

    @property
    def refusal(self) -> str | None:
        """Why decoding steps are not replayed as graphs; None while they are."""
        return self._graphs.refusal

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """See `Runner.shapes`."""
        return {name: tuple(parameter.shape) for name, parameter in self._parameters.items()}

    @property
    def remembered(self) -> set[int]:
        """See `Runner.remembered`."""
        return set() if self._features is None else self._features.remembered

    @torch.no_grad()
    def run(self, spans: Sequence[Span]) -> Tensor:
        """See `Runner.run`."""
        if len(spans) <= self._graphs.sizes[-1] and all(_only_decodes(span) for span in spans):
            return self._graphs.step([self._decode_row(span) for span in spans])
        ids: list[int] = []
        positions: list[int] = []
        rows: list[int] = []
        for span in spans:
            ids += span.ids
            positions += range(span.start, span.stop)
            rows += range(len(ids) - span.rows, len(ids))
        paged = [PagedSpan(span.sequence.blocks, span.start, span.stop) for span in spans]
        plan = plan_pass(paged, self.config.decoder, self.block_size, self.device)
        ids_t = torch.tensor(ids, device=self.device)
        positions_t = torch.tensor(positions, device=self.device)
        hidden_td = self._model(self._embed(ids_t, spans), positions_t, PagedAttend(self._pages, plan))
        return self._model.logits(hidden_td if len(rows) == len(ids) else hidden_td[rows])

    @torch.no_grad()
    def replace(self, tensors: Mapping[str, Any]) -> None:
        """See `Runner.replace`. Graphs read the same memory, and need not be recorded again."""
        for name, tensor in tensors.items():
            self._parameters[name].copy_(tensor)
        if self._features is not None:
            self._features.clear()

    def forget(self, numbers: Iterable[int]) -> None:
        """See `Runner.forget`."""
        if self._features is not None:
            self._features.forget(numbers)

    def _decode_row(self, span: Span) -> DecodeRow:
        # A sequence may hold blocks for guesses that it makes none of in this step.
        return DecodeRow(span.ids[0], span.start, span.sequence.blocks[: span.start // self.block_size + 1])

    def _embed(self, ids_t: Tensor, spans: Sequence[Span]) -> Tensor:
        """Ids as they are, or embeddings with image features in their places where a span has some."""
        if self._features is None:
            return ids_t
        parts = [self._features.within(span) for span in spans]
        rows = [part.rows_nd for part in parts if part is not None]
        return self._model.embed(ids_t, rows) if rows else ids_t


def _only_decodes(span: Span) -> bool:
    """Whether a span is one generated token, which is no image's."""
    return span.stop - span.start == 1 and span.rows == 1 and span.start >= span.sequence.prompt_length
