"""The image network: the Pixtral encoder, the patch merger and the adapter into the decoder's width.

It is a function of normalised images of any size. It knows nothing of files, colours, resizing or token layout (those
are `text`'s), nor of where the features go (that is `network`'s). Module and parameter names are those of native
checkpoints.

Shapes: p patches of one image (row by row, p = y * x), y and x rows and columns of patches, c encoder width, d decoder
width, n tokens of one image (n = p / merge^2), h heads, k head dim.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magister.kernels import reference
from magister.model.config import VisionConfig
from magister.model.decoder import Attention, Block, FeedForward
from magister.model.layers import Linear, PatchConv, RMSNorm
from magister.model.rope import image_rotation


class VisionTransformer(nn.Module):
    """The encoder's blocks."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        c = config
        self.layers = nn.ModuleList(
            Block(
                Attention(c.hidden_size, c.num_attention_heads, c.num_attention_heads, c.head_dim),
                FeedForward(c.hidden_size, c.intermediate_size),
                c.hidden_size,
                c.norm_eps,
            )
            for _ in range(c.num_hidden_layers)
        )


class VisionEncoder(nn.Module):
    """Patches of one image -> one feature per patch; every patch sees every other of its image, and of no other."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.patch_conv = PatchConv(c.num_channels, c.hidden_size, c.patch_size)
        self.ln_pre = RMSNorm(c.hidden_size, c.norm_eps)
        self.transformer = VisionTransformer(config)

    def forward(self, image: Tensor) -> Tensor:
        """[channels, height, width] pixels -> [y, x, c]."""
        grid_cyx: Tensor = self.patch_conv(image)
        height, width = grid_cyx.shape[1:]
        x_pc: Tensor = self.ln_pre(grid_cyx.flatten(1).t())
        rotation = image_rotation(height, width, self.config.head_dim, self.config.rope_theta, image.device)
        for index, layer in enumerate(self.transformer.layers):
            x_pc = layer(x_pc, rotation, index, _attend_all)
        return x_pc.view(height, width, -1)


class PatchMerger(nn.Module):
    """Squares of merge x merge neighbouring patches -> one vector each."""

    def __init__(self, width: int, merge: int) -> None:
        super().__init__()
        self.merge = merge
        self.merging_layer = Linear(width * merge * merge, width)

    def forward(self, x_yxc: Tensor) -> Tensor:
        """[y, x, c] -> [n, c]. A square is laid out channel by channel: all its patches for channel 0, then for 1..."""
        squares_cn = F.unfold(x_yxc.permute(2, 0, 1)[None], kernel_size=self.merge, stride=self.merge)[0]
        merged_nc: Tensor = self.merging_layer(squares_cn.t())
        return merged_nc


class VisionLanguageAdapter(nn.Module):
    """Encoder width -> decoder width: two linear layers around an exact GELU."""

    def __init__(self, width: int, dim: int, bias: bool) -> None:
        super().__init__()
        self.w_in = Linear(width, dim, bias=bias)
        self.w_out = Linear(dim, dim, bias=bias)

    def forward(self, x_nc: Tensor) -> Tensor:
        """[n, c] -> [n, d]."""
        out_nd: Tensor = self.w_out(F.gelu(self.w_in(x_nc)))
        return out_nd


class Vision(nn.Module):
    """Images -> features in the decoder's width; its state dict has the native names of the image tensors."""

    def __init__(self, config: VisionConfig, dim: int, norm_eps: float) -> None:
        """`dim` and `norm_eps` are the decoder's."""
        super().__init__()
        self.config = config
        c = config
        self.vision_encoder = VisionEncoder(config)
        self.pre_mm_projector_norm = RMSNorm(c.hidden_size, norm_eps) if c.add_pre_mm_projector_layer_norm else None
        self.patch_merger = PatchMerger(c.hidden_size, c.spatial_merge_size) if c.has_patch_merger else None
        self.vision_language_adapter = VisionLanguageAdapter(c.hidden_size, dim, c.adapter_bias)

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Normalised images [channels, height, width], of any sizes -> features [n, d] of each, in order.

        n = (height / token_pixels) * (width / token_pixels), row by row. ValueError for a shape the encoder cannot
        take.
        """
        for image in images:
            check_image(image.shape, self.config)
        return [self._features(image) for image in images]

    def _features(self, image: Tensor) -> Tensor:
        x_yxc: Tensor = self.vision_encoder(image.to(self.vision_encoder.patch_conv.weight.dtype))
        if self.pre_mm_projector_norm is not None:
            x_yxc = self.pre_mm_projector_norm(x_yxc)
        x_nc = x_yxc.flatten(0, 1) if self.patch_merger is None else self.patch_merger(x_yxc)
        features_nd: Tensor = self.vision_language_adapter(x_nc)
        return features_nd


def check_image(shape: torch.Size, config: VisionConfig) -> None:
    """ValueError unless `shape` is [channels, height, width] with sides that the encoder takes."""
    if len(shape) != 3 or shape[0] != config.num_channels:
        raise ValueError(f"image has shape {tuple(shape)}, must be [{config.num_channels}, height, width]")
    for name, pixels in zip(("height", "width"), shape[1:], strict=True):
        if pixels == 0 or pixels % config.token_pixels:
            raise ValueError(f"image {name} is {pixels} pixels, must be a multiple of {config.token_pixels}")
        if pixels > config.image_size:
            raise ValueError(f"image {name} is {pixels} pixels, at most {config.image_size} fit the encoder")


def _attend_all(layer: int, q_phk: Tensor, k_phk: Tensor, v_phk: Tensor) -> Tensor:
    return reference.attention(q_phk[None], k_phk[None], v_phk[None])[0]
