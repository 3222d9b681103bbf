"""Muon: momentum whose matrices are made orthogonal before each step (Jordan et al., 2024).

torch.optim.Muon computes in bfloat16 one matrix at a time; on a CPU without bfloat16 units that took six
times as long as the network itself, so this one stacks matrices of one shape and is told the dtype.

Shapes: n matrices of one shape, i rows, o columns (i <= o after the transposition).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Quintic iteration whose fixed points hold singular values within about [0.7, 1.2] (Jordan et al., 2024).
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon:
    """Nesterov momentum, orthogonalised, with decoupled weight decay; for matrices only."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        momentum: float,
        weight_decay: float,
        steps: int = 5,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`dtype`: what the iteration is computed in; bfloat16 is exact enough (Jordan et al., 2024)."""
        self._dtype = dtype
        self._parameters = list(parameters)
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._steps = steps
        self._velocities = [torch.zeros_like(parameter) for parameter in self._parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step of size `rate` on the gradients held."""
        by_shape: dict[torch.Size, list[int]] = {}
        for index, parameter in enumerate(self._parameters):
            by_shape.setdefault(parameter.shape, []).append(index)
        for shape, indices in by_shape.items():
            updates = []
            for index in indices:
                gradient, velocity = self._parameters[index].grad, self._velocities[index]
                assert gradient is not None
                velocity.lerp_(gradient, 1 - self._momentum)
                updates.append(gradient.lerp(velocity, self._momentum))
            stacked_nio = orthogonalize(torch.stack(updates).to(self._dtype), self._steps)
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for index, update in zip(indices, stacked_nio, strict=True):
                self._parameters[index].mul_(1 - rate * self._weight_decay).add_(update, alpha=-rate * scale)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The velocities, in the parameters' order."""
        return {"velocities": self._velocities}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`'s."""
        for velocity, saved in zip(self._velocities, state["velocities"], strict=True):
            velocity.copy_(saved)


def orthogonalize(matrices_nio: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrices with all singular values near 1, [n, i, o] -> [n, i, o] in the given dtype."""
    tall = matrices_nio.shape[1] > matrices_nio.shape[2]
    x_nio = matrices_nio.mT if tall else matrices_nio
    x_nio = x_nio / (x_nio.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram_nii = x_nio @ x_nio.mT
        x_nio = torch.baddbmm(x_nio, torch.baddbmm(gram_nii, gram_nii, gram_nii, beta=_B, alpha=_C), x_nio, beta=_A)
    return x_nio.mT if tall else x_nio
