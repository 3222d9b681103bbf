"""What fits into how much memory, and how fast it will be: arithmetic on shapes, nothing measured and nothing loaded.

Decoding one stream reads all weights but the embeddings, and all keys and values so far, once a token; so its speed is
the memory's. Sizes are bytes, speeds bytes a second.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch

from magister.model.cache import KVFormat
from magister.model.config import DecoderConfig, ModelConfig
from magister.model.network import build, native_parameters
from magister.model.quantize import Plan

EFFICIENCY = 0.8
"""Of the measured read speed, what decoding is expected to reach."""

THOUGHT = 4000
"""Tokens of a thought of common length."""

LEAST_CONTEXT = 256
"""Tokens below which there is no room for a thought."""

BLOCK = 16
"""Tokens a block of the cache."""

RESERVE = 512 << 20
"""What is left free at least: for images, for other programs, and for what allocators keep."""

STEP = 512
"""Tokens computed at once at the most; each has numbers between two matrices."""

_KV_BYTES = {KVFormat.FP32: 4, KVFormat.BF16: 2, KVFormat.INT8: 1}
_EMBEDDINGS = "tok_embeddings.weight"


class NoRoom(ValueError):
    """A model does not fit into memory so."""


class Precision(NamedTuple):
    """A model's weights in some numbers."""

    name: str
    weights: int
    """Bytes in memory."""
    read: int
    """Bytes of them that one decoded token reads."""
    plan: Plan | None = None
    """How to make it from the original; None for what is not made by quantising here."""


class Fit(NamedTuple):
    """Whether a model fits."""

    context: int
    """Tokens of prompt and answer: those asked for, else the most there is room for, at least `LEAST_CONTEXT`."""
    longest: int
    """Tokens that there is room for at the most; 0 where the weights alone are too large."""
    needed: int
    """Bytes for weights, the cache of `context` tokens, and what lies beside them."""
    missing: int
    """Bytes of that which are not free; 0 where it fits."""

    @property
    def fits(self) -> bool:
        """Whether there is room for `context` tokens."""
        return self.missing == 0


def precisions(config: ModelConfig) -> list[Precision]:
    """The original in bfloat16, and what can be made from it, most bits first; what its shape does not allow is left
    out."""
    found = [Precision("bf16", _held(config, None), _read(config, None))]
    for name, plan in (("int8", Plan(bits=8)), ("int4", Plan(bits=4))):
        if all(not (rule := plan.rule(n)) or shape[1] % rule.group == 0 for n, shape in _shapes(config).items()):
            found.append(Precision(name, _held(config, plan), _read(config, plan), plan))
    return found


def token_bytes(config: DecoderConfig, kv: KVFormat) -> int:
    """Bytes of cache a token; int8 has two float32 scales a layer and key/value head."""
    heads = 2 * config.n_layers * config.n_kv_heads
    return heads * (config.head_dim * _KV_BYTES[kv] + (4 if kv is KVFormat.INT8 else 0))


def beside(config: DecoderConfig) -> int:
    """What must be free beside weights and cache: the reserve, and the numbers between two matrices while the most
    tokens of a step are computed, float32."""
    return RESERVE + STEP * 4 * (2 * config.hidden_dim + 6 * config.dim)


def fit(config: ModelConfig, precision: Precision, kv: KVFormat, context: int | None, free: int) -> Fit:
    """Whether weights and a cache of `context` tokens (None: of any useful length) fit into `free` bytes."""
    decoder = config.decoder
    block, most = token_bytes(decoder, kv) * BLOCK, decoder.max_position_embeddings
    taken = precision.weights + beside(decoder)
    longest = min(max(0, free - taken) // block * BLOCK, most)
    wanted = context or max(longest, min(LEAST_CONTEXT, most))
    needed = taken + -(-wanted // BLOCK) * block
    return Fit(wanted, longest, needed, max(0, needed - free))


def tokens_per_second(precision: Precision, token: int, bandwidth: float) -> float:
    """Mean speed over a thought: each token reads the weights, and `token` bytes of cache for each one before it."""
    # Token i reads what i tokens have left: on average half the thought's.
    return EFFICIENCY * bandwidth / (precision.read + token * (THOUGHT - 1) / 2)


def refusal(
    what: str, config: ModelConfig, precision: Precision, kv: KVFormat, context: int | None, free: int
) -> str | None:
    """Why `what` cannot be loaded so, in numbers, and the flag that would fit; None where it fits."""
    asked = fit(config, precision, kv, context, free)
    if asked.fits:
        return None
    return (
        f"{what} needs {asked.needed:,} bytes of memory ({precision.weights:,} of weights, the rest for "
        f"{asked.context:,} tokens in {kv} and to work in), {free:,} are available; "
        f"{_way_out(config, precision, kv, asked, free)}"
    )


def _way_out(config: ModelConfig, precision: Precision, kv: KVFormat, asked: Fit, free: int) -> str:
    smaller = fit(config, precision, KVFormat.INT8, asked.context, free)
    if kv is not KVFormat.INT8 and smaller.fits:
        return "--kv int8 fits"
    least = min(LEAST_CONTEXT, config.decoder.max_position_embeddings)
    if asked.longest >= least:
        return f"--context {asked.longest} fits"
    if kv is not KVFormat.INT8 and smaller.longest >= least:
        return f"--kv int8 --context {smaller.longest} fits"
    for other in precisions(config):
        if other.plan is not None and other.weights < precision.weights:
            found = fit(config, other, KVFormat.INT8, None, free)
            if found.fits:
                return f"the original in fewer bits fits: `magister quantize` with --bits {other.plan.bits}"
    return f"free {fit(config, precision, KVFormat.INT8, min(least, asked.context), free).missing:,} bytes more"


@cache
def _shapes(config: ModelConfig) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in native_parameters(build(config))}


def _bytes(name: str, shape: torch.Size, plan: Plan | None) -> int:
    rule = None if plan is None else plan.rule(name)
    return shape.numel() * 2 if rule is None else rule.bytes(shape)


def _held(config: ModelConfig, plan: Plan | None) -> int:
    """Tied embeddings are there twice: as rows to look up, and as a matrix."""
    shapes = _shapes(config)
    total = sum(_bytes(name, shape, plan) for name, shape in shapes.items())
    return total + (shapes[_EMBEDDINGS].numel() * 2 if config.decoder.tied_embeddings else 0)


def _read(config: ModelConfig, plan: Plan | None) -> int:
    text = {name: shape for name, shape in _shapes(config).items() if name.startswith(("layers.", "norm", "output"))}
    head = _shapes(config)[_EMBEDDINGS].numel() * 2 if config.decoder.tied_embeddings else 0
    return head + sum(_bytes(name, shape, plan) for name, shape in text.items())
