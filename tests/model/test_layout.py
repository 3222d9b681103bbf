import pytest
import torch

from magister.model.attention import CausalAttention
from magister.model.config import DecoderConfig, ModelConfig
from magister.model.layout import arrange
from magister.model.network import Model, build, init_weights, native_parameters

CONFIG = DecoderConfig(
    dim=24,
    n_layers=2,
    head_dim=8,
    hidden_dim=40,
    n_heads=4,
    n_kv_heads=2,
    norm_eps=1e-5,
    vocab_size=50,
    rope_theta=1e6,
    max_position_embeddings=64,
)


def made(dtype: torch.dtype) -> Model:
    model = build(ModelConfig(CONFIG, None))
    init_weights(model, 3, dtype=dtype)
    return model


def logits(model: Model) -> torch.Tensor:
    with torch.inference_mode():
        ids_t = torch.arange(9) % 7
        return model.logits(model(ids_t, torch.arange(9), CausalAttention()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_arranged_network_computes_the_same(dtype: torch.dtype) -> None:
    plain, arranged = made(dtype), made(dtype)
    arrange(arranged)
    torch.testing.assert_close(
        logits(arranged), logits(plain), rtol=1e-4, atol=1e-5 if dtype is torch.float32 else 2e-2
    )


def test_names_shapes_and_values_stay() -> None:
    plain, arranged = made(torch.float32), made(torch.float32)
    arrange(arranged)
    before, after = dict(native_parameters(plain)), dict(native_parameters(arranged))
    assert list(before) == list(after)
    for name, parameter in before.items():
        assert torch.equal(parameter, after[name]), name


def test_weights_copied_into_parameters_reach_the_joined_matrices() -> None:
    arranged, other = made(torch.float32), made(torch.float32)
    arrange(arranged)
    with torch.no_grad():
        for (_, ours), (_, theirs) in zip(native_parameters(arranged), native_parameters(other), strict=True):
            theirs.mul_(1.5)
            ours.copy_(theirs)
    torch.testing.assert_close(logits(arranged), logits(other), rtol=1e-4, atol=1e-5)
