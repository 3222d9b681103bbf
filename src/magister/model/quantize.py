"""Which matrices of a checkpoint are quantised, how, and what that takes on disk.

Knows names, shapes and formats; how scales are chosen is `quantize_search`'s affair, files are `quantized_files`'.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from magister.kernels.quantized import Format, Quantized
from magister.model.config import ModelConfig
from magister.model.network import build, native_parameters
from magister.model.quantize_search import search_int4, search_int4_with_minimum, search_int8

GROUPS = (16, 32, 64, 128)
"""Inputs that may share a scale."""

METHOD = "search-1"
"""Names how scales are chosen; changes whenever the same weights would give other numbers."""

_LAYER_MATRIX = re.compile(r"layers\.\d+\.(attention\.w[qkvo]|feed_forward\.w[123])\.weight")
_HEAD = "output.weight"


class Rule(NamedTuple):
    """How one matrix is quantised."""

    format: Format
    group: int
    """Inputs that share a scale."""
    minimum: bool
    """Whether each group has a minimum beside its scale."""

    def bytes(self, shape: torch.Size | tuple[int, ...]) -> int:
        """What a matrix of this shape, [o, i], takes."""
        outputs, inputs = shape
        values = outputs * inputs // (2 if self.format is Format.INT4 else 1)
        return values + outputs * (inputs // self.group) * 2 * (2 if self.minimum else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a checkpoint is quantised: the decoder's matrices and the output head. The rest stays as it is.

    ValueError if the numbers are none that there are.
    """

    bits: int = 4
    """Of the decoder's matrices: 4 or 8."""
    group: int = 32
    """Inputs that share a scale: 16, 32, 64 or 128."""
    minimum: bool = False
    """Whether each group of 4-bit numbers has a minimum beside its scale."""
    head_bits: int = 8
    """Of the output head: 4, 8, or 16 to leave it as it is."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("bits", self.bits, (4, 8)),
            ("group", self.group, GROUPS),
            ("head_bits", self.head_bits, (4, 8, 16)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value}, must be one of {', '.join(map(str, allowed))}")
        if self.minimum and self.bits == 8:
            raise ValueError("minimum is for bits 4; bits 8 has none")

    def described(self) -> dict[str, int | bool]:
        """The fields by name, as files keep them."""
        return asdict(self)

    def rule(self, name: str) -> Rule | None:
        """How the tensor with this native name is quantised; None for one that stays as it is."""
        bits = self.head_bits if name == _HEAD else self.bits if _LAYER_MATRIX.fullmatch(name) else 16
        if bits == 16:
            return None
        if bits == 8:
            return Rule(Format.INT8, self.group if self.bits == 8 else 32, False)
        return Rule(Format.INT4, self.group if self.bits == 4 else 32, self.minimum)

    def check(self, config: ModelConfig) -> None:
        """ValueError unless the group divides the inputs of every matrix; names the first that it does not."""
        for name, parameter in native_parameters(build(config)):
            rule = self.rule(name)
            if rule is not None and parameter.shape[1] % rule.group:
                raise ValueError(f"group is {rule.group}, must divide the {parameter.shape[1]} inputs of {name}")

    def bytes(self, config: ModelConfig, kept: torch.dtype = torch.bfloat16) -> int:
        """What the weights take on disk and, but for packing, in memory; what stays as it is, in `kept`."""
        total = 0
        for name, parameter in native_parameters(build(config)):
            rule = self.rule(name)
            total += parameter.numel() * kept.itemsize if rule is None else rule.bytes(parameter.shape)
        return total


def quantize(w_oi: Tensor, rule: Rule, workers: int = 1) -> Quantized:
    """A matrix [o, i] of floats on the CPU, in the numbers of `rule`, by so many threads; their number changes nothing
    in the result.

    ValueError if the group does not divide i, a number is not finite, or a scale is too large for float16.
    """
    if w_oi.shape[1] % rule.group:
        raise ValueError(f"group is {rule.group}, must divide the {w_oi.shape[1]} inputs")
    search = search_int8 if rule.format is Format.INT8 else search_int4_with_minimum if rule.minimum else search_int4
    return search(w_oi, rule.group, workers)
