"""A linear map from the embeddings to the output head, learned beside both and folded into the head at the end.

To say any token again, a network must turn its embedding into its row of the head. Where the two are separate
matrices it learns that token by token, and rare tokens hardly at all. Through the map, every token that is copied
teaches how all others are. The folded head is a plain matrix: the architecture stays what it was.

Shapes: v vocabulary, d model dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from magister.model.network import Model


class Bridge(nn.Module):
    """Zero at first, so that it changes nothing; without a weight where head and embeddings are one matrix."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        embeddings_vd = model.decoder.tok_embeddings.weight
        dim = embeddings_vd.shape[1]
        zero = None if model.decoder.output is None else torch.zeros(dim, dim, device=embeddings_vd.device)
        self.weight = None if zero is None else nn.Parameter(zero)

    def head(self, model: Model) -> Tensor:
        """The head [v, d] that the logits are computed with."""
        embeddings_vd: Tensor = model.decoder.tok_embeddings.weight
        if self.weight is None or model.decoder.output is None:
            return embeddings_vd
        head_vd: Tensor = model.decoder.output.weight + embeddings_vd @ self.weight
        return head_vd

    @torch.no_grad()
    def fold(self, model: Model) -> None:
        """Makes the head of `model` what `head` says, and the map zero."""
        if self.weight is not None and model.decoder.output is not None:
            model.decoder.output.weight.copy_(self.head(model))
            self.weight.zero_()
