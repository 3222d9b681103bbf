"""A whole network: the decoder, the image network where there is one, and the splice between them.

Knows no files (see `weights`) and no caches. A model is first built on the meta device, where it has shapes and no
memory; `init_weights` or `weights.load` gives it its numbers.

Shapes: t tokens, d decoder width, n tokens of one image, v vocabulary.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from magister.kernels.dispatch import Product
from magister.model.config import ModelConfig
from magister.model.decoder import Attend, Decoder
from magister.model.layers import Linear, QuantizedLinear
from magister.model.vision import Vision

_INIT_STD = 0.02


class Model(nn.Module):
    """The network of a checkpoint: `decoder`, and `vision` or None."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = Decoder(config.decoder)
        self.vision = None
        if config.vision is not None:
            self.vision = Vision(config.vision, config.decoder.dim, config.decoder.norm_eps)

    def embed(self, ids_t: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        """Token ids [..., t] -> embeddings [..., t, d], with the image `features` (each [n, d]) in the places of image
        ids.

        Features fill those places in reading order, whatever image each belongs to, so a chunk of a prompt is spliced
        by handing over the rows that fall into it. ValueError unless there are exactly as many rows as places.
        """
        x_td = self.decoder.embed(ids_t)
        if self.vision is None:
            if features:
                raise ValueError(f"{len(features)} images given, but the model has no vision encoder")
            return x_td
        places_t = ids_t == self.vision.config.image_token_id
        n_places, n_rows = int(places_t.sum()), sum(len(rows) for rows in features)
        if n_places != n_rows:
            raise ValueError(f"images give {n_rows} feature rows, the ids have {n_places} image places")
        if not features:
            return x_td
        return x_td.masked_scatter(places_t[..., None], torch.cat(list(features)).to(x_td.dtype))

    def forward(self, ids_or_x: Tensor, positions_t: Tensor, attend: Attend) -> Tensor:
        """Hidden states after the final norm; see `Decoder.forward`."""
        hidden_td: Tensor = self.decoder(ids_or_x, positions_t, attend)
        return hidden_td

    def logits(self, hidden_td: Tensor) -> Tensor:
        """Logits of chosen rows; see `Decoder.logits`."""
        return self.decoder.logits(hidden_td)


def build(config: ModelConfig) -> Model:
    """A model of shapes only, on the meta device."""
    with torch.device("meta"):
        return Model(config)


def native_parameters(model: Model) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter under its name in a native checkpoint, in the model's order. Tied embeddings appear once.

    Quantised matrices are no parameters: see `native_products`.
    """
    for part in (model.decoder, model.vision):
        if part is not None:
            yield from part.named_parameters()


def native_products(model: Model) -> Iterator[tuple[str, Product]]:
    """Every quantised matrix under its name in a native checkpoint. With `native_parameters`, all there is."""
    for part in (model.decoder, model.vision):
        if part is not None:
            for name, module in part.named_modules():
                if isinstance(module, QuantizedLinear):
                    yield f"{name}.weight", module.product


def set_parameter(model: Model, name: str, value: Tensor) -> None:
    """Puts `value` itself (no copy) in the place of the parameter with this native name. KeyError if there is none."""
    root, owner, leaf = _find(model, name)
    module = root.get_submodule(owner)
    trainable = module._parameters[leaf]
    assert trainable is not None, name
    assert trainable.shape == value.shape, (name, trainable.shape, value.shape)
    setattr(module, leaf, nn.Parameter(value, requires_grad=trainable.requires_grad))


def takes_product(model: Model, name: str) -> bool:
    """Whether the parameter with this native name may be a quantised matrix: that of a `Linear` without bias."""
    root, owner, leaf = _find(model, name)
    module = root.get_submodule(owner)
    return isinstance(module, Linear) and module.bias is None and leaf == "weight"


def set_product(model: Model, name: str, product: Product) -> None:
    """Puts a quantised matrix in the place of the parameter with this native name; `takes_product` must hold."""
    root, owner, _ = _find(model, name)
    linear = root.get_submodule(owner)
    assert isinstance(linear, Linear | QuantizedLinear), name
    assert (product.outputs, product.inputs) == (linear.out_features, linear.in_features), name
    root.set_submodule(owner, QuantizedLinear(product))


def _find(model: Model, name: str) -> tuple[nn.Module, str, str]:
    """The part of a native name: its root, the module under it, and the module's own parameter."""
    root: nn.Module = model.decoder
    if model.vision is not None and not hasattr(model.decoder, name.split(".")[0]):
        root = model.vision
    owner, _, leaf = name.rpartition(".")
    return root, owner, leaf


def init_weights(
    model: Model, seed: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> None:
    """Replaces every parameter by a fresh one on `device` in `dtype`, for training from scratch.

    Matrices are normal with deviation 0.02; those that write into a residual stream (wo, w2) are smaller by sqrt(2 *
    layers) of their stack, so that the stream's variance does not grow with depth (GPT-2); norms are 1, biases 0. The
    numbers are drawn on the CPU in float32 and depend on `seed` and the shape alone.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    for name, parameter in list(native_parameters(model)):
        value = torch.empty(parameter.shape, dtype=torch.float32, device="cpu")
        if parameter.dim() == 1:
            value.fill_(0.0 if name.endswith(".bias") else 1.0)
        else:
            value.normal_(0.0, _deviation(name, model.config), generator=generator)
        set_parameter(model, name, value.to(device=device, dtype=dtype))


def _deviation(name: str, config: ModelConfig) -> float:
    if not name.endswith((".wo.weight", ".w2.weight")):
        return _INIT_STD
    in_vision = name.startswith("vision_encoder.")
    assert not in_vision or config.vision is not None
    layers = config.vision.num_hidden_layers if in_vision and config.vision is not None else config.decoder.n_layers
    return _INIT_STD / math.sqrt(2 * layers)
