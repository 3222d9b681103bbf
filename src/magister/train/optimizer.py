"""Muon for the matrices of the blocks, AdamW for everything else, one cosine schedule over both.

Muon orthogonalises each step's momentum (Jordan et al., 2024); on small decoders it needs about two
thirds of AdamW's tokens. Knows nothing of data or loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from magister.train.muon import Muon


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """Peak rates; the schedule scales all of them alike."""

    matrix_rate: float = 0.02
    """Muon's, in its original scaling."""
    embedding_rate: float = 0.004
    """AdamW's, for embeddings and the output head."""
    norm_rate: float = 0.004
    """AdamW's, for gains."""
    weight_decay: float = 0.02
    """Of the matrices, times the rate."""
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: float = 0.02
    """Share of all steps over which rates rise."""
    floor: float = 0.02
    """Share of the peak that is left at the end."""
    clip: float = 1.0
    """Largest global norm of a gradient."""


class Optimizer:
    """Both optimisers as one."""

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        more: tuple[nn.Parameter, ...] = (),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`more`: matrices that are learned with the model's own and are none of its parameters.

        `dtype`: what Muon orthogonalises in.
        """
        self.config = config
        matrices, embeddings, gains = _sorted_parameters(model)
        matrices += more
        self._muon = Muon(matrices, momentum=config.momentum, weight_decay=config.weight_decay, dtype=dtype)
        groups = [{"params": embeddings, "lr": config.embedding_rate}, {"params": gains, "lr": config.norm_rate}]
        self._adamw = torch.optim.AdamW(groups, betas=config.betas, weight_decay=0.0)
        self._peaks = [config.embedding_rate, config.norm_rate]
        self._parameters = [*matrices, *embeddings, *gains]

    def step(self, progress: float) -> float:
        """One step on the gradients held, at `progress` in [0, 1] of the schedule; they are then cleared.

        Returns the gradient's global norm before clipping.
        """
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self.config.clip))
        scale = cosine(progress, self.config)
        for group, peak in zip(self._adamw.param_groups, self._peaks, strict=True):
            group["lr"] = peak * scale
        self._muon.step(self.config.matrix_rate * scale)
        self._adamw.step()
        self._muon.zero_grad()
        self._adamw.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`'s."""
        self._muon.load_state_dict(state["muon"])
        self._adamw.load_state_dict(state["adamw"])


def cosine(progress: float, config: OptimizerConfig) -> float:
    """The schedule's factor: a linear rise, then a half cosine down to the floor."""
    if progress < config.warmup:
        return progress / config.warmup
    angle = math.pi * min(1.0, (progress - config.warmup) / (1 - config.warmup))
    return config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(angle))


def _sorted_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    matrices, embeddings, gains = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            gains.append(parameter)
        elif name.startswith(("tok_embeddings", "output")):
            embeddings.append(parameter)
        else:
            matrices.append(parameter)
    return matrices, embeddings, gains
