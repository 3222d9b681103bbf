"""The decoder in compiled code: one C call a step, on the CPU, with weights packed as the CPU likes them.

It computes what `decoder.Decoder` computes, with its own cache. Everything between matrices is float32; matrices are
kept in the format they are given in. Logits of a token have the same bits whatever else is in its step, however its
past was cut into steps, and however many threads there are. Knows no sequences, no sampling and no images, only rows
of features that stand for some tokens.

Shapes: d model dim, v vocabulary.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from magister.kernels import cpu
from magister.kernels.quantized import Quantized, dequantize
from magister.model.cache import KVFormat
from magister.model.config import DecoderConfig
from magister.model.expected import FLOATS
from magister.model.rope import frequencies

_PARTS = {
    "attention.wq": 0,
    "attention.wk": 1,
    "attention.wv": 2,
    "attention.wo": 3,
    "feed_forward.w1": 4,
    "feed_forward.w2": 5,
    "feed_forward.w3": 6,
    "attention_norm": 7,
    "ffn_norm": 8,
}
_NORM, _OUTPUT = 9, 10
_EMBEDDINGS, _HEAD = "tok_embeddings.weight", "output.weight"
_LAYER = re.compile(r"layers\.(0|[1-9]\d*)\.(.+)\.weight")


class Step(NamedTuple):
    """One call: the new tokens of some sequences."""

    ids: Sequence[int]
    """All new tokens of all spans, end to end."""
    spans: Sequence[tuple[int, int]]
    """Where each span starts and stops: positions in its own sequence. Everything before start is in the cache."""
    tables: Sequence[Sequence[int]]
    """The blocks of each span's sequence, in order: token i is in `tables[s][i // block_size]`."""
    rows: Sequence[int]
    """Ascending indices into ids: the tokens whose logits are wanted."""
    places: Sequence[int] = ()
    """Ascending indices into ids: the tokens whose embeddings are replaced..."""
    features: Tensor | None = None
    """...by these rows, [places, d]."""


class CompiledCache:
    """Room for keys and values in blocks. Memory is taken from the system as blocks are first written."""

    def __init__(self, library: cpu.Library, config: cpu.Config, blocks: int, block_size: int, kv: KVFormat) -> None:
        self._library = library
        self.blocks, self.block_size, self.format = blocks, block_size, kv
        number = list(KVFormat).index(kv)
        self.handle = library.handle(library.c.mg_cache_new(config, blocks, block_size, number))
        self.bytes = int(library.c.mg_cache_bytes(self.handle))

    def close(self) -> None:
        """Gives the memory back. May be called again; nothing else may be called after."""
        if self.handle:
            self._library.c.mg_cache_free(self.handle)
        self.handle = 0

    def __del__(self) -> None:
        if getattr(self, "handle", 0):
            self.close()


