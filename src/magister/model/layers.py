"""The leaves of the network: a matrix, plain or quantised, an embedding, a patch convolution, a norm.

They hold numbers and do not make them: torch's own modules draw random weights when built, which on the meta device is
useless and loads torch's compiler (two seconds, 70 MB). `network.init_weights` and `weights.load` fill these.

Shapes: `...` any leading dims, i inputs, o outputs, d channels, v vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magister.kernels import reference
from magister.kernels.dispatch import Product


class Linear(nn.Module):
    """x W^T, and + b where `bias`. Names and shapes as in torch.nn.Linear."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., i] -> [..., o]."""
        return F.linear(x, self.weight, self.bias)


class QuantizedLinear(nn.Module):
    """x W^T with a quantised matrix, in the place of a `Linear`.

    It has no parameters: nothing in it is trained, cast or moved, and new numbers for it are a new `QuantizedLinear`.
    """

    def __init__(self, product: Product) -> None:
        super().__init__()
        self.in_features = product.inputs
        self.out_features = product.outputs
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        """[..., i] -> [..., o]."""
        return self.product(x)


class Embedding(nn.Module):
    """A row of `weight` [v, d] per id."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, dim))

    def forward(self, ids: Tensor) -> Tensor:
        """[...] -> [..., d]."""
        return F.embedding(ids, self.weight)


class PatchConv(nn.Module):
    """One matrix over each square patch of an image: a convolution whose stride is its size."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.weight = nn.Parameter(torch.empty(width, channels, patch, patch))

    def forward(self, image: Tensor) -> Tensor:
        """[channels, height, width] -> [o, height / patch, width / patch]."""
        return F.conv2d(image[None], self.weight, stride=self.patch)[0]


class RMSNorm(nn.Module):
    """A root-mean-square norm with one learned gain per channel."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        return reference.rms_norm(x, self.weight, self.eps)
