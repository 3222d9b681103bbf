"""One decoding step as a replayed CUDA graph: hundreds of launches for the price of one.

A graph is recorded for each of a few batch sizes; a step is padded to the next one. All that changes from step to step
is numbers in tensors that stay where they are (`Buffers`). Rows of padding decode token 0 at position 0 of a block that
no sequence has, the scratch block, and touch no other. Where recording fails the same step runs launch by launch, and
`refusal` says why. Importing this module imports triton.

Shapes: b rows of a step, padded; n blocks of the longest sequence; v vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from magister.kernels.cuda.attention import Pages, Work
from magister.model.network import Model
from magister.model.paged import PagedAttend, Plan, slot_of

SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64)
"""Rows for which graphs are recorded: powers of two, and between them where padding would cost a third of a step."""
_FIELDS = 6
"""Numbers a row beside its blocks: id, slot, and the four of `Work.few`."""


class DecodeRow(NamedTuple):
    """The next token of one sequence."""

    id: int
    """The token."""
    position: int
    """Its position."""
    blocks: Sequence[int]
    """Of the sequence, up to and with the one that holds `position`."""


class Buffers(NamedTuple):
    """What a graph reads, int32, at fixed addresses."""

    fields: Tensor
    """[6, b]: id, slot, sequence, first row, tokens, position."""
    tables: Tensor
    """[b, n]: each row's blocks."""

    @classmethod
    def allocate(cls, size: int, width: int, device: torch.device) -> Buffers:
        """For `size` rows of at most `width` blocks."""
        fields = torch.zeros(_FIELDS, size, dtype=torch.int32, device=device)
        return cls(fields, torch.zeros(size, width, dtype=torch.int32, device=device))

    def fill(self, fields: Tensor, tables: Tensor) -> None:
        """Takes over what `host_fields` and `host_tables` made. Columns of `tables` that no row uses stay as they are:
        nothing reads them.
        """
        # Pinned, and not waited for: the step follows on the same stream.
        if self.fields.is_cuda:
            fields, tables = fields.pin_memory(), tables.pin_memory()
        self.fields.copy_(fields, non_blocking=True)
        self.tables[:, : tables.shape[1]].copy_(tables, non_blocking=True)


def padded_size(rows: int, sizes: Sequence[int]) -> int | None:
    """The smallest of the ascending `sizes` that holds `rows`; None if none does."""
    return next((size for size in sizes if size >= rows), None)


def host_fields(rows: Sequence[DecodeRow], size: int, page: int, scratch: int) -> Tensor:
    """`Buffers.fields` of a step, on the CPU, padded to `size` rows."""
    ids = [row.id for row in rows] + [0] * (size - len(rows))
    slots = [slot_of(row.blocks, row.position, page) for row in rows] + [scratch * page] * (size - len(rows))
    positions = [row.position for row in rows] + [0] * (size - len(rows))
    counting = list(range(size))
    return torch.tensor([ids, slots, counting, counting, [1] * size, positions], dtype=torch.int32)


def host_tables(rows: Sequence[DecodeRow], size: int, scratch: int) -> Tensor:
    """`Buffers.tables` of a step, on the CPU, as wide as its longest row; unused places name the scratch block."""
    width = max(len(row.blocks) for row in rows)
    tables = [[*row.blocks, *[scratch] * (width - len(row.blocks))] for row in rows]
    return torch.tensor(tables + [[scratch] * width] * (size - len(rows)), dtype=torch.int32)


class _Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    logits_bv: Tensor


class DecodeGraphs:
    """Decoding steps of one model over one paged cache."""

    def __init__(
        self, model: Model, pages: Sequence[Pages], scratch: int, width: int, sizes: Sequence[int] = SIZES
    ) -> None:
        """`pages`: one of each layer. `scratch`: a block of them that is never given to a sequence. `width`: blocks of
        the longest sequence there can be. ValueError unless the model was laid out by `layout.arrange`, without which
        a step would make tables on the way.
        """
        if model.decoder.wheel is None:
            raise ValueError("model has no wheel: call layout.arrange first")
        self.model = model
        self.pages = pages
        self.scratch = scratch
        self.width = width
        self.sizes = tuple(sorted(sizes))
        self.device = pages[0].k.device
        self.refusal: str | None = None if self.device.type == "cuda" else f"{self.device} has no CUDA graphs"
        """Why steps run launch by launch; None while they are replayed."""
        self._buffers: dict[int, Buffers] = {}
        self._recorded: dict[int, _Recorded] = {}
        self._first: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def step(self, rows: Sequence[DecodeRow]) -> Tensor:
        """Writes the rows' keys and values and gives their logits [b, v], which the next step of the size overwrites.

        ValueError for more rows than the largest size, or a row with more blocks than `width`.
        """
        size = padded_size(len(rows), self.sizes)
        if size is None:
            raise ValueError(f"rows are {len(rows)}, the largest size is {self.sizes[-1]}")
        tables = host_tables(rows, size, self.scratch)
        if tables.shape[1] > self.width:
            raise ValueError(f"a row has {tables.shape[1]} blocks, width is {self.width}")
        if size not in self._buffers:
            self._buffers[size] = Buffers.allocate(size, self.width, self.device)
        buffers = self._buffers[size]
        buffers.fill(host_fields(rows, size, self.pages[0].page, self.scratch), tables)
        if self.refusal is None and size not in self._recorded:
            self._record(size)
        if self.refusal is not None:
            return self._run(buffers)[: len(rows)]
        recorded = self._recorded[size]
        recorded.graph.replay()
        return recorded.logits_bv[: len(rows)]

    def _run(self, buffers: Buffers) -> Tensor:
        ids_b, slots_b = buffers.fields[0], buffers.fields[1]
        few_4b, positions_b = buffers.fields[2:], buffers.fields[5]
        plan = Plan(slots_b, Work(buffers.tables, few_4b, few_4b[:, :0], deep=1))
        hidden_bd = self.model(ids_b, positions_b, PagedAttend(self.pages, plan))
        return self.model.logits(hidden_bd)

    def _record(self, size: int) -> None:
        """Runs the step twice to compile and to settle the allocator, then records it. Running it again does no harm:
        it writes the same numbers to the same slots.
        """
        buffers = self._buffers[size]
        aside = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(self.device))
        try:
            with torch.cuda.stream(aside):
                self._run(buffers)
                self._run(buffers)
            torch.cuda.current_stream(self.device).wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # All sizes share memory: only one runs at a time.
            with torch.cuda.graph(graph, pool=None if self._first is None else self._first.pool()):
                logits_bv = self._run(buffers)
        except RuntimeError as error:  # what torch raises for every fault of CUDA
            self.refusal = f"recording {size} rows failed: {error}"
            return
        self._first = self._first or graph
        self._recorded[size] = _Recorded(graph, logits_bv)
