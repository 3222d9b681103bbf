"""The compiled decoder equals the network in torch, and refuses what it cannot do."""

from typing import Any

import pytest
import torch
from tests.kernels import decoder_world as world
from tests.kernels.libraries import library
from torch import Tensor

from magister.kernels.quantized import Format, Quantized, dequantize
from magister.model import compiled as module
from magister.model.attention import CausalAttention
from magister.model.cache import KVFormat
from magister.model.compiled import CompiledDecoder, Step
from magister.model.network import native_parameters, set_parameter

SHAPES: list[dict[str, Any]] = [
    {},
    {"head_dim": 64, "n_heads": 3, "n_kv_heads": 3, "dim": 40},
    {"head_dim": 128, "n_heads": 4, "n_kv_heads": 1, "hidden_dim": 33},
    {"head_dim": 10, "n_heads": 5, "n_kv_heads": 1, "dim": 33, "vocab_size": 101},
    {"head_dim": 2, "n_heads": 12, "n_kv_heads": 2, "tied_embeddings": True},
    {"n_layers": 1, "tied_embeddings": True, "rope_theta": 1e9},
]


@pytest.mark.parametrize("changes", SHAPES, ids=str)
@pytest.mark.parametrize("isa", ["", "generic"])
def test_equals_torch(changes: dict[str, Any], isa: str) -> None:
    shape = world.config(**changes)
    model = world.network(shape)
    decoder = world.compiled(shape, world.weights(model), lib=library(isa))
    tokens = world.ids(70)
    got, wanted = world.run_fresh(decoder, tokens, [33]), world.definition(model, tokens)
    assert world.off(got, wanted) < 1e-4
    assert torch.equal(got.argmax(-1), wanted.argmax(-1))


def test_bfloat16_weights_equal_torch_on_the_same_numbers() -> None:
    shape = world.config()
    model = world.network(shape)
    rounded = {name: weight.bfloat16() for name, weight in world.weights(model).items()}
    for name, _ in list(native_parameters(model)):
        set_parameter(model, name, rounded[name].float())
    tokens = world.ids(50)
    wanted = world.definition(model, tokens)
    got = world.run_fresh(world.compiled(shape, rounded), tokens)
    assert world.off(got, wanted) < 1e-4
    assert torch.equal(got.argmax(-1), wanted.argmax(-1))


@pytest.mark.parametrize(("kind", "mins"), [("int8", False), ("int4", False), ("int4", True), ("fp8", False)])
def test_quantised_weights_equal_their_definition(kind: str, mins: bool) -> None:
    shape = world.config(dim=64)
    given, model = world.quantize_all(
        world.network(shape), lambda name, weight: world.quantized(weight, Format(kind), mins=mins)
    )
    tokens = world.ids(50)
    wanted = world.definition(model, tokens)
    got = world.run_fresh(world.compiled(shape, given), tokens)
    # An activation that lies between two whole numbers may be rounded either way.
    assert world.off(got, wanted) < (1e-4 if kind == "fp8" else 2e-2)
    assert world.divergence(got, wanted) < (1e-7 if kind == "fp8" else 1e-3)
    for name, matrix in given.items():
        given[name] = dequantize(matrix) if isinstance(matrix, Quantized) else matrix
    weight_only = world.run_fresh(world.compiled(shape, given), tokens)
    assert world.divergence(got, weight_only) < (1e-7 if kind == "fp8" else 2e-2)


def test_every_matrix_may_have_its_own_format() -> None:
    shape = world.config(dim=64, head_dim=32)
    kinds = {
        "wq": (Format.INT4, 32, True),
        "wk": (Format.INT8, 64, False),
        "wv": (Format.INT8, 16, False),
        "wo": (Format.FP8, 128, False),
        "w1": (Format.INT4, 64, False),
        "w2": (Format.INT8, 80, False),
        "w3": (Format.FP8, 64, False),
        "output": (Format.INT8, 32, False),
    }

    def make(name: str, weight: Tensor) -> Quantized:
        kind, group, mins = kinds[name.split(".")[-2]]
        return world.quantized(weight, kind, group, mins)

    given, model = world.quantize_all(world.network(shape), make)
    tokens = world.ids(40)
    got, wanted = world.run_fresh(world.compiled(shape, given), tokens), world.definition(model, tokens)
    assert world.off(got, wanted) < 2e-2
    assert world.divergence(got, wanted) < 1e-3


@pytest.mark.parametrize(("kv", "bound"), [(KVFormat.FP32, 1e-9), (KVFormat.BF16, 2e-3), (KVFormat.INT8, 5e-3)])
@pytest.mark.parametrize("block_size", [1, 7, 16, 48])
def test_caches_of_every_format_and_block_size(kv: KVFormat, bound: float, block_size: int) -> None:
    shape = world.config()
    model = world.network(shape)
    tokens = world.ids(60)
    got = world.run_fresh(world.compiled(shape, world.weights(model)), tokens, [20, 21, 22], kv, block_size)
    assert world.divergence(got, world.definition(model, tokens)) < bound


