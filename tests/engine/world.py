"""Tiny worlds for the engine's tests: random networks, networks that recite, and replies folded from chunks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from tests.kernels.libraries import library
from torch import Tensor

from magister.engine.compiled_runner import CompiledRunner
from magister.engine.engine import Engine
from magister.engine.limits import Limits
from magister.engine.runner import Runner, TorchRunner
from magister.engine.vocabulary import Vocabulary
from magister.model.attention import CausalAttention
from magister.model.cache import KVFormat
from magister.model.compiled import CompiledDecoder
from magister.model.config import DecoderConfig, ModelConfig, VisionConfig
from magister.model.decoder import Attend
from magister.model.network import Model, build, init_weights, native_parameters
from magister.types import Chunk, FinishReason, OpenAt, Pixels, Prompt, Sampling, TokenLogprob

END, THINK, END_THINK, IMAGE, UNUSED = 0, 1, 2, 3, 4
FIRST = 5
"""The first id that has bytes."""

PIECES = (*[b""] * FIRST, *[bytes([byte]) for byte in range(97, 123)], b"ab", b"bc", "é".encode(), b"\xe2\x82", b"\xac")
VOCABULARY = Vocabulary(pieces=PIECES, end=END, think=THINK, end_think=END_THINK, never=frozenset({UNUSED}))
LIMITS = Limits(context=96, blocks=64, block_size=4, step_tokens=64, running=8)
VISION = VisionConfig(16, 1, 2, 32, 2, 16, image_token_id=IMAGE, image_break_token_id=4, image_end_token_id=4)


def decoder(**changes: Any) -> DecoderConfig:
    """A small text network, four ids larger than the vocabulary."""
    values = {
        "dim": 32,
        "n_layers": 2,
        "head_dim": 8,
        "hidden_dim": 48,
        "n_heads": 4,
        "n_kv_heads": 2,
        "norm_eps": 1e-5,
        "vocab_size": len(PIECES) + 4,
        "rope_theta": 1e4,
        "max_position_embeddings": 512,
    }
    return DecoderConfig(**(values | changes))


def random_model(
    seed: int = 0, vision: VisionConfig | None = None, kind: type[Model] = Model, positions: int = 512
) -> Model:
    """Random weights, large enough for peaked distributions."""
    with torch.device("meta"):
        model = kind(ModelConfig(decoder(max_position_embeddings=positions), vision))
    init_weights(model, seed)
    for _, parameter in native_parameters(model):
        parameter.requires_grad_(False)
        if parameter.dim() > 1:
            parameter.mul_(10.0)
    return model


class SlowModel(Model):
    """Takes long enough over a step for the test to act before the next."""

    def forward(self, ids_or_x: Tensor, positions_t: Tensor, attend: Attend) -> Tensor:
        time.sleep(0.002)
        return super().forward(ids_or_x, positions_t, attend)


def reciting_model(follows: Mapping[int, int], vocab_size: int) -> Model:
    """A real network in which each token is followed by the one that `follows` names: attention and feed-forward are
    silent, embeddings are one-hot, and the head is the table. Logits are 0 but for the follower's, which is 1.
    """
    size = vocab_size + vocab_size % 2
    model = build(ModelConfig(decoder(dim=size, n_layers=1, vocab_size=vocab_size)))
    init_weights(model, 0)
    for name, parameter in native_parameters(model):
        parameter.requires_grad_(False)
        if parameter.dim() > 1:
            parameter.zero_()
        if name == "tok_embeddings.weight":
            parameter.copy_(torch.eye(vocab_size, size))
        if name == "output.weight":
            for token, follower in follows.items():
                parameter[follower, token] = size**-0.5
    return model


Make = Callable[[Model, Limits], Runner]
"""A network on its way into an engine."""


def torch_runner(kv: KVFormat | None = None) -> Make:
    return lambda model, limits: TorchRunner(model, limits.blocks, limits.block_size, kv)


def compiled_runner(kv: KVFormat) -> Make:
    """The network in compiled code; skips where it cannot be."""

    def make(model: Model, limits: Limits) -> Runner:
        compiled = CompiledDecoder.allocate(model.config.decoder, library(), threads=1)
        for name, parameter in model.decoder.named_parameters():
            compiled.put(name, parameter)
        return CompiledRunner(model.config, compiled, model.vision, limits.blocks, limits.block_size, kv)

    return make


@contextmanager
def opened(
    model: Model, vocabulary: Vocabulary = VOCABULARY, limits: Limits = LIMITS, make: Make | None = None
) -> Iterator[Engine]:
    """An engine that must be empty and whole at the end."""
    with Engine(model if make is None else make(model, limits), vocabulary, limits) as engine:
        yield engine
        load = engine.load()
        assert (load.running, load.waiting, load.free_blocks) == (0, 0, limits.blocks)


@contextmanager
def reciting(*pieces: bytes, follows: Mapping[int, int] | None = None) -> Iterator[Engine]:
    """An engine that says the pieces one after another, as ids FIRST + 1 and on, and then ends. Prompt: (FIRST,)."""
    table = (*[b""] * (FIRST + 1), *pieces)
    chain = {FIRST + i: FIRST + i + 1 for i in range(len(pieces))} | {FIRST + len(pieces): END} | dict(follows or {})
    vocabulary = Vocabulary(pieces=table, end=END, think=THINK, end_think=END_THINK)
    with opened(reciting_model(chain, len(table)), vocabulary) as engine:
        yield engine


@dataclass
class Reply:
    """One choice, folded."""

    chunks: list[Chunk] = field(default_factory=list)

    @property
    def ids(self) -> tuple[int, ...]:
        return sum((chunk.ids for chunk in self.chunks), ())

    @property
    def logprobs(self) -> list[float]:
        return [value for chunk in self.chunks for value in chunk.logprobs]

    @property
    def sampled_logprobs(self) -> list[float]:
        return [value for chunk in self.chunks for value in chunk.sampled_logprobs]

    @property
    def entropy(self) -> list[float]:
        return [value for chunk in self.chunks for value in chunk.entropy or ()]

    @property
    def top(self) -> list[tuple[TokenLogprob, ...]]:
        return [value for chunk in self.chunks for value in chunk.top or ()]

    @property
    def forced(self) -> list[bool]:
        return [value for chunk in self.chunks for value in chunk.forced]

    @property
    def last(self) -> Chunk:
        return self.chunks[-1]

    @property
    def finish(self) -> FinishReason:
        assert self.last.finish is not None
        return self.last.finish

    def text(self, pieces: Sequence[bytes] = PIECES) -> bytes:
        """Bytes as a reader of the chunks shows them."""
        shown = b""
        for chunk in self.chunks:
            said = b"".join(pieces[id_] for id_ in chunk.ids)
            shown += said[: len(said) - chunk.trim]
        return shown


async def replies(engine: Engine, prompt: Prompt, sampling: Sampling) -> list[Reply]:
    """All choices of a request, in order."""
    folded = [Reply() for _ in range(sampling.n)]
    async for chunk in engine.generate(prompt, sampling):
        assert not folded[chunk.choice].chunks or folded[chunk.choice].last.finish is None
        assert chunk.ids or chunk.finish
        folded[chunk.choice].chunks.append(chunk)
    return folded


def ask_all(engine: Engine, *requests: tuple[Sequence[int], Sampling]) -> list[Reply]:
    """First choices of requests that run side by side."""

    async def run() -> list[list[Reply]]:
        return await asyncio.gather(*[replies(engine, Prompt(tuple(ids)), sampling) for ids, sampling in requests])

    return [choices[0] for choices in asyncio.run(run())]


def ask(engine: Engine, ids: Sequence[int], *, open_at: OpenAt = OpenAt.START, **sampling: Any) -> Reply:
    """The only choice of one request."""
    return asyncio.run(replies(engine, Prompt(tuple(ids), open_at=open_at), Sampling(**sampling)))[0]


async def take(engine: Engine, ids: Sequence[int], sampling: Sampling, chunks: int) -> list[Chunk]:
    """The first chunks of a request that is then cancelled."""
    taken: list[Chunk] = []
    async with aclosing(engine.generate(Prompt(tuple(ids)), sampling)) as stream:
        async for chunk in stream:
            taken.append(chunk)
            if len(taken) == chunks:
                break
    return taken


def whole_logits(model: Model, ids: Sequence[int], images: Sequence[Pixels] = ()) -> Tensor:
    """Logits [t, v] of all positions in one pass without a cache."""
    ids_t = torch.tensor(ids)
    x: Tensor = ids_t
    if images:
        assert model.vision is not None
        pixels = [
            torch.frombuffer(bytearray(image.data), dtype=torch.float32).view(image.channels, image.height, image.width)
            for image in images
        ]
        x = model.embed(ids_t, model.vision(pixels))
    return model.logits(model(x, torch.arange(len(ids)), CausalAttention()))
