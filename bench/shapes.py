"""The networks that are measured: nano as it is shipped, and random ones."""

from __future__ import annotations

from dataclasses import replace

from magister.model.config import MAGISTRAL_SMALL, DecoderConfig, ModelConfig

SMALL = ModelConfig(
    DecoderConfig(
        dim=512,
        n_layers=8,
        head_dim=64,
        hidden_dim=1280,
        n_heads=8,
        n_kv_heads=4,
        norm_eps=1e-5,
        vocab_size=8192,
        rope_theta=10000.0,
        max_position_embeddings=4096,
    )
)
"""30.4 million parameters."""


PROBE = ModelConfig(
    DecoderConfig(
        dim=512,
        n_layers=1,
        head_dim=64,
        hidden_dim=1024,
        n_heads=8,
        n_kv_heads=4,
        norm_eps=1e-5,
        vocab_size=4096,
        rope_theta=10000.0,
        max_position_embeddings=256,
    )
)
"""Just enough to see whether a build runs; every width is a multiple of llama.cpp's largest block, 256."""


def magistral(layers: int) -> ModelConfig:
    """The text network of Magistral Small with so many of its 40 layers."""
    return ModelConfig(replace(MAGISTRAL_SMALL.decoder, n_layers=layers))


def layer_operations(config: ModelConfig) -> float:
    """Multiplications and additions of one token in the matrices of all layers: what prefill consists of but for
    attention, and for the head, which sees the last token only."""
    d = config.decoder
    attention = d.dim * d.head_dim * 2 * (d.n_heads + d.n_kv_heads)
    return 2.0 * d.n_layers * (attention + 3 * d.dim * d.hidden_dim)
