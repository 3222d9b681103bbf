"""The shape of a network: what a checkpoint says about itself, as two frozen records and their pair.

Field names are those of native `params.json`. Knows no files (see `config_files`), no tensors and no devices.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class DecoderConfig:
    """The text network. ValueError if the numbers cannot make one."""

    dim: int
    """Width of the residual stream."""
    n_layers: int
    """Blocks."""
    head_dim: int
    """Width of one attention head; even, since rotation works on pairs. n_heads * head_dim need not equal dim."""
    hidden_dim: int
    """Width of the feed-forward block."""
    n_heads: int
    """Query heads."""
    n_kv_heads: int
    """Key and value heads; divides n_heads."""
    norm_eps: float
    """Added to the mean square in every norm of the decoder and in the projector's."""
    vocab_size: int
    """Rows of the embedding and of the output head."""
    rope_theta: float
    """Base of the rotary frequencies."""
    max_position_embeddings: int
    """Tokens the checkpoint claims to handle. Nothing here enforces it."""
    tied_embeddings: bool = False
    """True if the output head is the embedding matrix."""

    def __post_init__(self) -> None:
        _require_positive(self, ("dim", "n_layers", "head_dim", "hidden_dim", "n_heads", "n_kv_heads", "vocab_size"))
        _require_positive(self, ("norm_eps", "rope_theta", "max_position_embeddings"))
        _require_multiple("head_dim", self.head_dim, "a rotary pair", 2)
        _require_multiple("n_heads", self.n_heads, "n_kv_heads", self.n_kv_heads)


@dataclass(frozen=True)
class VisionConfig:
    """The Pixtral encoder and the projector into the decoder's width. ValueError if the numbers cannot make one."""

    hidden_size: int
    """Width of the encoder."""
    num_hidden_layers: int
    """Blocks of the encoder."""
    num_attention_heads: int
    """Heads; their width is hidden_size / num_attention_heads and must be a multiple of 4 (two axes of rotary pairs).
    """
    intermediate_size: int
    """Width of the encoder's feed-forward block."""
    patch_size: int
    """Side of a patch, pixels."""
    image_size: int
    """Longest side of an image the encoder accepts, pixels."""
    image_token_id: int = 10
    """The id whose positions are replaced by image features."""
    image_break_token_id: int = 12
    """The id that ends a row of an image; keeps its ordinary embedding."""
    image_end_token_id: int = 13
    """The id that ends an image; keeps its ordinary embedding."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies of both axes."""
    norm_eps: float = 1e-5
    """Added to the mean square in the encoder's own norms. Not in the files: a constant of the published code."""
    num_channels: int = 3
    """Colour channels."""
    spatial_merge_size: int = 2
    """Side of the square of patches that becomes one token; 1 if the checkpoint has no patch merger."""
    adapter_bias: bool = False
    """True if the two projector layers have biases."""
    add_pre_mm_projector_layer_norm: bool = True
    """True if there is a norm between encoder and projector."""
    max_image_size: int = 1540
    """Longest side that images are scaled down to before encoding, pixels."""

    def __post_init__(self) -> None:
        _require_positive(self, ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"))
        _require_positive(self, ("patch_size", "image_size", "rope_theta", "num_channels", "spatial_merge_size"))
        _require_positive(self, ("norm_eps", "max_image_size"))
        _require_multiple("hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads)
        _require_multiple("vision head_dim", self.head_dim, "two axes of rotary pairs", 4)

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def has_patch_merger(self) -> bool:
        """True if squares of patches are merged into one token."""
        return self.spatial_merge_size > 1

    @property
    def token_pixels(self) -> int:
        """Side of the square of pixels behind one token: images must be multiples of it."""
        return self.patch_size * self.spatial_merge_size


@dataclass(frozen=True)
class ModelConfig:
    """A whole network: text, and vision where the checkpoint has it."""

    decoder: DecoderConfig
    """The text network."""
    vision: VisionConfig | None = None
    """The image network, or None for a text-only checkpoint."""


def _require_positive(config: DecoderConfig | VisionConfig, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(config, name)
        if not value > 0:
            raise ValueError(f"{name} is {value}, must be greater than 0")


def _require_multiple(name: str, value: int, unit_name: str, unit: int) -> None:
    if value % unit:
        raise ValueError(f"{name} is {value}, must be a multiple of {unit} ({unit_name})")


MAGISTRAL_SMALL = ModelConfig(
    decoder=DecoderConfig(
        dim=5120,
        n_layers=40,
        head_dim=128,
        hidden_dim=32768,
        n_heads=32,
        n_kv_heads=8,
        norm_eps=1e-5,
        vocab_size=131072,
        rope_theta=1e9,
        max_position_embeddings=131072,
    ),
    vision=VisionConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        patch_size=14,
        image_size=1540,
    ),
)
"""Magistral Small 1.2 (2509), 24B; 1.0 and 1.1 are its text network alone. Source: the defaults of
transformers:models/mistral3/configuration_mistral3.py and mistral-inference:args.py."""
