"""The network over a paged Triton cache = over the plain one; padded decoding steps touch nothing of others."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from tests.engine.world import VOCABULARY, ask_all, decoder

from magister.engine.cuda_runner import CudaRunner
from magister.engine.engine import Engine
from magister.engine.limits import Limits
from magister.engine.runner import TorchRunner
from magister.engine.sequence import Sequence
from magister.engine.sequence import Span as EngineSpan
from magister.kernels.cuda import attention, check
from magister.model import graphs, layout
from magister.model.cache import CachedAttention, KVCache, KVFormat, Span
from magister.model.config import DecoderConfig, ModelConfig
from magister.model.graphs import DecodeGraphs, DecodeRow, host_fields, host_tables, padded_size
from magister.model.network import Model, build, init_weights, native_parameters
from magister.model.paged import PagedAttend, PagedSpan, allocate_pages, plan_pass
from magister.types import Sampling

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONFIG = DecoderConfig(32, 2, 16, 48, 4, 2, 1e-5, 100, 1e4, 4096)
PAGE, SCRATCH = 4, 9


@pytest.fixture(autouse=True)
def _few_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_SPLITS", 2)
    monkeypatch.setattr(attention, "_KEYS", 16)


@pytest.fixture(scope="module")
def model() -> Model:
    model = build(ModelConfig(CONFIG))
    init_weights(model, seed=1, device=DEVICE)
    for _, parameter in native_parameters(model):
        parameter.requires_grad_(False)
        if parameter.dim() > 1:
            parameter.mul_(8.0)
    layout.arrange(model)
    return model


def positions(spans: list[PagedSpan]) -> Tensor:
    return torch.cat([torch.arange(span.start, span.stop) for span in spans]).to(DEVICE)


def plain(model: Model, ids: Tensor) -> Tensor:
    """The hidden states of one sequence in one pass over the plain cache."""
    spans = [Span(torch.arange(len(ids)), 0, len(ids))]
    attend = CachedAttention(KVCache.allocate(CONFIG, len(ids), device=DEVICE), spans)
    hidden: Tensor = model(ids.to(DEVICE), torch.arange(len(ids), device=DEVICE), attend)
    return hidden


def paged(model: Model, pages: tuple[attention.Pages, ...], ids: Tensor, spans: list[PagedSpan]) -> Tensor:
    attend = PagedAttend(pages, plan_pass(spans, CONFIG, PAGE, DEVICE))
    hidden: Tensor = model(ids.to(DEVICE), positions(spans), attend)
    return hidden


def test_the_network_over_pages_equals_the_network_over_the_plain_cache(model: Model) -> None:
    pages = allocate_pages(CONFIG, 10, PAGE, device=DEVICE, dtype=torch.float32)
    ids = torch.randint(100, (31,), generator=torch.Generator().manual_seed(0))
    one, two = ids[:20], ids[20:]
    paged(model, pages, torch.cat((one[:13], two[:10])), [PagedSpan([7, 2, 5, 0], 0, 13), PagedSpan([1, 8, 3], 0, 10)])
    mixed = paged(
        model,
        pages,
        torch.cat((one[13:], two[10:])),
        [PagedSpan([7, 2, 5, 0, 6], 13, 20), PagedSpan([1, 8, 3], 10, 11)],
    )
    assert torch.allclose(mixed[:7], plain(model, one)[13:], atol=1e-4)
    assert torch.allclose(mixed[7:], plain(model, two)[10:], atol=1e-4)


@torch.no_grad()
def test_padded_steps_equal_plain_ones_and_touch_only_their_slots_and_the_scratch_block(model: Model) -> None:
    pages = allocate_pages(CONFIG, 10, PAGE, device=DEVICE, dtype=torch.float32)
    tables = [[7, 2], [1], [4, 3]]
    ids = torch.randint(100, (3, 6), generator=torch.Generator().manual_seed(0))
    starts = [4, 0, 5]
    for row, (blocks, start) in enumerate(zip(tables, starts, strict=True)):
        if start:
            paged(model, pages, ids[row, :start], [PagedSpan(blocks, 0, start)])
    before = [page.k.clone() for page in pages]
    steps = DecodeGraphs(model, pages, SCRATCH, width=3, sizes=(4, 2))
    rows = [DecodeRow(int(ids[row, start]), start, tables[row]) for row, start in enumerate(starts)]
    logits_bv = steps.step(rows)
    assert logits_bv.shape == (3, 100)
    for row, start in enumerate(starts):
        wanted = model.logits(plain(model, ids[row, : start + 1])[-1])
        assert torch.allclose(logits_bv[row], wanted, atol=1e-4)
    own = {2 * PAGE, PAGE, 3 * PAGE + 1, SCRATCH * PAGE}
    for page, old in zip(pages, before, strict=True):
        assert {int(slot) for slot in (page.k != old).flatten(1).any(1).nonzero()} == own
    assert (steps.refusal is None) == (DEVICE == "cuda")


@pytest.mark.parametrize("kv", [None, KVFormat.INT8])
def test_the_runner_equals_the_one_of_plain_torch(model: Model, kv: KVFormat | None) -> None:
    runners = (TorchRunner(model, 9, PAGE, kv), CudaRunner(model, 9, PAGE, context=32, kv=kv))
    ids = torch.randint(100, (2, 14), generator=torch.Generator().manual_seed(2)).tolist()
    one = Sequence(number=0, ids=ids[0][:11], prompt_length=9, blocks=[7, 2, 5])
    two = Sequence(number=1, ids=ids[1][:6], prompt_length=6, blocks=[1, 8])
    steps = [
        [EngineSpan(one, 0, 9, 1), EngineSpan(two, 0, 4, 0)],
        [EngineSpan(one, 9, 10, 1), EngineSpan(two, 4, 6, 2)],
        [EngineSpan(one, 10, 11, 1)],
        [EngineSpan(one, 10, 12, 2, draft=(5,))],
    ]
    for spans in steps:
        plain_bv, paged_bv = (runner.run(spans) for runner in runners)
        assert torch.allclose(plain_bv, paged_bv, atol=1e-4)
    runners[1].forget([0, 1])
    assert runners[1].remembered == set()
    assert runners[1].shapes == runners[0].shapes


def test_the_engine_says_the_same_over_pages_as_over_the_plain_cache() -> None:
    torch.manual_seed(0)
    config = ModelConfig(decoder(n_layers=1, head_dim=16))
    limits = Limits(context=24, blocks=8, block_size=4, step_tokens=12, running=3)
    requests = [((5, 6, 7, 8, 9), Sampling(temperature=0, max_tokens=4)), ((11, 12), Sampling(seed=3, max_tokens=3))]
    said = []
    for over_pages in (False, True):
        model = build(config)
        init_weights(model, seed=4, device=DEVICE)
        layout.arrange(model)
        runner = CudaRunner(model, 8, 4, context=24) if over_pages else TorchRunner(model, 8, 4)
        with Engine(runner, VOCABULARY, limits) as engine:
            said.append([reply.ids for reply in ask_all(engine, *requests)])
            assert engine.load().free_blocks == 8
    assert said[0] == said[1]


def test_the_runner_takes_new_weights_and_refuses_a_third_dtype(model: Model) -> None:
    fresh = build(ModelConfig(CONFIG))
    init_weights(fresh, seed=7, device=DEVICE)
    layout.arrange(fresh)
    runner = CudaRunner(fresh, 9, PAGE, context=32)
    runner.replace({name: parameter.clone() for name, parameter in native_parameters(model)})
    spans = [EngineSpan(Sequence(number=0, ids=[3, 4, 5], prompt_length=3, blocks=[0]), 0, 3, 1)]
    wanted = TorchRunner(model, 9, PAGE).run(spans)
    assert torch.allclose(runner.run(spans), wanted, atol=1e-4)
    with pytest.raises(ValueError, match=r"kv is bf16, the kernels read int8 or the model's own torch\.float32"):
        CudaRunner(fresh, 9, PAGE, context=32, kv=KVFormat.BF16)


def test_sizes_and_buffers() -> None:
    assert [padded_size(n, (1, 2, 4)) for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 4, None]
    rows = [DecodeRow(17, 5, [3, 8]), DecodeRow(4, 0, [2])]
    assert host_fields(rows, 3, page=4, scratch=9).tolist() == [
        [17, 4, 0], [33, 8, 36], [0, 1, 2], [0, 1, 2], [1, 1, 1], [5, 0, 0],
    ]  # fmt: skip
    assert host_tables(rows, 3, scratch=9).tolist() == [[3, 8], [2, 9], [9, 9]]
    buffers = graphs.Buffers.allocate(3, 4, torch.device(DEVICE))
    places = buffers.fields.data_ptr(), buffers.tables.data_ptr()
    buffers.fill(host_fields(rows, 3, page=4, scratch=9), host_tables(rows, 3, scratch=9))
    assert (buffers.fields.data_ptr(), buffers.tables.data_ptr()) == places
    assert buffers.tables.tolist() == [[3, 8, 0, 0], [2, 9, 0, 0], [9, 9, 0, 0]]


def test_refusals(model: Model) -> None:
    pages = allocate_pages(CONFIG, 10, PAGE, device=DEVICE, dtype=torch.float32)
    steps = DecodeGraphs(model, pages, SCRATCH, width=1, sizes=(2,))
    with pytest.raises(ValueError, match="rows are 3, the largest size is 2"):
        steps.step([DecodeRow(0, 0, [1])] * 3)
    with pytest.raises(ValueError, match="a row has 2 blocks, width is 1"):
        steps.step([DecodeRow(0, 4, [1, 2])])
    with pytest.raises(ValueError, match=r"call layout\.arrange first"):
        DecodeGraphs(build(ModelConfig(CONFIG)), pages, SCRATCH, width=1)


def test_the_checks_hold_here() -> None:
    torch.manual_seed(0)
    lines = list(check.equalities(DEVICE, check.Sizes(outputs=5, inputs=128, rows=(2,), context=10, vocab=300)))
    assert len(lines) == 2 * 8 + 8 + 1
    assert [line for line in lines if not line["ok"]] == []


@pytest.mark.skipif(DEVICE == "cuda", reason="there is a GPU here")
def test_without_a_gpu_the_check_says_so() -> None:
    command = [sys.executable, "-m", "magister.kernels.cuda.check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert json.loads(run.stdout) == {"missing": "torch sees no CUDA device"}


def test_the_package_alone_imports_no_triton() -> None:
    code = "import sys, magister.kernels.cuda, magister.kernels.quantized; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