def test_features_stand_in_for_tokens() -> None:
    shape = world.config()
    model = world.network(shape)
    decoder = world.compiled(shape, world.weights(model))
    tokens, features = world.ids(10), torch.randn(3, shape.dim)
    x_td = model.decoder.embed(torch.tensor(tokens)).detach().clone()
    x_td[[2, 3, 7]] = features
    with torch.no_grad():
        wanted = model.logits(model(x_td, torch.arange(10), CausalAttention()))
    cache = decoder.cache(1, 16, KVFormat.FP32)
    first = decoder.forward(cache, Step(tokens[:6], [(0, 6)], [[0]], [], [2, 3], features[:2].contiguous()))
    assert first.shape == (0, shape.vocab_size)
    got = decoder.forward(cache, Step(tokens[6:], [(6, 10)], [[0]], [0, 3], [1], features[2:].contiguous()))
    assert world.off(got, wanted[[6, 9]]) < 1e-4


def test_far_positions_turn_as_in_torch() -> None:
    # The rest of the cache is zeros: what is compared is the last token's rotation against its neighbour's.
    shape = world.config(n_layers=1, rope_theta=1e9)
    model = world.network(shape)
    decoder = world.compiled(shape, world.weights(model))
    blocks = list(range(131072 // 512))
    cache = decoder.cache(len(blocks), 512, KVFormat.FP32)
    far = decoder.forward(cache, Step([5, 6], [(131070, 131072)], [blocks], [1])).clone()
    with torch.no_grad():
        x_td = model.decoder.embed(torch.tensor([5, 6]))

        # Keys of zeros score 0 and have values of zeros.
        def attend(index: int, q_thk: Tensor, k_tgk: Tensor, v_tgk: Tensor) -> Tensor:
            k_thk, v_thk = (x.repeat_interleave(2, 1) for x in (k_tgk, v_tgk))
            weights_th = ((q_thk[1:] * k_thk).sum(-1) / 4).exp()
            total_h = weights_th.sum(0) + 131070
            out_hk = (weights_th[..., None] * v_thk).sum(0) / total_h[:, None]
            return torch.stack((out_hk, out_hk))

        wanted = model.logits(model(x_td, torch.tensor([131070, 131071]), attend))[1:]
    assert world.off(far, wanted) < 1e-4


def test_a_second_put_takes_the_place_of_the_first() -> None:
    shape = world.config(tied_embeddings=True)
    first, second = world.network(shape, seed=1), world.network(shape, seed=2)
    decoder = world.compiled(shape, world.weights(first))
    tokens = world.ids(20)
    for name, weight in world.weights(second).items():
        decoder.put(name, weight.bfloat16() if "wq" in name else weight)
    fresh = world.compiled(shape, world.weights(second))
    for name, weight in world.weights(second).items():
        if "wq" in name:
            fresh.put(name, weight.bfloat16())
    assert torch.equal(world.run_fresh(decoder, tokens), world.run_fresh(fresh, tokens))


def test_what_a_put_refuses() -> None:
    decoder = CompiledDecoder.allocate(world.config(), library(), threads=1)
    assert decoder.missing == list(module.shapes(world.config()))
    for name in ("layers.2.attention.wq.weight", "layers.0.attention.wq.bias", "vision_encoder.ln_pre.weight", "wq"):
        with pytest.raises(ValueError, match="is no weight of this network"):
            decoder.put(name, torch.zeros(64, 48))
    with pytest.raises(ValueError, match=r"wq.weight has shape \[48, 64\], the network asks for \[64, 48\]"):
        decoder.put("layers.1.attention.wq.weight", torch.zeros(48, 64))
    with pytest.raises(ValueError, match=r"must be float32, bfloat16 or float16"):
        decoder.put("layers.1.attention.wq.weight", torch.zeros(64, 48, dtype=torch.float64))
    for wrong in (torch.int8, torch.float64):
        with pytest.raises(ValueError, match=rf"norm.weight is {wrong}, must be float32, bfloat16 or float16"):
            decoder.put("norm.weight", torch.ones(48, dtype=wrong))
    assert "norm.weight" in decoder.missing
    cache = decoder.cache(1, 16, KVFormat.FP32)
    with pytest.raises(AssertionError, match="lacks weights"):
        decoder.forward(cache, Step([1], [(0, 1)], [[0]], [0]))


def test_names_are_those_of_the_network() -> None:
    for tied in (False, True):
        shape = world.config(tied_embeddings=tied)
        named = {name: tuple(p.shape) for name, p in native_parameters(world.network(shape))}
        assert module.shapes(shape) == named


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Step([], [], [], []), "a step has 0 ids in 0 spans"),
        (Step([100], [(0, 1)], [[0]], [0]), "ids has 100, the vocabulary has 100"),
        (Step([-1], [(0, 1)], [[0]], [0]), "ids has -1"),
        (Step([2**31], [(0, 1)], [[0]], [0]), "32 bits"),
        (Step([1, 2], [(0, 1)], [[0]], [0]), "the spans have 1 tokens, ids has 2"),
        (Step([1], [(0, 2)], [[0]], [0]), "more tokens than the 1 ids"),
        (Step([1], [(1, 1)], [[0]], [0]), "span 0 is 1 to 1, must be 0 <= start < stop"),
        (Step([1], [(-1, 0)], [[0]], [0]), "span 0 is -1 to 0"),
        (Step([1], [(16, 17)], [[0]], [0]), "span 0 stops at 17, its 1 blocks hold 16"),
        (Step([1], [(0, 1)], [[4]], [0]), "span 0 has block 4, the cache has 4"),
        (Step([1], [(0, 1)], [[-1]], [0]), "span 0 has block -1"),
        (Step([1], [(0, 1)], [], [0]), "1 spans and 0 tables"),
        (Step([1], [(0, 1)], [[0]], [1]), "rows has index 1, the step has 1 ids"),
        (Step([1, 2], [(0, 2)], [[0]], [1, 0]), "rows must ascend, but 0 follows 1"),
        (Step([1], [(0, 1)], [[0]], [0], [1], torch.zeros(1, 48)), "places has index 1"),
        (
            Step([1], [(0, 1)], [[0]], [0], [0], torch.zeros(1, 47)),
            r"features has shape \[1, 47\], must have \[1, 48\]",
        ),
        (Step([1], [(0, 1)], [[0]], [0], [0], torch.zeros(1, 48).half()), "contiguous float32"),
    ],
)
def test_steps_that_point_outside_are_refused(step: Step, words: str) -> None:
    shape = world.config()
    decoder = world.compiled(shape, world.weights(world.network(shape)))
    cache = decoder.cache(4, 16, KVFormat.FP32)
    tokens = world.ids(20)
    before = world.run(decoder, cache, tokens, [19])
    with pytest.raises(ValueError, match=words):
        decoder.forward(cache, step)
    blocks = world.table(20, 16)
    again = decoder.forward(cache, Step(tokens[19:], [(19, 20)], [blocks], [0]))
    assert torch.equal(again, before[19:])


