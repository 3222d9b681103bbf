"""decode step by step = one pass; chunked = whole; alone = in a batch; slots in any order; only the span's slots
written.
"""

import pytest
import torch
from torch import Tensor

from magister.model import cache as cache_module
from magister.model.attention import CausalAttention
from magister.model.cache import CachedAttention, KVCache, KVFormat, Span, quantize_heads
from magister.model.config import DecoderConfig, ModelConfig
from magister.model.network import Model, build, init_weights, native_parameters

DECODER = DecoderConfig(64, 2, 16, 96, 6, 2, 1e-5, 100, 1e9, 4096)


@pytest.fixture(scope="module")
def model() -> Model:
    model = build(ModelConfig(DECODER))
    init_weights(model, seed=1)
    for _, parameter in native_parameters(model):
        parameter.requires_grad_(False)
        if parameter.dim() > 1:
            parameter.mul_(8.0)
    return model


def _ids(n: int, seed: int = 0) -> Tensor:
    return torch.randint(100, (n,), generator=torch.Generator().manual_seed(seed))


def _whole(model: Model, ids_t: Tensor) -> Tensor:
    hidden_td: Tensor = model(ids_t, torch.arange(len(ids_t)), CausalAttention())
    return hidden_td


def _positions(spans: list[Span]) -> Tensor:
    """Of the new tokens of all spans, end to end."""
    return torch.cat([torch.arange(span.start, span.stop) for span in spans])


def _pieces(model: Model, ids_t: Tensor, slots: Tensor, lengths: list[int]) -> Tensor:
    cache, parts, start = KVCache.allocate(DECODER, 512), [], 0
    for n in lengths:
        spans = [Span(slots, start, start + n)]
        parts.append(model(ids_t[start : start + n], _positions(spans), CachedAttention(cache, spans)))
        start += n
    return torch.cat(parts)


NEIGHBOURS = torch.arange(100, 400)
SCATTERED = torch.randperm(512, generator=torch.Generator().manual_seed(4))
PLACES = pytest.mark.parametrize("slots", [NEIGHBOURS, SCATTERED], ids=["neighbours", "scattered"])


@PLACES
def test_decode_step_by_step_equals_one_pass(model: Model, slots: Tensor) -> None:
    ids_t = _ids(60)
    assert torch.allclose(_pieces(model, ids_t, slots, [1] * 60), _whole(model, ids_t), atol=1e-4)


@PLACES
@pytest.mark.parametrize("lengths", [[300], [299, 1], [1, 50, 7, 100, 1, 41, 100], [2] * 150])
def test_chunked_equals_whole(model: Model, slots: Tensor, lengths: list[int]) -> None:
    ids_t = _ids(300)
    assert torch.allclose(_pieces(model, ids_t, slots, lengths), _whole(model, ids_t), atol=1e-4)


