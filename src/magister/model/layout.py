"""Where a loaded network's numbers lie in memory, so that one token at a time runs at memory speed.

Matrices that take the same input become one, and on a CPU in float32 wide ones are stored by columns: one row times a
wide matrix then reads memory in order (measured: 28 GB/s against 10). Names, shapes and values stay; parameters become
views, so new weights are copied into them as before. Quantised matrices stay as they are. Nothing of this is ever on
disk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from magister.model.decoder import Attention, Block, FeedForward
from magister.model.layers import Linear, QuantizedLinear
from magister.model.network import Model
from magister.model.rope import make_wheel


@torch.no_grad()
def arrange(model: Model) -> None:
    """Lay out the decoder of `model` in place; call it last, since moving or casting a model undoes it."""
    for layer in model.decoder.layers:
        assert isinstance(layer, Block)
        attention, feed_forward = layer.attention, layer.feed_forward
        assert isinstance(attention, Attention)
        assert isinstance(feed_forward, FeedForward)
        attention.joined = _join(attention.wq, attention.wk, attention.wv)
        feed_forward.joined = _join(feed_forward.w1, feed_forward.w3)
        _join(attention.wo)
        _join(feed_forward.w2)
    decoder = model.decoder
    if decoder.output is not None:
        _join(decoder.output)
    config = decoder.config
    decoder.wheel = make_wheel(config.head_dim, config.rope_theta, decoder.tok_embeddings.weight.device)


def _join(*modules: Linear | QuantizedLinear) -> Tensor | None:
    """One matrix [sum of o, i] of the linears' rows; their weights become views of it. None if one is quantised."""
    linears = [module for module in modules if isinstance(module, Linear)]
    if len(linears) < len(modules):
        return None
    joined = torch.cat([linear.weight for linear in linears])
    outputs, inputs = joined.shape
    if joined.device.type == "cpu" and joined.dtype is torch.float32 and outputs >= inputs:
        joined = joined.t().contiguous().t()
    start = 0
    for linear in linears:
        linear.weight.data = joined[start : start + linear.out_features]
        start += linear.out_features
    return joined