def test_places_without_features_are_a_mistake() -> None:
    shape = world.config()
    decoder = world.compiled(shape, world.weights(world.network(shape)))
    with pytest.raises(AssertionError, match="places without features"):
        decoder.forward(decoder.cache(1, 16, KVFormat.FP32), Step([1], [(0, 1)], [[0]], [0], [0]))


def test_impossible_decoders_and_caches_are_refused() -> None:
    shape = world.config()
    with pytest.raises(ValueError, match="threads is 0, must be greater than 0"):
        CompiledDecoder.allocate(shape, library(), threads=0)
    decoder = world.compiled(shape, world.weights(world.network(shape)))
    with pytest.raises(ValueError, match="blocks is 0"):
        decoder.cache(0, 16, KVFormat.FP32)
    with pytest.raises(ValueError, match="block_size is 1024, must be 1 to 512"):
        decoder.cache(4, 1024, KVFormat.FP32)
    with pytest.raises(ValueError, match="the system gave no memory"):
        decoder.cache(2**31 - 1, 512, KVFormat.FP32)
    other = world.config(n_layers=3)
    cache = CompiledDecoder.allocate(other, library(), threads=1).cache(1, 16, KVFormat.FP32)
    with pytest.raises(ValueError, match="the cache has 3 layers"):
        decoder.forward(cache, Step([1], [(0, 1)], [[0]], [0]))


def test_closed_handles_are_not_used() -> None:
    shape = world.config()
    decoder = world.compiled(shape, world.weights(world.network(shape)))
    cache = decoder.cache(1, 16, KVFormat.FP32)
    cache.close()
    cache.close()
    with pytest.raises(AssertionError, match="the cache is closed"):
        decoder.forward(cache, Step([1], [(0, 1)], [[0]], [0]))
    decoder.close()
    decoder.close()
    with pytest.raises(AssertionError, match="the decoder is closed"):
        decoder.forward(cache, Step([1], [(0, 1)], [[0]], [0]))


def test_weight_bytes_are_those_of_matrices_and_norms() -> None:
    shape = world.config(hidden_dim=96, vocab_size=112)
    given = world.weights(world.network(shape))
    read = [weight for name, weight in given.items() if name != "tok_embeddings.weight"]
    assert world.compiled(shape, given).weight_bytes == sum(4 * weight.numel() for weight in read)
    half = {name: weight.bfloat16() for name, weight in given.items()}
    assert world.compiled(shape, half).weight_bytes == sum(
        (2 if weight.dim() == 2 else 4) * weight.numel() for weight in read
    )
