"""A request of 131,072 tokens in one pass = the same request in chunks of 8,192, on a model that fits one core."""

import torch

from magister.model.cache import CachedAttention, KVCache, Span
from magister.model.config import DecoderConfig, ModelConfig
from magister.model.network import Model, build, init_weights, native_parameters

TOKENS, CHUNK = 131_072, 8_192


def _model() -> Model:
    # One layer and one head: two passes of 131,072^2 / 2 scores each are half a minute of one core.
    model = build(
        ModelConfig(
            DecoderConfig(
                dim=32,
                n_layers=1,
                head_dim=16,
                hidden_dim=48,
                n_heads=1,
                n_kv_heads=1,
                norm_eps=1e-5,
                vocab_size=64,
                rope_theta=1e9,
                max_position_embeddings=TOKENS,
            )
        )
    )
    init_weights(model, seed=3)
    for name, parameter in native_parameters(model):
        if name.endswith(("wq.weight", "wk.weight")):
            parameter.data.mul_(30.0)  # attention that prefers some tokens, so that a wrong mask shows
    return model


def test_one_pass_equals_chunks() -> None:
    model = _model()
    ids_t = torch.randint(64, (TOKENS,), generator=torch.Generator().manual_seed(5))
    positions_t, slots = torch.arange(TOKENS), torch.arange(TOKENS)
    rows = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 65_535, 65_536, 100_003, TOKENS - CHUNK, TOKENS - 1]
    with torch.inference_mode():
        whole = KVCache.allocate(model.config.decoder, TOKENS)
        hidden_td = model(ids_t, positions_t, CachedAttention(whole, [Span(slots, 0, TOKENS)]))
        chunked = KVCache.allocate(model.config.decoder, TOKENS)
        parts = [
            model(
                ids_t[a : a + CHUNK], positions_t[a : a + CHUNK], CachedAttention(chunked, [Span(slots, a, a + CHUNK)])
            )
            for a in range(0, TOKENS, CHUNK)
        ]
        twin_td = torch.cat(parts)
        assert torch.allclose(hidden_td, twin_td, atol=1e-4, rtol=0)
        assert torch.allclose(model.logits(hidden_td[rows]), model.logits(twin_td[rows]), atol=1e-4, rtol=0)
        assert torch.allclose(whole.k, chunked.k, atol=1e-5, rtol=0)
    assert hidden_td.std(dim=0).min() > 0.1, "rows that are all alike prove little"
