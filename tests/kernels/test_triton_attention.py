"""Paged attention in Triton = attention over the plain cache; split, cut, batched or alone it is the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from magister.kernels import reference
from magister.kernels.cuda import attention
from magister.kernels.cuda.attention import Fresh, cut_work
from magister.kernels.quantized import quantize_activations
from magister.model.config import DecoderConfig
from magister.model.paged import PagedAttend, PagedSpan, allocate_pages, plan_pass, slot_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BLOCKS = 24


@pytest.fixture(autouse=True)
def _few_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that sequences of a few blocks of keys are split unevenly, and the interpreter has less to do."""
    monkeypatch.setattr(attention, "_SPLITS", 2)
    monkeypatch.setattr(attention, "_KEYS", 16)


class World:
    """Sequences of random keys and values in a paged layer, and in a row each."""

    def __init__(
        self, heads: int, groups: int, head_dim: int, page: int, dtype: torch.dtype, kept: torch.dtype, seed: int = 0
    ) -> None:
        self.config = DecoderConfig(64, 1, head_dim, 96, heads, groups, 1e-5, 100, 1e4, 4096)
        self.pages = allocate_pages(self.config, BLOCKS, page, device=DEVICE, dtype=kept)
        # Never-written slots must not matter.
        if kept is not torch.int8:
            self.pages[0].k.fill_(float("nan"))
            self.pages[0].v.fill_(float("nan"))
        self.page, self.dtype = page, dtype
        self.generator = torch.Generator().manual_seed(seed)
        self.free = torch.randperm(BLOCKS, generator=self.generator).tolist()

    def random(self, tokens: int, heads: int) -> Tensor:
        shape = (tokens, heads, self.config.head_dim)
        return torch.randn(shape, generator=self.generator).to(self.dtype)

    def take(self, stop: int) -> list[int]:
        count = -(-stop // self.page)
        taken, self.free = self.free[:count], self.free[count:]
        return taken

    def put(self, blocks: Sequence[int], k: Tensor, v: Tensor) -> None:
        """Keys and values of a sequence's first tokens, without the kernels."""
        pages = self.pages[0]
        slots = [slot_of(blocks, position, self.page) for position in range(len(k))]
        for new, cache, scales in ((k, pages.k, pages.k_scales), (v, pages.v, pages.v_scales)):
            if scales is not None:
                new, wanted = quantize_activations(new, new.shape[-1])
                scales[slots] = wanted[..., 0].to(DEVICE)
            cache[slots] = new.to(DEVICE)

    def run(self, spans: Sequence[PagedSpan], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        plan = plan_pass(spans, self.config, self.page, DEVICE)
        qkv = torch.cat((q, k, v), 1).to(DEVICE)
        parts = torch.split(qkv, [q.shape[1], k.shape[1], v.shape[1]], dim=1)
        return PagedAttend(self.pages, plan)(0, *parts).cpu()


def rounded(x: Tensor) -> Tensor:
    """What an int8 cache gives back."""
    q, scales = quantize_activations(x, x.shape[-1])
    return q * scales


def check(world: World, ranges: Sequence[tuple[int, int]], bound: float, int8: bool = False) -> None:
    """Prefills each sequence to its start, runs one pass over all, compares each with the definition."""
    g, h = world.config.n_kv_heads, world.config.n_heads
    spans, keys, values = [], [], []
    for start, stop in ranges:
        blocks = world.take(stop)
        keys.append(world.random(stop, g))
        values.append(world.random(stop, g))
        world.put(blocks, keys[-1][:start], values[-1][:start])
        spans.append(PagedSpan(blocks, start, stop))
    q = world.random(sum(stop - start for start, stop in ranges), h)
    new_k = torch.cat([k[start:] for k, (start, _) in zip(keys, ranges, strict=True)])
    new_v = torch.cat([v[start:] for v, (start, _) in zip(values, ranges, strict=True)])
    out = world.run(spans, q, new_k, new_v)
    row = 0
    for (start, stop), k, v in zip(ranges, keys, values, strict=True):
        k, v = (rounded(k), rounded(v)) if int8 else (k.float(), v.float())
        mask = torch.full((stop - start, stop), float("-inf")).triu(start + 1)
        wanted = reference.attention(q[row : row + stop - start].float()[None], k[None], v[None], mask)[0]
        assert float((out[row : row + stop - start].float() - wanted).abs().max()) <= bound
        row += stop - start


def test_decoding_equals_the_definition() -> None:
    check(World(6, 2, 16, 4, torch.float32, torch.float32), [(0, 1), (38, 39), (15, 16), (16, 17)], 1e-5)


def test_chunks_and_decoding_in_one_pass_equal_the_definition() -> None:
    check(World(4, 2, 16, 8, torch.float32, torch.float32), [(0, 40), (9, 47), (29, 33)], 1e-5)


@pytest.mark.parametrize(
    ("head_dim", "dtype", "kept", "bound"),
    [
        (64, torch.bfloat16, torch.bfloat16, 2e-2),
        (128, torch.float16, torch.float16, 2e-3),
        (128, torch.bfloat16, torch.int8, 2e-2),
        (64, torch.float32, torch.int8, 1e-5),
    ],
)
def test_every_kind_of_cache(head_dim: int, dtype: torch.dtype, kept: torch.dtype, bound: float) -> None:
    check(World(4, 1, head_dim, 16, dtype, kept), [(19, 20), (3, 20)], bound, int8=kept is torch.int8)


def test_int8_keys_are_rounded_as_defined() -> None:
    world = World(4, 2, 32, 8, torch.bfloat16, torch.int8)
    k, v, blocks = world.random(9, 2), world.random(9, 2), world.take(9)
    k[3, 1] = 0.0
    world.run([PagedSpan(blocks, 0, 9)], world.random(9, 4), k, v)
    slots = [slot_of(blocks, position, 8) for position in range(9)]
    for new, cache, scales in ((k, *world.pages[0][0:3:2]), (v, *world.pages[0][1:4:2])):
        assert scales is not None
        q, wanted = quantize_activations(new, 32)
        assert torch.equal(cache[slots].cpu(), q)
        assert torch.equal(scales[slots].cpu(), wanted[..., 0])


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
@pytest.mark.filterwarnings("ignore:invalid value")  # what numpy says of the fault
def test_a_key_that_is_not_finite_spoils_what_reads_it_and_nothing_else(fault: float) -> None:
    world = World(2, 2, 16, 8, torch.float32, torch.int8)
    blocks, k, v = world.take(3), world.random(3, 2), world.random(3, 2)
    k[1, 0, 5] = fault
    out = world.run([PagedSpan(blocks, 0, 3)], world.random(3, 2), k, v)
    assert out.isfinite().all(-1).tolist() == [[True, True], [False, True], [False, True]]


def test_alone_a_sequence_has_the_same_bits_as_beside_others() -> None:
    outs = []
    for others in ([], [(7, 8), (0, 20)]):
        world = World(4, 1, 16, 8, torch.bfloat16, torch.bfloat16, seed=3)
        spans = [PagedSpan(world.take(stop), start, stop) for start, stop in [(39, 40), *others]]
        q, k, v = world.random(1, 4), world.random(40, 1), world.random(40, 1)
        world.put(spans[0].blocks, k[:39], v[:39])
        n = sum(stop - start for start, stop in others)
        for span in spans[1:]:
            world.put(span.blocks, *(world.random(span.start, 1),) * 2)
        beside = world.random(n, 4), world.random(n, 1), world.random(n, 1)
        qkv = [torch.cat((own, other)) for own, other in zip((q, k[39:], v[39:]), beside, strict=True)]
        outs.append(world.run(spans, *qkv)[:1])
    assert torch.equal(*outs)


def test_guesses_checked_together_have_the_bits_of_decoding() -> None:
    world = World(4, 1, 16, 8, torch.bfloat16, torch.bfloat16)
    blocks, q, k, v = world.take(36), world.random(36, 4), world.random(36, 1), world.random(36, 1)
    world.put(blocks, k[:31], v[:31])
    alone = [world.run([PagedSpan(blocks, i, i + 1)], q[i : i + 1], k[i : i + 1], v[i : i + 1]) for i in (31, 32)]
    together = world.run([PagedSpan(blocks, 31, 33)], q[31:33], k[31:33], v[31:33])
    assert torch.equal(together, torch.cat(alone))


def test_work_is_cut_so_that_every_token_is_in_one_piece() -> None:
    fresh = [Fresh(0, 5, 6), Fresh(1, 0, 40), Fresh(41, 9, 13)]
    few, many = cut_work(fresh, heads=4)
    assert few == [[0, 0, 1, 5], [2, 41, 4, 9]]
    assert many == [[1, 1, 16, 0], [1, 17, 16, 16], [1, 33, 8, 32]]


def test_refusals() -> None:
    world = World(4, 2, 16, 8, torch.float32, torch.float32)
    with pytest.raises(ValueError, match="start is 4 and stop is 4"):
        plan_pass([PagedSpan([0], 4, 4)], world.config, 8, DEVICE)
    with pytest.raises(ValueError, match="blocks hold 8 tokens, stop is 9"):
        plan_pass([PagedSpan([0], 4, 9)], world.config, 8, DEVICE)
    plan = plan_pass([PagedSpan([0], 4, 5)], world.config, 8, DEVICE)
    with pytest.raises(ValueError, match="1 new tokens, the row has 2"):
        PagedAttend(world.pages, plan)(0, world.random(2, 4), world.random(2, 2), world.random(2, 2))
    with pytest.raises(ValueError, match="head_dim is 24"):
        World(4, 2, 24, 8, torch.float32, torch.float32).run(
            [PagedSpan([0], 0, 1)], torch.zeros(1, 4, 24), *(torch.zeros(1, 2, 24),) * 2
        )
    with pytest.raises(ValueError, match="17 query heads share a key head"):
        World(17, 1, 16, 8, torch.float32, torch.float32).run(
            [PagedSpan([0], 0, 1)], torch.zeros(1, 17, 16), *(torch.zeros(1, 1, 16),) * 2
        )
