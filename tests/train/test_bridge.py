"""The map from embeddings to head: nothing at first, a plain head at the end, one lesson for all tokens between."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from magister.model.config import DecoderConfig, ModelConfig
from magister.model.network import Model, build, init_weights
from magister.train.bridge import Bridge

SHAPE = DecoderConfig(
    dim=16,
    n_layers=1,
    head_dim=16,
    hidden_dim=16,
    n_heads=1,
    n_kv_heads=1,
    norm_eps=1e-5,
    vocab_size=128,
    rope_theta=10_000.0,
    max_position_embeddings=32,
)


def tiny() -> Model:
    model = build(ModelConfig(SHAPE, None))
    init_weights(model, 0)
    with torch.no_grad():
        # As large as they come to be in training.
        model.decoder.tok_embeddings.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    return model


def test_it_changes_nothing_at_first_and_is_a_plain_head_at_the_end() -> None:
    model = tiny()
    bridge, hidden_nd = Bridge(model), torch.randn(5, 16, generator=torch.Generator().manual_seed(2))
    before = model.logits(hidden_nd)
    assert torch.equal(F.linear(hidden_nd, bridge.head(model)), before)
    assert bridge.weight is not None
    with torch.no_grad():
        bridge.weight.normal_()
    through = F.linear(hidden_nd, bridge.head(model))
    assert not torch.allclose(through, before)
    bridge.fold(model)
    assert torch.equal(model.logits(hidden_nd), through)
    assert not bridge.weight.any()


def test_where_head_and_embeddings_are_one_matrix_there_is_none() -> None:
    model = build(ModelConfig(replace(SHAPE, tied_embeddings=True), None))
    init_weights(model, 0)
    bridge, hidden_nd = Bridge(model), torch.ones(5, 16)
    assert not list(bridge.parameters())
    assert torch.equal(F.linear(hidden_nd, bridge.head(model)), model.logits(hidden_nd))
    bridge.fold(model)


def _copied(model: Model, head: Tensor, tokens: Tensor) -> float:
    """The share of tokens that are said again by a state that is their embedding."""
    said = F.linear(model.decoder.tok_embeddings.weight[tokens], head).argmax(-1)
    return float((said == tokens).float().mean())


def test_tokens_that_are_copied_teach_how_others_are() -> None:
    shown, unseen = torch.arange(96), torch.arange(96, 128)
    came = {}
    for name in ("head alone", "bridge"):
        model = tiny()
        bridge = Bridge(model)
        assert model.decoder.output is not None
        learned = list(bridge.parameters()) if name == "bridge" else [model.decoder.output.weight]
        optimizer = torch.optim.Adam(learned, lr=0.05)
        for _ in range(1000):
            states_nd = model.decoder.tok_embeddings.weight[shown].detach()
            loss = F.cross_entropy(F.linear(states_nd, bridge.head(model)), shown)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        came[name] = (_copied(model, bridge.head(model), shown), _copied(model, bridge.head(model), unseen))
    assert came["head alone"][0] > 0.9 > 0.1 > came["head alone"][1], came
    assert min(came["bridge"]) > 0.8, came