class CompiledDecoder:
    """A text network in compiled code. Made by `allocate`, filled by `put`, used by one thread at a time.

    Does not survive fork(): with more than one thread, a child process that calls `forward` gets an AssertionError.
    """

    def __init__(self, config: DecoderConfig, library: cpu.Library, threads: int) -> None:
        c = config
        self.config = config
        self.threads = threads
        self._library = library
        self._c_config = cpu.Config(
            dim=c.dim,
            layers=c.n_layers,
            heads=c.n_heads,
            kv_heads=c.n_kv_heads,
            head_dim=c.head_dim,
            hidden=c.hidden_dim,
            vocab=c.vocab_size,
            tied=c.tied_embeddings,
            eps=c.norm_eps,
        )
        turns = frequencies(c.head_dim, c.rope_theta, torch.device("cpu"))
        self._handle = library.handle(library.c.mg_decoder_new(self._c_config, turns.data_ptr(), threads))
        self._missing = dict.fromkeys(shapes(config))
        self._logits = torch.empty(0, c.vocab_size)
        self._views: dict[int, Tensor] = {}

    @classmethod
    def allocate(cls, config: DecoderConfig, library: cpu.Library, *, threads: int) -> CompiledDecoder:
        """A decoder without weights that computes on `threads` threads, the caller's among them.

        ValueError for numbers that make no network and where the system gives no threads.
        """
        return cls(config, library, threads)

    @property
    def missing(self) -> list[str]:
        """Names of the weights that have not been put yet."""
        return list(self._missing)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one decoded token reads."""
        return int(self._library.c.mg_decoder_bytes(self._handle))

    def put(self, name: str, weight: Tensor | Quantized) -> None:
        """Copies one weight in under its native name; a second put takes the place of the first.

        Matrices keep their format; float16 becomes float32 (exact, twice the bytes), as there is no kernel for it.
        Norms are held in float32. Embeddings are looked up in float32 or bfloat16, quantised ones in bfloat16; where
        they are tied the head is a matrix like any other. ValueError for a name this network has not, and for a wrong
        shape or type.
        """
        shape = shapes(self.config).get(name)
        if shape is None:
            raise ValueError(f"{name} is no weight of this network")
        given = (weight.outputs, weight.inputs) if isinstance(weight, Quantized) else tuple(weight.shape)
        if given != shape:
            raise ValueError(f"{name} has shape {list(given)}, the network asks for {list(shape)}")
        layer, part = _place(name)
        if len(shape) == 1:
            assert isinstance(weight, Tensor)
            if weight.dtype not in FLOATS:
                raise ValueError(f"{name} is {weight.dtype}, must be float32, bfloat16 or float16")
            values = weight.detach().to("cpu", torch.float32).contiguous()
            self._check(self._library.c.mg_decoder_put_norm(self._handle, layer, part, values.data_ptr()))
        elif name == _EMBEDDINGS:
            self._put_embeddings(weight)
        else:
            self._put_matrix(layer, part, weight)
        self._missing.pop(name, None)

    def cache(self, blocks: int, block_size: int, kv: KVFormat) -> CompiledCache:
        """Room for blocks * block_size tokens. ValueError where they make none or the system has not the memory."""
        return CompiledCache(self._library, self._c_config, blocks, block_size, kv)

    def forward(self, cache: CompiledCache, step: Step) -> Tensor:
        """Keys and values of all new tokens into the cache, and the logits of those in `rows`, float32 [rows, v].

        The tensor is a view of memory that the next call writes to again. ValueError, before anything is written, where
        the step points outside of the vocabulary, the cache or itself; AssertionError while weights are missing.
        """
        assert self._handle, "the decoder is closed"
        assert cache.handle, "the cache is closed"
        message = _message(step)
        features = 0 if step.features is None else self._feature_address(step)
        n = len(step.rows)
        if n > len(self._logits):
            self._logits = torch.empty(n, self.config.vocab_size)
            self._views.clear()
        address = self._logits.data_ptr()
        code = self._library.c.mg_forward(
            self._handle, cache.handle, message.buffer_info()[0], len(message), features, address
        )
        if code:
            self._check(code)
        view = self._views.get(n)
        if view is None:
            view = self._views[n] = self._logits[:n]
        return view

    def close(self) -> None:
        """Gives memory and threads back. May be called again; nothing else may be called after."""
        if self._handle:
            self._library.c.mg_decoder_free(self._handle)
        self._handle = 0

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            self.close()

    def _put_embeddings(self, weight: Tensor | Quantized) -> None:
        matrix = cpu.raw(dequantize(weight, torch.bfloat16) if isinstance(weight, Quantized) else weight)
        self._check(self._library.c.mg_decoder_put_embedding(self._handle, matrix.format, matrix.values.data_ptr()))
        if self.config.tied_embeddings:
            self._put_matrix(0, _OUTPUT, weight)

    def _put_matrix(self, layer: int, part: int, weight: Tensor | Quantized) -> None:
        matrix = cpu.raw(weight)
        kind = (matrix.format, matrix.group, matrix.scale_type)
        self._check(self._library.c.mg_decoder_put_matrix(self._handle, layer, part, *kind, *matrix.pointers()))

    def _feature_address(self, step: Step) -> int:
        features = step.features
        assert features is not None
        wanted = (len(step.places), self.config.dim)
        if tuple(features.shape) != wanted:
            raise ValueError(f"features has shape {list(features.shape)}, must have {list(wanted)}")
        if features.dtype is not torch.float32 or not features.is_contiguous() or features.device.type != "cpu":
            raise ValueError("features must be contiguous float32 on the CPU")
        return features.data_ptr()

    def _check(self, code: int) -> None:
        self._library.check(code)


def shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of the text network, by native name."""
    c = config
    q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    layer = {
        "attention.wq": (q, c.dim),
        "attention.wk": (kv, c.dim),
        "attention.wv": (kv, c.dim),
        "attention.wo": (c.dim, q),
        "feed_forward.w1": (c.hidden_dim, c.dim),
        "feed_forward.w2": (c.dim, c.hidden_dim),
        "feed_forward.w3": (c.hidden_dim, c.dim),
        "attention_norm": (c.dim,),
        "ffn_norm": (c.dim,),
    }
    found: dict[str, tuple[int, ...]] = {_EMBEDDINGS: (c.vocab_size, c.dim)}
    for index in range(c.n_layers):
        found |= {f"layers.{index}.{part}.weight": shape for part, shape in layer.items()}
    found["norm.weight"] = (c.dim,)
    if not c.tied_embeddings:
        found[_HEAD] = (c.vocab_size, c.dim)
    return found


def _place(name: str) -> tuple[int, int]:
    """Layer and part of a weight that `shapes` has, in the numbers of csrc/magister.h."""
    match = _LAYER.fullmatch(name)
    if match:
        return int(match[1]), _PARTS[match[2]]
    return 0, _NORM if name == "norm.weight" else _OUTPUT


def _message(step: Step) -> array[int]:
    """The step as csrc/magister.h wants it. ValueError for spans without tables and numbers past 32 bits."""
    ids, spans, tables, rows, places, _ = step
    if len(spans) != len(tables):
        raise ValueError(f"the step has {len(spans)} spans and {len(tables)} tables")
    try:
        message = array("i", (len(ids), len(spans), len(rows), len(places)))
        message.extend(ids)
        for (start, stop), table in zip(spans, tables, strict=True):
            message.extend((start, stop, len(table)))
            message.extend(table)
        message.extend(rows)
        message.extend(places)
    except OverflowError as error:
        raise ValueError(f"the step has a number that 32 bits do not hold: {error}") from error
    return message
