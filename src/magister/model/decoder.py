"""The text network: token embeddings, pre-norm blocks of grouped-query attention and SwiGLU, a final norm, an output
head.

It is a function of ids, positions and an `attend`. What one token may see, where keys and values are kept, and how
sequences are laid out in a batch are the caller's affair: all of it lives in the `Attend` handed in. Leading dims are
free: a flat ragged row [t] and a padded batch [b, t] take the same path. Module and parameter names are those of native
checkpoints.

Shapes: t tokens (`...` before it: any batch dims), d model dim, f feed-forward dim, h query heads, g key/value heads, k
head dim, v vocabulary.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magister.kernels import reference
from magister.model.config import DecoderConfig
from magister.model.layers import Embedding, Linear, RMSNorm
from magister.model.rope import Rotation, Wheel, make_wheel, text_rotation


class Attend(Protocol):
    """How the tokens of a pass see one another. Ready-made ones are in `attention` and `cache`."""

    def __call__(self, layer: int, q_thk: Tensor, k_tgk: Tensor, v_tgk: Tensor, /) -> Tensor:
        """Rotated queries [..., t, h, k] and keys [..., t, g, k], and values, of `layer` -> [..., t, h, k]."""
        ...


class Attention(nn.Module):
    """Projections and rotation around an `attend`. Used by the decoder and by the vision encoder (h = g there)."""

    def __init__(self, dim: int, n_heads: int, n_kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads
        self.head_dim = head_dim
        self.wq = Linear(dim, n_heads * head_dim)
        self.wk = Linear(dim, n_kv_heads * head_dim)
        self.wv = Linear(dim, n_kv_heads * head_dim)
        self.wo = Linear(n_heads * head_dim, dim)
        self.joined: Tensor | None = None
        """wq, wk and wv as one matrix, once `layout.arrange` has made them its parts."""

    def forward(self, x_td: Tensor, rotation: Rotation, layer: int, attend: Attend) -> Tensor:
        """[..., t, d] -> [..., t, d]."""
        lead = x_td.shape[:-1]
        qkv_tnk = self._project(x_td).view(*lead, -1, self.head_dim)
        qk_tnk, v_tgk = torch.split(qkv_tnk, [self.n_heads + self.n_kv_heads, self.n_kv_heads], dim=-2)
        # One rotation for queries and keys together: decoding a small model is bound by the number of operations.
        qk_tnk = reference.rope(qk_tnk, rotation.cos, rotation.sin)
        q_thk, k_tgk = torch.split(qk_tnk, [self.n_heads, self.n_kv_heads], dim=-2)
        out_td: Tensor = self.wo(attend(layer, q_thk, k_tgk, v_tgk).reshape(*lead, -1))
        return out_td

    def _project(self, x_td: Tensor) -> Tensor:
        if self.joined is not None:
            return F.linear(x_td, self.joined)
        return torch.cat((self.wq(x_td), self.wk(x_td), self.wv(x_td)), dim=-1)


class FeedForward(nn.Module):
    """w2(silu(w1 x) * w3 x)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w1 = Linear(dim, hidden_dim)
        self.w2 = Linear(hidden_dim, dim)
        self.w3 = Linear(dim, hidden_dim)
        self.joined: Tensor | None = None
        """w1 and w3 as one matrix, once `layout.arrange` has made them its parts."""

    def forward(self, x_td: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        if self.joined is not None:
            gate_tf, up_tf = F.linear(x_td, self.joined).chunk(2, dim=-1)
        else:
            gate_tf, up_tf = self.w1(x_td), self.w3(x_td)
        out_td: Tensor = self.w2(reference.swiglu(gate_tf, up_tf))
        return out_td


class Block(nn.Module):
    """One pre-norm layer: attention and feed-forward, each added to the residual stream."""

    def __init__(self, attention: Attention, feed_forward: FeedForward, dim: int, eps: float) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward
        self.attention_norm = RMSNorm(dim, eps)
        self.ffn_norm = RMSNorm(dim, eps)

    def forward(self, x_td: Tensor, rotation: Rotation, layer: int, attend: Attend) -> Tensor:
        """[..., t, d] -> [..., t, d]."""
        x_td = x_td + self.attention(self.attention_norm(x_td), rotation, layer, attend)
        out_td: Tensor = x_td + self.feed_forward(self.ffn_norm(x_td))
        return out_td


class Decoder(nn.Module):
    """The text network of a checkpoint; its state dict has the native names of the text tensors."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.tok_embeddings = Embedding(c.vocab_size, c.dim)
        self.layers = nn.ModuleList(
            Block(
                Attention(c.dim, c.n_heads, c.n_kv_heads, c.head_dim),
                FeedForward(c.dim, c.hidden_dim),
                c.dim,
                c.norm_eps,
            )
            for _ in range(c.n_layers)
        )
        self.wheel: Wheel | None = None
        """Of the rotation, once `layout.arrange` has put it where the weights are; else made in each pass."""
        self.norm = RMSNorm(c.dim, c.norm_eps)
        self.output = None if c.tied_embeddings else Linear(c.dim, c.vocab_size)

    def embed(self, ids_t: Tensor) -> Tensor:
        """Token ids [..., t] -> embeddings [..., t, d]."""
        x_td: Tensor = self.tok_embeddings(ids_t)
        return x_td

    def forward(self, ids_or_x: Tensor, positions_t: Tensor, attend: Attend) -> Tensor:
        """Hidden states after the final norm, [..., t, d].

        `ids_or_x` is integer ids [..., t] or embeddings [..., t, d] (from `embed`, with image features spliced in);
        `positions_t` is the integer position of each token in its own sequence, [..., t].
        """
        return self.through(ids_or_x, self.rotation(positions_t), attend)

    def rotation(self, positions_t: Tensor) -> Rotation:
        """Of tokens at these positions of their sequences, [..., t]; the same for all layers."""
        wheel = self.wheel
        if wheel is None:
            wheel = make_wheel(self.config.head_dim, self.config.rope_theta, positions_t.device)
        return text_rotation(positions_t, wheel)

    def through(self, ids_or_x: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        """`forward` with the rotation made before: a compiler would otherwise make it again for every element."""
        x_td = ids_or_x if ids_or_x.is_floating_point() else self.embed(ids_or_x)
        for index, layer in enumerate(self.layers):
            x_td = layer(x_td, rotation, index, attend)
        hidden_td: Tensor = self.norm(x_td)
        return hidden_td

    def logits(self, hidden_td: Tensor) -> Tensor:
        """Hidden states [..., d] of the rows that matter -> logits [..., v], in the model's dtype."""
        if self.output is None:
            return F.linear(hidden_td, self.tok_embeddings.weight)
        logits_tv: Tensor = self.output(hidden_td)
        return logits_tv
