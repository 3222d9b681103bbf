"""Small random networks in torch and in compiled code, and ways to run sequences through the latter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tests.kernels.libraries import library
from torch import Tensor, nn

from magister.kernels.cpu import Library
from magister.kernels.quantized import Format, Quantized, linear_integer, pack_int4
from magister.model.attention import CausalAttention
from magister.model.cache import KVFormat
from magister.model.compiled import CompiledCache, CompiledDecoder, Step
from magister.model.config import DecoderConfig, ModelConfig
from magister.model.network import Model, build, init_weights, native_parameters

VOCAB = 100


def config(**changes: Any) -> DecoderConfig:
    """Two layers, two query heads a kv head, widths that fill no panel; `changes` are fields."""
    values: dict[str, Any] = {
        "dim": 48,
        "n_layers": 2,
        "head_dim": 16,
        "hidden_dim": 80,
        "n_heads": 4,
        "n_kv_heads": 2,
        "norm_eps": 1e-5,
        "vocab_size": VOCAB,
        "rope_theta": 1e6,
        "max_position_embeddings": 4096,
    }
    return DecoderConfig(**(values | changes))


def network(shape: DecoderConfig, seed: int = 1) -> Model:
    """A network whose attention and gates have something to say: weights far larger than at the start of training."""
    model = build(ModelConfig(shape))
    init_weights(model, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in native_parameters(model):
        if parameter.dim() == 1:
            parameter.data.uniform_(0.5, 1.5, generator=generator)
        elif name != "tok_embeddings.weight":
            parameter.data.mul_(50 / parameter.shape[1] ** 0.5)
    return model.eval()


def weights(model: Model) -> dict[str, Tensor]:
    """Every parameter under its native name."""
    return {name: parameter.detach() for name, parameter in native_parameters(model)}


def compiled(
    shape: DecoderConfig, given: Mapping[str, Tensor | Quantized], threads: int = 1, lib: Library | None = None
) -> CompiledDecoder:
    """A compiled decoder with these weights."""
    decoder = CompiledDecoder.allocate(shape, lib or library(), threads=threads)
    for name, weight in given.items():
        decoder.put(name, weight)
    assert decoder.missing == []
    return decoder


def ids(n: int, seed: int = 0) -> list[int]:
    """Random ids."""
    return torch.randint(VOCAB, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def table(tokens: int, block_size: int, first: int = 0) -> list[int]:
    """Blocks for so many tokens, from the last to block `first`: an order that only a table can tell."""
    n = -(-tokens // block_size)
    return list(range(first + n - 1, first - 1, -1))


def run(decoder: CompiledDecoder, cache: CompiledCache, tokens: Sequence[int], cuts: Sequence[int] = ()) -> Tensor:
    """One sequence through steps that end at `cuts` and at its end: the logits of every token, [t, v]."""
    blocks = table(len(tokens), cache.block_size)
    stops = [*cuts, len(tokens)]
    parts = []
    for start, stop in zip([0, *stops], stops, strict=False):
        step = Step(tokens[start:stop], [(start, stop)], [blocks], range(stop - start))
        parts.append(decoder.forward(cache, step).clone())
    return torch.cat(parts)


def run_fresh(
    decoder: CompiledDecoder,
    tokens: Sequence[int],
    cuts: Sequence[int] = (),
    kv: KVFormat = KVFormat.FP32,
    block_size: int = 16,
) -> Tensor:
    """`run` with a cache of its own."""
    cache = decoder.cache(-(-len(tokens) // block_size), block_size, kv)
    logits = run(decoder, cache, tokens, cuts)
    cache.close()
    return logits


@torch.no_grad()
def definition(model: Model, tokens: Sequence[int]) -> Tensor:
    """The same in torch, [t, v]."""
    logits: Tensor = model.logits(model(torch.tensor(tokens), torch.arange(len(tokens)), CausalAttention()))
    return logits


class IntegerLinear(nn.Module):
    """`linear_integer` in the place of a linear layer."""

    def __init__(self, matrix: Quantized) -> None:
        super().__init__()
        self.matrix = matrix
        self.out_features = matrix.outputs

    def forward(self, x: Tensor) -> Tensor:
        return linear_integer(x, self.matrix)


def quantized(weight: Tensor, kind: Format, group: int = 16, mins: bool = False) -> Quantized:
    """Round to nearest."""
    w_ong = weight.float().unflatten(1, (-1, group))  # type: ignore[no-untyped-call]
    if kind is Format.FP8:
        scales = w_ong.abs().amax(-1) / 448
        return Quantized(kind, (w_ong / scales[..., None]).flatten(1).to(torch.float8_e4m3fn), scales, group)
    if kind is Format.INT8:
        scales = w_ong.abs().amax(-1) / 127
        return Quantized(kind, (w_ong / scales[..., None]).round().flatten(1).to(torch.int8), scales, group)
    low = w_ong.amin(-1) if mins else -w_ong.abs().amax(-1)
    scales = ((w_ong.amax(-1) - low) / 15 if mins else -low / 7.5).clamp(min=1e-8)
    q = ((w_ong - low[..., None]) / scales[..., None] if mins else w_ong / scales[..., None] + 8).round().clamp(0, 15)
    return Quantized(kind, pack_int4(q.flatten(1)), scales, group, low if mins else None)


def quantize_all(model: Model, make: Callable[[str, Tensor], Quantized]) -> tuple[dict[str, Tensor | Quantized], Model]:
    """Weights with every matrix but the embeddings quantised, and the network that computes with them in torch."""
    found: dict[str, Tensor | Quantized] = {}
    for name, weight in weights(model).items():
        if weight.dim() == 1 or name == "tok_embeddings.weight":
            found[name] = weight
            continue
        matrix = found[name] = make(name, weight)
        owner, leaf = name.removesuffix(".weight").rpartition(".")[::2]
        setattr(model.decoder.get_submodule(owner), leaf, IntegerLinear(matrix))
    return found, model


def off(got: Tensor, wanted: Tensor) -> float:
    """The largest difference, of the largest number."""
    return float((got - wanted).abs().max() / wanted.abs().max())


def divergence(got: Tensor, wanted: Tensor) -> float:
    """Mean KL(wanted || got) per token."""
    p, q = wanted.double().log_softmax(-1), got.double().log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())
