"""A checkpoint -> its network in this machine's memory: which device, which kernels, what precision, how much context.

Every choice is a person's or is told to them; nothing is chosen silently. Knows no tokenizer and no engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from magister.cli import fit
from magister.cli.fit import BLOCK, LEAST_CONTEXT, token_bytes
from magister.cli.machine import memory, usable_cores
from magister.cli.stored import looked_up, stored
from magister.engine.compiled_runner import CompiledRunner
from magister.engine.limits import Limits
from magister.engine.runner import Runner
from magister.kernels import cpu, cuda
from magister.model import layout, weights
from magister.model.cache import KVFormat
from magister.model.compiled_weights import load_compiled
from magister.model.config import DecoderConfig, ModelConfig
from magister.model.count import count_parameters
from magister.model.network import Model
from magister.text.formats import Format

__all__ = ["BLOCK", "Kernels", "Placed", "Placement", "is_small", "place", "token_bytes"]

SMALL = 300_000_000
"""Parameters up to which a CPU computes in float32 and on one thread."""

CACHE_SHARE = {"cpu": 0.5, "cuda": 0.9}
"""Of the memory free after loading, the most that the key/value cache takes unasked, by kind of device."""

RUNNING = 32
"""Sequences at a time."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How a checkpoint is to run here. ValueError for a choice that there is not."""

    device: str = "auto"
    """auto, cpu or cuda."""
    dtype: str = "auto"
    """Of what is not quantised: fp32, bf16, fp16, or auto: as stored, but float32 where plain torch computes a small
    network on a CPU.
    """
    context: int | None = None
    """Tokens of prompt and answer; None: as many as the checkpoint is made for and memory holds."""
    kv: str = "auto"
    """Keys and values: fp32, bf16, int8, or auto: fp32 for a small network on a CPU, else bf16."""
    kernels: str = "auto"
    """On a CPU: auto (the best compiled ones that pass their self-test), torch, or an instruction set by name."""
    threads: int | None = None
    """Of the compiled kernels; None: one for a small network, else all cores."""
    speculation: int = 0
    """Tokens guessed ahead at most, from what the sequence has said before."""

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device: {self.device!r} is none of auto, cpu, cuda")
        if self.dtype != "auto" and self.dtype not in _DTYPES:
            raise ValueError(f"dtype: {self.dtype!r} is none of auto, {', '.join(_DTYPES)}")
        if self.kv != "auto" and self.kv not in list(KVFormat):
            raise ValueError(f"kv: {self.kv!r} is none of auto, {', '.join(KVFormat)}")
        if self.kernels not in ("auto", "torch", *cpu.NEEDS):
            raise ValueError(f"kernels: {self.kernels!r} is none of auto, torch, {', '.join(cpu.NEEDS)}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads is {self.threads}, must be at least 1")
        if self.speculation < 0:
            raise ValueError(f"speculation is {self.speculation}, must be at least 0")


@dataclass(frozen=True, slots=True)
class Kernels:
    """What computes."""

    name: str
    """An instruction set, torch, or cuda."""
    description: str
    """In words, with what was passed over and why."""
    fallback: bool
    """Whether something faster was looked for and not found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A network in memory."""

    model: Model | Runner
    limits: Limits
    kv: KVFormat | None
    """Of the cache of a torch model; None where the runner brings its own."""
    kernels: Kernels


def place(folder: Path, config: ModelConfig, form: Format, how: Placement) -> Placed:
    """Load the checkpoint in `folder`. ValueError for what this machine has not or cannot hold."""
    device = _device(how.device)
    if device == "cuda":
        return _place_cuda(folder, config, form, how)
    if how.kernels == "torch":
        return _place_torch(folder, config, form, how, device, Kernels("torch", "plain torch, as asked for", False))
    try:
        choice = cpu.choose(None if how.kernels == "auto" else how.kernels)
    except ValueError as error:
        raise ValueError(f"kernels: {error}") from error
    if choice.library is None:
        return _place_torch(folder, config, form, how, device, Kernels("torch", choice.description, True))
    return _place_compiled(folder, config, form, how, choice.library, choice.description)


def is_small(config: ModelConfig) -> bool:
    """Whether a network is so small that a second thread costs more than it brings."""
    return count_parameters(config).total <= SMALL


def _place_compiled(
    folder: Path, config: ModelConfig, form: Format, how: Placement, library: cpu.Library, words: str
) -> Placed:
    small = is_small(config)
    kv = KVFormat(how.kv) if how.kv != "auto" else (KVFormat.FP32 if small else KVFormat.BF16)
    threads = how.threads or (1 if small else usable_cores())
    dtype = _DTYPES.get(how.dtype)
    _check_memory(folder, config, how, kv, "cpu", dtype, compiled=True)
    loaded = load_compiled(folder, library, threads=threads, dtype=dtype)
    limits = _limits(config.decoder, form, how, kv, "cpu")
    runner = CompiledRunner(config, loaded.decoder, loaded.vision, limits.blocks, limits.block_size, kv)
    return Placed(model=runner, limits=limits, kv=None, kernels=Kernels(library.isa, words, False))


