"""The network: layouts of a batch, the splice of image features, initial weights, parameter names."""

import pytest
import torch

from magister.model.attention import CausalAttention, PackedAttention, packed_positions, segment_lengths
from magister.model.config import DecoderConfig, ModelConfig, VisionConfig
from magister.model.network import Model, build, init_weights, native_parameters, set_parameter

DECODER = DecoderConfig(64, 2, 16, 96, 6, 2, 1e-5, 100, 1e6, 4096)
VISION = VisionConfig(32, 2, 2, 48, 4, 64)


def _model(config: ModelConfig, gain: float = 8.0) -> Model:
    model = build(config)
    init_weights(model, seed=1)
    for _, parameter in native_parameters(model):
        if parameter.dim() > 1:
            parameter.data.mul_(gain)
    return model


def test_packed_rows_equal_sequences_by_themselves() -> None:
    model = _model(ModelConfig(DECODER))
    ids_bt = torch.randint(100, (2, 12), generator=torch.Generator().manual_seed(0))
    segments_bt = torch.tensor([[1] * 5 + [2] * 4 + [0] * 3, [8] * 12])
    with torch.no_grad():
        packed = model(ids_bt, packed_positions(segments_bt), PackedAttention(segments_bt))
        flat = model(ids_bt[0], packed_positions(segments_bt)[0], CausalAttention([5, 4, 3]))
        alone = model(ids_bt[0, 5:9], torch.arange(4), CausalAttention())
        whole = model(ids_bt[1], torch.arange(12), CausalAttention())
    assert torch.allclose(packed[0], flat, atol=1e-5)
    assert torch.allclose(packed[0, 5:9], alone, atol=1e-5)
    assert torch.allclose(packed[1], whole, atol=1e-5)


def test_packed_positions() -> None:
    segments_bt = torch.tensor([[4, 4, 4, 7, 7, 9], [1, 1, 1, 1, 1, 1]])
    assert packed_positions(segments_bt).tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]]


def test_compiles_without_a_break_and_trains() -> None:
    model = _model(ModelConfig(DECODER), gain=1.0)
    segments_bt = torch.tensor([[1] * 5 + [2] * 7])
    ids_bt, positions_bt = torch.arange(12)[None], packed_positions(segments_bt)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    hidden = compiled(ids_bt, positions_bt, PackedAttention(segments_bt))
    assert torch.allclose(hidden, model(ids_bt, positions_bt, PackedAttention(segments_bt)), atol=1e-6)
    torch.autograd.backward(model.logits(hidden).logsumexp(-1).sum())
    unmoved = [name for name, p in native_parameters(model) if p.grad is None or not p.grad.abs().sum() > 0]
    assert unmoved == []


def test_lengths_must_add_up() -> None:
    model = _model(ModelConfig(DECODER))
    with pytest.raises(ValueError, match="add up to 7 tokens, the row has 6"):
        model(torch.arange(6), torch.arange(6), CausalAttention([3, 4]))


def test_features_fill_image_places_in_reading_order() -> None:
    model = _model(ModelConfig(DECODER, VISION))
    ids = torch.tensor([20, 10, 10, 12, 10, 21])
    features = [torch.full((2, 64), 5.0), torch.full((1, 64), 6.0)]
    with torch.no_grad():
        x_td = model.embed(ids, features)
        plain_td = model.decoder.embed(ids)
    assert x_td[:, 0].tolist() == [plain_td[0, 0], 5.0, 5.0, plain_td[3, 0], 6.0, plain_td[5, 0]]


def test_features_must_fit_the_places() -> None:
    model = _model(ModelConfig(DECODER, VISION))
    with pytest.raises(ValueError, match="images give 3 feature rows, the ids have 2 image places"):
        model.embed(torch.tensor([10, 10, 11]), [torch.zeros(3, 64)])
    with pytest.raises(ValueError, match="images give 0 feature rows, the ids have 1 image places"):
        model.embed(torch.tensor([10, 11]))
    with pytest.raises(ValueError, match="1 images given, but the model has no vision encoder"):
        _model(ModelConfig(DECODER)).embed(torch.tensor([10]), [torch.zeros(1, 64)])


def test_images_do_not_see_one_another() -> None:
    model = _model(ModelConfig(DECODER, VISION))
    assert model.vision is not None
    one, other = torch.randn(3, 16, 24), torch.randn(3, 8, 64)
    with torch.no_grad():
        together = model.vision([one, other])
        alone = [model.vision([one])[0], model.vision([other])[0]]
    assert [features.shape for features in together] == [(6, 64), (8, 64)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 12, 8), "image height is 12 pixels, must be a multiple of 8"),
        ((3, 8, 72), "image width is 72 pixels, at most 64 fit the encoder"),
        ((1, 8, 8), r"image has shape \(1, 8, 8\), must be \[3, height, width\]"),
    ],
)
def test_images_the_encoder_cannot_take(shape: tuple[int, ...], message: str) -> None:
    model = _model(ModelConfig(DECODER, VISION))
    assert model.vision is not None
    with pytest.raises(ValueError, match=message):
        model.vision([torch.zeros(shape)])


def test_initial_weights_follow_the_seed() -> None:
    first, again, other = (build(ModelConfig(DECODER, VISION)) for _ in range(3))
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        init_weights(model, seed)
    matrices = [name for name, p in native_parameters(first) if p.dim() > 1]
    same, different = dict(native_parameters(again)), dict(native_parameters(other))
    values = dict(native_parameters(first))
    assert all(torch.equal(values[name], same[name]) for name in matrices)
    assert not any(torch.equal(values[name], different[name]) for name in matrices)
    assert values["layers.0.attention.wq.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert values["layers.0.attention.wo.weight"].std().item() == pytest.approx(0.01, rel=0.05)
    assert values["norm.weight"].eq(1).all()


def test_building_allocates_nothing() -> None:
    assert all(p.is_meta for p in build(ModelConfig(DECODER, VISION)).parameters())


def test_tied_head_is_the_embedding() -> None:
    tied = DecoderConfig(64, 2, 16, 96, 6, 2, 1e-5, 100, 1e6, 4096, tied_embeddings=True)
    model = _model(ModelConfig(tied))
    assert "output.weight" not in dict(native_parameters(model))
    hidden = torch.randn(3, 64)
    assert torch.equal(model.logits(hidden), hidden @ model.decoder.tok_embeddings.weight.T)


def test_set_parameter_takes_the_tensor_itself() -> None:
    model = _model(ModelConfig(DECODER, VISION))
    for name in ("layers.1.feed_forward.w2.weight", "vision_encoder.patch_conv.weight", "norm.weight"):
        value = torch.zeros_like(dict(native_parameters(model))[name])
        set_parameter(model, name, value)
        assert dict(native_parameters(model))[name].data_ptr() == value.data_ptr()


def test_positions_count_up_along_the_lengths_of_the_segments() -> None:
    segments_bt = torch.tensor([[4, 4, 4, 7, 7, 9], [9, 9, 1, 1, 1, 0]])
    lengths = segment_lengths(segments_bt)
    assert lengths == [3, 2, 1, 2, 3, 1]
    assert packed_positions(segments_bt).flatten().tolist() == [place for length in lengths for place in range(length)]
