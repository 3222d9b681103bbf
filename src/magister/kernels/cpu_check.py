"""The self-test of a library of compiled kernels: small products and one small network against their definitions.

Fixed numbers, some milliseconds. Knows no files and no instruction sets: it is handed an opened library.

Shapes: t tokens, d model dim, f feed-forward dim, h query heads, g key/value heads, k head dim.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from magister.kernels import reference
from magister.kernels.cpu_library import Config, Library, raw
from magister.kernels.quantized import Format, Quantized, linear_integer, pack_int4

_TOLERANCE = 1e-4
"""How far a number may be off, of the largest."""
_OUTPUTS, _INPUTS, _GROUP = 37, 96, 32
"""Outputs that fill no panel."""
_DIM, _HIDDEN, _HEADS, _KV_HEADS, _HEAD_DIM, _VOCAB, _TOKENS, _BLOCK = 24, 40, 4, 2, 10, 30, 21, 16
_EPS, _LAYERS = 1e-5, 1

_Weights = dict[str, Tensor]


def faults(library: Library) -> list[str]:
    """What is wrong with a library, in words; empty if nothing is."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for name, matrix in _matrices(generator):
        for rows in (1, 5):
            x = torch.randn(rows, _INPUTS, generator=generator)
            wanted = linear_integer(x, matrix) if isinstance(matrix, Quantized) else F.linear(x, matrix.float())
            packed = library.linear(matrix)
            found += _difference(f"{name} product of {rows} rows", packed(x), wanted)
            packed.close()
    weights = _network(generator)
    ids_t = torch.randint(_VOCAB, (_TOKENS,), generator=generator)
    wanted = _definition(weights, ids_t)
    for name, stops in (("prefill", [_TOKENS]), ("prefill and decoding", [_TOKENS - 2, _TOKENS - 1, _TOKENS])):
        found += _difference(name, _compiled(library, weights, ids_t.tolist(), stops), wanted)
    return found


def _difference(name: str, got: Tensor, wanted: Tensor) -> list[str]:
    off = float((got - wanted).abs().max() / wanted.abs().max())
    # Written so that what is not a number is a fault.
    return [] if off <= _TOLERANCE else [f"{name} is off by {off:.2g} of the largest number, at most {_TOLERANCE}"]


def _matrices(generator: torch.Generator) -> Iterator[tuple[str, Tensor | Quantized]]:
    dense = torch.randn(_OUTPUTS, _INPUTS, generator=generator)
    yield "float32", dense
    yield "bfloat16", dense.bfloat16()
    scales = torch.rand(_OUTPUTS, _INPUTS // _GROUP, generator=generator) + 0.5
    yield "fp8", Quantized(Format.FP8, dense.to(torch.float8_e4m3fn), scales, _GROUP)
    q = torch.randint(-127, 128, (_OUTPUTS, _INPUTS), generator=generator, dtype=torch.int8)
    yield "int8", Quantized(Format.INT8, q, scales, _GROUP)
    nibbles = pack_int4(torch.randint(16, (_OUTPUTS, _INPUTS), generator=generator))
    yield "int4", Quantized(Format.INT4, nibbles, scales.half(), _GROUP)
    yield "int4 with mins", Quantized(Format.INT4, nibbles, scales, _GROUP, -8 * scales)


def _network(generator: torch.Generator) -> _Weights:
    q, kv = _HEADS * _HEAD_DIM, _KV_HEADS * _HEAD_DIM
    shapes = {"wq": (q, _DIM), "wk": (kv, _DIM), "wv": (kv, _DIM), "wo": (_DIM, q)}
    shapes |= {"w1": (_HIDDEN, _DIM), "w2": (_DIM, _HIDDEN), "w3": (_HIDDEN, _DIM)}
    shapes |= {"output": (_VOCAB, _DIM), "embeddings": (_VOCAB, _DIM)}
    weights = {name: torch.randn(shape, generator=generator) / math.sqrt(shape[1]) for name, shape in shapes.items()}
    weights |= {name: torch.rand(_DIM, generator=generator) + 0.5 for name in ("attention_norm", "ffn_norm", "norm")}
    weights["frequencies"] = 0.01 ** torch.linspace(0, 1, _HEAD_DIM // 2)
    return weights


def _definition(w: _Weights, ids_t: Tensor) -> Tensor:
    """The logits of the last token, [1, vocabulary]."""
    x_td = w["embeddings"][ids_t]
    angles_tk = torch.arange(len(ids_t))[:, None, None] * w["frequencies"].repeat_interleave(2)
    cos, sin = angles_tk.cos(), angles_tk.sin() * torch.tensor([-1.0, 1.0]).repeat(_HEAD_DIM // 2)
    h_td = reference.rms_norm(x_td, w["attention_norm"], _EPS)
    q_thk, k_tgk, v_tgk = (F.linear(h_td, w[name]).view(len(ids_t), -1, _HEAD_DIM) for name in ("wq", "wk", "wv"))
    q_thk, k_tgk = reference.rope(q_thk, cos, sin), reference.rope(k_tgk, cos, sin)
    seen_thk = reference.attention(q_thk[None], k_tgk[None], v_tgk[None], causal=True)[0]
    x_td = x_td + F.linear(seen_thk.flatten(1), w["wo"])
    h_td = reference.rms_norm(x_td, w["ffn_norm"], _EPS)
    x_td = x_td + F.linear(reference.swiglu(F.linear(h_td, w["w1"]), F.linear(h_td, w["w3"])), w["w2"])
    return F.linear(reference.rms_norm(x_td[-1:], w["norm"], _EPS), w["output"])


def _compiled(library: Library, w: _Weights, ids: list[int], stops: list[int]) -> Tensor:
    """The same in compiled code, in steps that end at `stops`."""
    config = Config(_DIM, _LAYERS, _HEADS, _KV_HEADS, _HEAD_DIM, _HIDDEN, _VOCAB, 0, _EPS)
    c = library.c
    decoder = library.handle(c.mg_decoder_new(config, w["frequencies"].data_ptr(), 1))
    blocks = -(-len(ids) // _BLOCK)
    cache = library.handle(c.mg_cache_new(config, blocks, _BLOCK, 0))
    logits = torch.full((1, _VOCAB), math.nan)
    try:
        for part, name in enumerate(("wq", "wk", "wv", "wo", "w1", "w2", "w3", "attention_norm", "ffn_norm")):
            if part < 7:
                code = c.mg_decoder_put_matrix(decoder, 0, part, 0, 0, 0, *raw(w[name]).pointers())
            else:
                code = c.mg_decoder_put_norm(decoder, 0, part, w[name].data_ptr())
            library.check(code)
        library.check(c.mg_decoder_put_norm(decoder, 0, 9, w["norm"].data_ptr()))
        library.check(c.mg_decoder_put_matrix(decoder, 0, 10, 0, 0, 0, *raw(w["output"]).pointers()))
        library.check(c.mg_decoder_put_embedding(decoder, 0, w["embeddings"].data_ptr()))
        for start, stop in zip([0, *stops], stops, strict=False):
            n = stop - start
            # The second block first: tables must be followed.
            step = [n, 1, 1, 0, *ids[start:stop], start, stop, blocks, *range(blocks - 1, -1, -1), n - 1]
            message = array("i", step)
            address, length = message.buffer_info()
            library.check(c.mg_forward(decoder, cache, address, length, None, logits.data_ptr()))
    finally:
        c.mg_cache_free(cache)
        c.mg_decoder_free(decoder)
    return logits