def _place_cuda(folder: Path, config: ModelConfig, form: Format, how: Placement) -> Placed:
    if how.kernels not in ("auto", "torch"):
        raise ValueError(f"kernels is {how.kernels!r}, on CUDA there are auto and torch")
    reason = cuda.missing() or attention_refusal(config.decoder)
    if reason is not None or how.kernels == "torch":
        words = f"plain torch on CUDA: {reason or 'as asked for'}"
        return _place_torch(folder, config, form, how, "cuda", Kernels("torch", words, reason is not None))
    if how.threads is not None:
        raise ValueError(f"threads is {how.threads}, but a GPU computes here")
    from magister.engine.cuda_runner import CudaRunner

    dtype = _DTYPES.get(how.dtype)
    kv = None if how.kv == "auto" else KVFormat(how.kv)
    own = dtype or looked_up(folder)
    counted = counted_kv(how.kv, own)
    if _DTYPES.get(how.kv, own) is not own:
        # The runner would say so, too, but only with all weights in memory.
        raise ValueError(f"kv is {how.kv}, on CUDA there are auto, int8 and the network's own {own}")
    _check_memory(folder, config, how, counted, "cuda", dtype, compiled=False)
    network = weights.load(folder, device="cuda", dtype=dtype)
    layout.arrange(network)
    limits = _limits(config.decoder, form, how, counted, "cuda")
    runner = CudaRunner(network, limits.blocks, limits.block_size, limits.context, kv)
    return Placed(model=runner, limits=limits, kv=None, kernels=Kernels("cuda", "Triton kernels on CUDA", False))


def counted_kv(asked: str, own: torch.dtype) -> KVFormat:
    """What a token of the cache takes in a network of torch that computes in `own`: unasked, numbers of that width."""
    if asked != "auto":
        return KVFormat(asked)
    return KVFormat.FP32 if own is torch.float32 else KVFormat.BF16


def attention_refusal(config: DecoderConfig) -> str | None:
    """Why the GPU's attention kernel does not take this network; None if it does."""
    if config.head_dim & (config.head_dim - 1) or not 16 <= config.head_dim <= 256:
        return f"head_dim is {config.head_dim}, the kernel takes powers of two from 16 to 256"
    if config.n_heads // config.n_kv_heads > 16:
        return f"{config.n_heads} query heads share {config.n_kv_heads} key heads, the kernel takes 16 to one at most"
    return None


def _place_torch(
    folder: Path, config: ModelConfig, form: Format, how: Placement, device: str, kernels: Kernels
) -> Placed:
    if how.threads is not None:
        raise ValueError(f"threads is {how.threads}, but plain torch computes here, which has threads of its own")
    dtype = _DTYPES.get(how.dtype)
    if dtype is None and device == "cpu" and is_small(config):
        dtype = torch.float32
    counted = counted_kv(how.kv, dtype or looked_up(folder))
    _check_memory(folder, config, how, counted, device, dtype)
    network = weights.load(folder, device=device, dtype=dtype)
    layout.arrange(network)
    own = {torch.float32: KVFormat.FP32, torch.bfloat16: KVFormat.BF16}
    stored = network.decoder.tok_embeddings.weight.dtype
    kv = KVFormat(how.kv) if how.kv != "auto" else own.get(stored)
    limits = _limits(config.decoder, form, how, counted, device)
    return Placed(model=network, limits=limits, kv=kv, kernels=kernels)


def _device(asked: str) -> str:
    if asked == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: PyTorch finds no CUDA device here")
    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def _free(device: str) -> int:
    return torch.cuda.mem_get_info(device)[0] if device == "cuda" else memory().available


def _check_memory(
    folder: Path,
    config: ModelConfig,
    how: Placement,
    kv: KVFormat,
    device: str,
    dtype: torch.dtype | None,
    *,
    compiled: bool = False,
) -> None:
    """ValueError, before a weight is read, for a context that the model has not, and where weights and the context
    asked for have no room: with what is needed, what is there, and what would fit."""
    most = config.decoder.max_position_embeddings
    if how.context is not None and not 2 <= how.context <= most:
        raise ValueError(f"context: {how.context} tokens asked for, the model takes 2 to {most}")
    precision = stored(folder, config, dtype, compiled=compiled)
    refusal = fit.refusal(str(folder), config, precision, kv, how.context, _free(device))
    if refusal is not None:
        raise fit.NoRoom(refusal)


def _limits(config: DecoderConfig, form: Format, how: Placement, kv: KVFormat, device: str) -> Limits:
    """Once the weights are in memory: as much of a cache as there is room for now."""
    made_for = min(form.context, config.max_position_embeddings)
    token, free = token_bytes(config, kv), _free(device)
    blocks = int(free * CACHE_SHARE[device]) // (token * BLOCK)
    context = min(made_for, blocks * BLOCK) if how.context is None else how.context
    needed = -(-context // BLOCK)
    if needed > blocks and how.context is not None:
        # What a person asked for may take more than what is taken unasked.
        blocks = min(needed, max(0, free - fit.RESERVE // 2) // (token * BLOCK))
    if needed > blocks or context < min(LEAST_CONTEXT, made_for, how.context or made_for):
        wanted = max(context, min(LEAST_CONTEXT, made_for))
        raise fit.NoRoom(
            f"context: {wanted} tokens of cache take {wanted * token:,} bytes, of {free:,} that are free now there is "
            f"room for {blocks * BLOCK}"
        )
    return Limits(
        context=context,
        blocks=min(-(-RUNNING * context // BLOCK), blocks),
        block_size=BLOCK,
        running=RUNNING,
        speculation=how.speculation,
    )