@PLACES
@pytest.mark.parametrize("elements", [1, 300 * 40, 300 * 64])
def test_blocks_of_queries_equal_whole(
    model: Model, slots: Tensor, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_MASK_ELEMENTS", elements)
    ids_t = _ids(300)
    assert torch.allclose(_pieces(model, ids_t, slots, [3, 250, 47]), _whole(model, ids_t), atol=1e-4)


def _prefill(model: Model, cache: KVCache, ids_t: Tensor, slots: Tensor) -> None:
    model(ids_t, torch.arange(len(ids_t)), CachedAttention(cache, [Span(slots, 0, len(ids_t))]))


@pytest.mark.parametrize("batch_length", [0, 1024], ids=["one by one", "padded together"])
def test_alone_equals_in_a_batch(model: Model, batch_length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_BATCH_LENGTH", batch_length)
    stops = [5, 200, 190, 7, 1, 90]
    texts = [_ids(stop, seed) for seed, stop in enumerate(stops)]
    shuffled = torch.randperm(1000, generator=torch.Generator().manual_seed(9))
    places = list(torch.split(shuffled, [*stops, 1000 - sum(stops)]))
    places[1] = torch.arange(1000, 1200)
    cache = KVCache.allocate(DECODER, 1200)
    cache.k.fill_(torch.nan)  # what was never written must not be read, not even times zero
    cache.v.fill_(torch.nan)
    starts = [4, 199, 120, 6, 0, 89]
    for ids_t, slots, start in zip(texts, places, starts, strict=False):
        if start:
            _prefill(model, cache, ids_t[:start], slots)
    spans = [Span(slots, start, stop) for slots, start, stop in zip(places, starts, stops, strict=False)]
    new_t = torch.cat([ids_t[start:] for ids_t, start in zip(texts, starts, strict=True)])
    together = model(new_t, _positions(spans), CachedAttention(cache, spans))
    expected = torch.cat([_whole(model, ids_t)[start:] for ids_t, start in zip(texts, starts, strict=True)])
    assert torch.allclose(together, expected, atol=1e-4)
    assert torch.equal(model.logits(together).argmax(-1), model.logits(expected).argmax(-1))


def test_equal_lengths_need_no_mask(model: Model) -> None:
    cache, texts = KVCache.allocate(DECODER, 512), [_ids(30, 1), _ids(30, 2)]
    places = [torch.arange(30), torch.arange(50, 80)]
    for ids_t, slots in zip(texts, places, strict=True):
        _prefill(model, cache, ids_t[:-1], slots)
    spans = [Span(slots, 29, 30) for slots in places]
    together = model(torch.stack([t[-1] for t in texts]), _positions(spans), CachedAttention(cache, spans))
    assert torch.allclose(together, torch.stack([_whole(model, t)[-1] for t in texts]), atol=1e-4)


def test_two_sequences_may_share_a_prefix(model: Model) -> None:
    cache, shared = KVCache.allocate(DECODER, 512), _ids(40)
    _prefill(model, cache, shared, torch.arange(40))
    texts = [torch.cat((shared, _ids(8, seed))) for seed in (5, 6)]
    places = [torch.cat((torch.arange(40), torch.arange(at, at + 8))) for at in (100, 200)]
    spans = [Span(slots, 40, 48) for slots in places]
    new_t = torch.cat([ids_t[40:] for ids_t in texts])
    together = model(new_t, _positions(spans), CachedAttention(cache, spans))
    assert torch.allclose(together, torch.cat([_whole(model, t)[40:] for t in texts]), atol=1e-4)


def test_only_the_new_slots_are_written(model: Model) -> None:
    cache = KVCache.allocate(DECODER, 64)
    slots = torch.tensor([7, 3, 60, 9, 1])
    model(_ids(3), torch.arange(3), CachedAttention(cache, [Span(slots, 0, 3)]))
    written = cache.k.abs().sum(dim=(0, 2, 3)).nonzero().flatten().tolist()
    assert written == [3, 7, 60]


def test_bfloat16_cache(model: Model) -> None:
    other = build(ModelConfig(DECODER))
    init_weights(other, seed=1, dtype=torch.bfloat16)
    cache, slots = KVCache.allocate(DECODER, 64, dtype=torch.bfloat16), torch.arange(20)
    with torch.inference_mode():
        first = other(_ids(19), torch.arange(19), CachedAttention(cache, [Span(slots, 0, 19)]))
        last = other(_ids(20)[19:], torch.tensor([19]), CachedAttention(cache, [Span(slots, 19, 20)]))
        whole = _whole(other, _ids(20))
    assert last.dtype == torch.bfloat16
    assert torch.allclose(torch.cat((first, last)).float(), whole.float(), atol=0.1)


@PLACES
@pytest.mark.parametrize(("kv", "close"), [(KVFormat.FP32, 1e-4), (KVFormat.BF16, 0.2), (KVFormat.INT8, 0.2)])
def test_formats_hold_what_they_can(model: Model, slots: Tensor, kv: KVFormat, close: float) -> None:
    """Chunked, decoded one by one, and beside another: always near the exact result, and never it but in float32."""
    cache, ids_t = KVCache.allocate(DECODER, 512, kv=kv), _ids(60)
    parts = []
    for start, stop in ((0, 40), (40, 58), (58, 59)):
        attend = CachedAttention(cache, [Span(slots, start, stop)])
        parts.append(model(ids_t[start:stop], torch.arange(start, stop), attend))
    spans = [Span(slots, 59, 60), Span(slots[200:], 0, 1)]
    attend = CachedAttention(cache, spans)
    parts.append(model(torch.stack((ids_t[59], ids_t[0])), _positions(spans), attend)[:1])
    found, wanted = torch.cat(parts), _whole(model, ids_t)
    assert torch.allclose(found, wanted, atol=close)
    assert torch.allclose(found, wanted, atol=1e-5) is (kv is KVFormat.FP32)


def test_int8_has_a_scale_for_each_head_of_each_token() -> None:
    sizes_t11 = torch.tensor([1e-6, 1.0, 50.0, 1e9, 0.0])[:, None, None]
    x_tgk = torch.randn(5, 2, 16, generator=torch.Generator().manual_seed(0)) * sizes_t11
    q_tgk, scales_tg1 = quantize_heads(x_tgk)
    assert (q_tgk.dtype, scales_tg1.shape) == (torch.int8, (5, 2, 1))
    assert q_tgk[:4].abs().amax(-1).eq(127).all()
    assert ((q_tgk * scales_tg1 - x_tgk).abs() <= scales_tg1 * 0.501).all()
    assert not scales_tg1[4].any()


def test_int8_is_scaled_by_one_division() -> None:
    x_tgk = torch.randn(20_000, 2, 64, generator=torch.Generator().manual_seed(10))
    # float64 has room enough that its quotient, rounded to float32, is the one of float32.
    inverse_tg1 = (127.0 / x_tgk.abs().amax(-1, keepdim=True).double()).float()
    assert torch.equal(quantize_heads(x_tgk)[0], (x_tgk * inverse_tg1).round().to(torch.int8))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_int8_does_not_hide_what_is_not_finite(bad: float) -> None:
    x_tgk = torch.ones(1, 2, 16)
    x_tgk[0, 0, 3] = bad
    q_tgk, scales_tg1 = quantize_heads(x_tgk)
    y_tgk = q_tgk * scales_tg1
    assert not y_tgk[0, 0].isfinite().any()
    assert torch.allclose(y_tgk[0, 1], x_tgk[0, 1])


def test_a_known_run_is_read_like_one_found_out(model: Model) -> None:
    cache, ids_t = KVCache.allocate(DECODER, 512), _ids(20)
    _prefill(model, cache, ids_t[:19], NEIGHBOURS)
    other = Span(SCATTERED[SCATTERED > 400][:1], 0, 1)
    for others in ([], [other]):
        outs = []
        for first in (None, 100):
            spans = [Span(NEIGHBOURS, 19, 20, first), *others]
            ids = torch.cat((ids_t[19:], ids_t[: len(others)]))
            outs.append(model(ids, _positions(spans), CachedAttention(cache, spans)))
        assert torch.equal(*outs)


def test_spans_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="start is 5 and stop is 5"):
        Span(torch.arange(9), 5, 5)
    with pytest.raises(ValueError, match="slots has 4 entries, stop is 5"):
        Span(torch.arange(4), 0, 5)


def test_row_and_spans_must_agree(model: Model) -> None:
    attend = CachedAttention(KVCache.allocate(DECODER, 16), [Span(torch.arange(4), 0, 4)])
    with pytest.raises(ValueError, match="spans have 4 new tokens, the row has 3"):
        model(_ids(3), torch.arange(3), attend)
