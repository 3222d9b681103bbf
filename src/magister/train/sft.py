"""Supervised fine-tuning: the whole loop, on one device.

Rows of packed conversations in, weights out. Resumes at the very step it stopped after and continues
bit for bit (same machine, same threads). Knows nothing of which model or which tasks.

Shapes: b rows, t positions, n learned positions, d model dim, v vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from magister.model.attention import CausalAttention, PackedAttention, packed_positions, segment_lengths
from magister.model.network import Model
from magister.train import checkpoint
from magister.train.bridge import Bridge
from magister.train.bucketed import BucketedAttention
from magister.train.interrupt import first_interrupt
from magister.train.optimizer import Optimizer, OptimizerConfig
from magister.train.packing import IGNORE, Rows
from magister.train.progress import StepRecord, Watch
from magister.train.shards import Cursor, ShardSpec, batches

Precision = Literal["fp32", "bf16"]

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class SftConfig:
    """One run, whole."""

    rows_per_batch: int
    total_steps: int
    """May change between stop and resume: the schedule then bends to the new end."""
    optimizer: OptimizerConfig
    precision: Precision | None = None
    """Of matrix products; weights stay float32. None takes the faster one, measured at the start."""
    compile: bool = True
    """torch.compile for the network; needs a C++ compiler on CPU."""
    checkpoint_seconds: float = 300.0
    device: str = "cpu"


_GRAIN = 256
"""Learned positions of a batch are padded to a multiple of it."""

Identity = dict[str, str | int]
"""What data and start a run depends on, by name; compared, never understood."""


def train(model: Model, spec: ShardSpec, config: SftConfig, folder: Path, identity: Identity) -> None:
    """Train `model` in place until `total_steps`, going on from the folder's checkpoint where there is one.

    Ctrl-C ends the step, saves, and raises `KeyboardInterrupt` that says where it stopped.
    Raises `ValueError` where the checkpoint was made with another configuration or `identity`, and
    `RuntimeError` where the loss is no longer finite; the last checkpoint then stays as it was.
    """
    device = torch.device(config.device)
    model.to(device=device, dtype=torch.float32).train()
    bridge = Bridge(model)
    fixed = _fixed(config) | identity
    state = _saved(folder, fixed)
    precision: Precision = state["precision"] if state else config.precision or faster_precision(device)
    optimizer = Optimizer(model.decoder, config.optimizer, tuple(bridge.parameters()), _DTYPES[precision])
    step, tokens, cursor = _resume(model, bridge, optimizer, state) if state else (0, 0, Cursor(0, 0))
    loss_of = _loss_function(model, bridge, config, device, precision)
    began = last_saved = time.monotonic()
    with (
        first_interrupt() as interrupted,
        Watch(folder, config.total_steps, step) as watch,
        closing(batches(spec, config.rows_per_batch, cursor)) as source,
    ):
        while step < config.total_steps:
            rows, cursor = next(source)
            started = time.monotonic()
            loss = loss_of(rows)
            loss.backward()  # type: ignore[no-untyped-call]
            value = _finite(loss, step + 1, folder)
            norm = optimizer.step(step / config.total_steps)
            step, fresh = step + 1, int((rows.segments_rt > 0).sum())
            tokens += fresh
            now = time.monotonic()
            watch.record(
                StepRecord(
                    step=step,
                    tokens=tokens,
                    loss=value,
                    gradient_norm=norm,
                    seconds=now - began,
                    tokens_per_second=fresh / (now - started),
                )
            )
            stop = interrupted.is_set()
            if stop or now - last_saved > config.checkpoint_seconds or step == config.total_steps:
                watch.flush()
                checkpoint.save(folder, _state(model, bridge, optimizer, fixed, precision, step, tokens, cursor))
                last_saved = time.monotonic()
            if stop:
                raise KeyboardInterrupt(f"stopped after step {step} of {config.total_steps}, saved in {folder}")
    bridge.fold(model)
    model.eval()


def _finite(loss: Tensor, step: int, folder: Path) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise RuntimeError(f"the loss of step {step} is {value}; the last checkpoint in {folder} stays as it was")
    return value


def packed_loss(model: Model, bridge: Bridge, trunk: Callable[..., Tensor], rows: Rows, device: torch.device) -> Tensor:
    """Mean negative log-likelihood of the learned positions, a scalar in float32."""
    ids_bt = torch.from_numpy(rows.ids_rt).to(device, torch.int64)
    segments_bt = torch.from_numpy(rows.segments_rt).to(device)
    targets_bt = torch.from_numpy(rows.targets_rt).to(device, torch.int64)
    hidden_btd = trunk(ids_bt, segments_bt)
    places_n = (targets_bt.flatten() != IGNORE).nonzero().flatten()
    logits_nv = F.linear(hidden_btd.flatten(0, 1)[_whole(places_n)], bridge.head(model))
    return F.cross_entropy(logits_nv[: len(places_n)].float(), targets_bt.flatten()[places_n])


def _whole(places_n: Tensor) -> Tensor:
    """The places, and place 0 until there are a multiple of `_GRAIN`: a library compiles a kernel for each size of a
    product, so there should be few."""
    return F.pad(places_n, (0, -len(places_n) % _GRAIN))


def _loss_function(
    model: Model, bridge: Bridge, config: SftConfig, device: torch.device, precision: Precision
) -> Callable[[Rows], Tensor]:
    dtype = _DTYPES[precision]
    through = torch.compile(model.decoder.through) if config.compile else model.decoder.through
    # A compiler wants what does not change from batch to batch: on a GPU a mask, on a CPU one operator for all lengths.
    by_mask = config.compile and device.type != "cpu"
    by_bucket = device.type == "cpu" and (config.compile or precision == "bf16")

    def masked(ids_bt: Tensor, segments_bt: Tensor) -> Tensor:
        rotation = model.decoder.rotation(packed_positions(segments_bt))
        return through(ids_bt, rotation, PackedAttention(segments_bt, dtype))

    def flat(ids_bt: Tensor, segments_bt: Tensor) -> Tensor:
        lengths = segment_lengths(segments_bt)
        attend = BucketedAttention(lengths) if by_bucket else CausalAttention(lengths)
        rotation = model.decoder.rotation(packed_positions(segments_bt).flatten())
        return through(ids_bt.flatten(), rotation, attend).view(*ids_bt.shape, -1)

    trunk = masked if by_mask else flat

    def loss_of(rows: Rows) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            return packed_loss(model, bridge, trunk, rows, device)

    return loss_of


def _saved(folder: Path, fixed: dict[str, Any]) -> dict[str, Any] | None:
    """The folder's checkpoint, None where there is none; `ValueError` where it is another run's."""
    state = checkpoint.load(folder)
    if state is None:
        return None
    if "fixed" not in state or "bridge" not in state:
        raise ValueError(
            f"the checkpoint in {folder} is of an earlier version and does not say which data it was made with; "
            "it cannot be gone on from: train in another folder"
        )
    made: dict[str, Any] = state["fixed"]
    for name in [*fixed, *(name for name in made if name not in fixed)]:
        if made.get(name) != fixed.get(name):
            raise ValueError(
                f"the checkpoint in {folder} was made with {name} {made.get(name)}, this run asks for {fixed.get(name)}"
            )
    return state


def _resume(model: Model, bridge: Bridge, optimizer: Optimizer, state: dict[str, Any]) -> tuple[int, int, Cursor]:
    model.load_state_dict(state["model"])
    bridge.load_state_dict(state["bridge"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["tokens"], Cursor(*state["cursor"])


def _state(
    model: Model,
    bridge: Bridge,
    optimizer: Optimizer,
    fixed: dict[str, Any],
    precision: Precision,
    step: int,
    tokens: int,
    cursor: Cursor,
) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "bridge": bridge.state_dict(),
        "optimizer": optimizer.state_dict(),
        "fixed": fixed,
        "precision": precision,
        "step": step,
        "tokens": tokens,
        "cursor": list(cursor),
    }


def _fixed(config: SftConfig) -> dict[str, Any]:
    """What of the configuration must not change between stop and resume, by name."""
    optimizer = asdict(config.optimizer)
    optimizer["betas"] = list(optimizer["betas"])
    return {"rows_per_batch": config.rows_per_batch, **optimizer}


def faster_precision(device: torch.device) -> Precision:
    """bf16 where its matrix products beat float32's here and now, else fp32."""
    if device.type == "cuda":
        return "bf16"
    seconds: dict[Precision, float] = {}
    for name, dtype in _DTYPES.items():
        a, b = torch.ones(1024, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
        times = []
        for _ in range(5):
            started = time.monotonic()
            torch.mm(a, b)
            times.append(time.monotonic() - started)
        seconds[name] = min(times)
    return "bf16" if seconds["bf16"] < seconds["fp32"] else "fp32"
