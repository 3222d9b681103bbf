"""How many parameters a network has and how many bytes it needs, from its shape alone: nothing is allocated.

Knows no machine: whether the bytes fit anywhere is the reader's question.
"""

from dataclasses import dataclass

from magister.model.config import ModelConfig
from magister.model.network import build, native_parameters

_PARTS = {
    "tok_embeddings": "embeddings",
    "layers": "layers",
    "norm": "layers",
    "output": "output",
    "vision_encoder": "vision",
    "pre_mm_projector_norm": "projector",
    "patch_merger": "projector",
    "vision_language_adapter": "projector",
}


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of each part of a network."""

    embeddings: int
    """The token embeddings; also the output head where the two are tied."""
    layers: int
    """The decoder's blocks and its final norm."""
    output: int
    """The output head, 0 where it is tied."""
    vision: int
    """The image encoder."""
    projector: int
    """What stands between image encoder and decoder: norm, patch merger, adapter."""

    @property
    def text(self) -> int:
        """The text network: embeddings, layers and output head."""
        return self.embeddings + self.layers + self.output

    @property
    def total(self) -> int:
        """Everything."""
        return self.text + self.vision + self.projector


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a network needs, without activations."""

    weights: dict[int, int]
    """Bits per parameter (16, 8, 4) -> bytes of all weights. Scales of quantised formats come on top."""
    cache_per_token: int
    """Bytes of keys and values of one token in all layers."""
    cache: dict[int, int]
    """Tokens (8192, 32768, 131072) -> bytes of their keys and values."""


def count_parameters(config: ModelConfig) -> ParameterCount:
    """Counts by building the network on the meta device."""
    counts = dict.fromkeys(_PARTS.values(), 0)
    for name, parameter in native_parameters(build(config)):
        counts[_PARTS[name.split(".")[0]]] += parameter.numel()
    return ParameterCount(**counts)


def plan_memory(config: ModelConfig, cache_bits: int = 16) -> MemoryPlan:
    """The plan for keys and values of `cache_bits` bits each."""
    total = count_parameters(config).total
    d = config.decoder
    per_token = 2 * d.n_layers * d.n_kv_heads * d.head_dim * cache_bits // 8
    return MemoryPlan(
        weights={bits: total * bits // 8 for bits in (16, 8, 4)},
        cache_per_token=per_token,
        cache={tokens: tokens * per_token for tokens in (8192, 32768, 131072)},
    )
