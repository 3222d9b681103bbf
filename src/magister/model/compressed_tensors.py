"""Checkpoints that others quantised, in safetensors: compressed-tensors (vLLM's format), and fp8 in two spellings.

What is read, and what it becomes, exactly:

| stored | found in | becomes |
|---|---|---|
| `weight_packed`, 4 bits | pack-quantized | int4; with `weight_zero_point`, int4 with mins |
| `weight_packed`, 8 bits | pack-quantized | int8 |
| `weight` int8 and `weight_scale` | int-quantized, naive-quantized | int8 |
| `weight` float8_e4m3fn and `weight_scale` | float-quantized, naive-quantized | fp8 |
| the same and `weight_scale_inv` | transformers' own fp8 | fp8 |
| the same and `qscale_weight` | native, params.json's `quantization` | fp8 |

How a matrix is held is seen from its tensors; the description says what is refused before anything is read. Scales
of activations and of the key/value cache are left alone: they allow a faster product, the weights do not need them.
Scales for more than 128 inputs are repeated, one for each 128. Source: compressed-tensors:compressors (packing),
vLLM:transformers_utils/configs/mistral.py (native fp8).

Shapes: o outputs, i inputs, n groups.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from magister.kernels.quantized import Format, Quantized
from magister.model import names, permute, shards
from magister.model.config import ModelConfig
from magister.model.config_files import read_config_json, read_params_json
from magister.model.expected import FLOATS, listed
from magister.model.network import build, native_parameters

_FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision", "dense")
_METHODS = ("compressed-tensors", "fp8")
_SCALES = ("weight_scale", "weight_scale_inv", "qscale_weight")
_PARTS = ("weight_packed", "weight_shape", "weight_zero_point", "weight_g_idx", *_SCALES)
_LEFT_ALONE = (
    *("input_scale", "input_zero_point", "output_scale", "activation_scale", "qscale_act"),
    *("q_scale", "k_scale", "v_scale", "kv_scale"),
)
_WIDEST = 128
"""Most inputs that share a scale of whole numbers in memory: what the kernels are made for."""


class _Described(NamedTuple):
    """A folder's description, its block on quantisation apart."""

    path: Path
    values: dict[str, Any]
    quantization: dict[str, Any]

    @property
    def native(self) -> bool:
        return self.path.name == "params.json"


def detect(folder: Path) -> bool:
    """Whether `folder` is a checkpoint whose description says that it is quantised."""
    return _describe(folder) is not None


def read_config(folder: Path) -> ModelConfig:
    """The shape of the checkpoint.

    ValueError as the readers of plain descriptions, and for ways to quantise that are not read, naming the key.
    """
    described = _open(folder)
    reader = read_params_json if described.native else read_config_json
    return reader(described.path, described.values)


def stream(folder: Path) -> Iterator[tuple[str, Tensor | Quantized]]:
    """Every tensor under its native name, one at a time, queries and keys in native order; quantised ones exactly as
    they are, others may be the file itself, mapped.

    ValueError as `read_config`; for missing, unexpected and damaged files and tensors; for shapes that do not fit the
    description; for columns reordered by a `weight_g_idx`, and whole numbers of 8 bits with zero points.
    """
    described = _open(folder)
    config = read_config(folder)
    block = _block(described)
    files = shards.contents(folder, "consolidated" if described.native else "model")
    plain: dict[str, str] = {}
    for stored in files:
        name = stored if described.native else names.plain_hf(stored)
        if name in plain:
            raise ValueError(f"{folder}: {plain[name]} and {stored} are one tensor")
        plain[name] = stored
    for name, parameter in native_parameters(build(config)):
        stem = (name if described.native else names.plain_hf(names.to_hf(name, True))).removesuffix(".weight")
        if not name.endswith(".weight"):
            found = {"weight": plain.pop(stem)} if stem in plain else {}
        else:
            found = {part: plain.pop(f"{stem}.{part}") for part in ("weight", *_PARTS) if f"{stem}.{part}" in plain}
        if not found:
            raise ValueError(f"{folder}: {stem} is missing")
        parts = {part: shards.read(files, stored) for part, stored in found.items()}
        value = _Matrix(stem, tuple(parameter.shape), parts, block).value()
        if not described.native and names.is_query_or_key(name):
            value = _by_native_rows(value, names.head_dim(name, config))
        yield name, value
    if unexpected := [stored for key, stored in plain.items() if key.rpartition(".")[2] not in _LEFT_ALONE]:
        raise ValueError(f"{folder}: {listed('unexpected', sorted(unexpected))}")


def _describe(folder: Path) -> _Described | None:
    for name, stem, key in (("params.json", "consolidated", "quantization"), ("config.json", "model", "")):
        path = folder / name
        if not (path.is_file() and any(folder.glob(f"{stem}*.safetensors*"))):
            continue
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path} holds a {type(values).__name__}, must be an object")
        for found in (key, "quantization_config", "compression_config"):
            if isinstance(values.get(found), dict) and values[found]:
                rest = {other: value for other, value in values.items() if other != found}
                return _Described(path, rest, values[found])
        return None
    return None


def _open(folder: Path) -> _Described:
    described = _describe(folder)
    if described is None:
        raise ValueError(f"{folder} holds no quantised checkpoint")
    _refuse(described)
    return described


def _refuse(described: _Described) -> None:
    """ValueError for what is not read, before anything is."""
    where, quantization = described.path.name, described.quantization
    if "qformat_weight" in quantization:
        _only(where, "qformat_weight", quantization["qformat_weight"], ("fp8_e4m3",))
        return
    method = str(quantization.get("quant_method", "")).replace("_", "-")
    _only(where, "quant_method", method, _METHODS)
    if method == "fp8":
        return
    _only(where, "format", quantization.get("format"), _FORMATS)
    for key in ("transform_config", "sparsity_config"):
        block = quantization.get(key) or {}
        if not isinstance(block, dict) or block.get("config_groups") or block.get("format", "dense") != "dense":
            raise ValueError(f"{where}: {key} is {block!r}; this network does not compute it")
    for name, group, weights in _groups(described):
        _only(where, f"config_groups.{name}.format", group.get("format") or "dense", _FORMATS)
        _only(where, f"config_groups.{name}.weights.num_bits", weights.get("num_bits"), (4, 8))
        if weights.get("type", "int") == "float":
            _only(where, f"config_groups.{name}.weights.num_bits of a float", weights.get("num_bits"), (8,))
        _only(
            where,
            f"config_groups.{name}.weights.strategy",
            weights.get("strategy") or "tensor",
            ("tensor", "channel", "group", "block"),
        )


def _groups(described: _Described) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, description and block on weights of every group of modules whose weights are quantised."""
    where = described.path.name
    groups = _object(where, "config_groups", described.quantization.get("config_groups", {}))
    for name, group in groups.items():
        weights = _object(where, f"config_groups.{name}", group).get("weights")
        if weights is not None:
            yield name, group, _object(where, f"config_groups.{name}.weights", weights)


def _object(where: str, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {key} is {value!r}, must be an object")
    return value


def _only(where: str, key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{where}: {key} is {value!r}; {', '.join(map(repr, allowed))} are read")


def _block(described: _Described) -> tuple[int, int] | None:
    """Rows and columns that share a scale, where the description says so."""
    where = described.path.name
    found = {"weight_block_size": described.quantization.get("weight_block_size")}
    for name, _, weights in _groups(described):
        if weights.get("strategy") == "block":
            found[f"config_groups.{name}.weights.block_structure"] = weights.get("block_structure")
    sizes = {_sides(where, key, size) for key, size in found.items() if size}
    if len(sizes) > 1:
        raise ValueError(f"{where}: block_structure is {sorted(sizes)}; one for all is read")
    return sizes.pop() if sizes else None


def _sides(where: str, key: str, size: Any) -> tuple[int, int]:
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        raise ValueError(f"{where}: {key} is {size!r}, must be two positive whole numbers")
    return size[0], size[1]


class _Matrix:
    """The tensors of one module, on their way to one value."""

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        parts: Mapping[str, Tensor],
        block: tuple[int, int] | None,
    ) -> None:
        self.name = name
        self.shape = shape
        self.parts = parts
        self.block = block

    def value(self) -> Tensor | Quantized:
        """The module's weight."""
        if len(self.shape) != 2:
            return self._unquantised()
        self._check_columns()
        if "weight_packed" in self.parts:
            return self._packed()
        weight = self.parts.get("weight")
        if weight is None:
            raise ValueError(f"{self.name}.weight is missing; there are {', '.join(self.parts)}")
        self._check_shape("weight", weight, self.shape)
        if weight.dtype in FLOATS:
            return weight
        if weight.dtype == torch.int8:
            return self._int8(weight)
        if weight.dtype != torch.float8_e4m3fn:
            raise ValueError(f"{self.name}.weight is stored as {weight.dtype}, which is not read")
        scales, group = self._scales()
        return self._quantized(Format.FP8, weight, scales, group)

    def _unquantised(self) -> Tensor:
        """What is no matrix: groups of inputs are a matrix's alone."""
        if self.parts.keys() != {"weight"} or self.parts["weight"].dtype not in FLOATS:
            held = ", ".join(f"{part} {tensor.dtype}" for part, tensor in self.parts.items())
            raise ValueError(f"{self.name} is quantised ({held}), and its shape {list(self.shape)} is no matrix's")
        self._check_shape("weight", self.parts["weight"], self.shape)
        return self.parts["weight"]

    def _packed(self) -> Quantized:
        """32 bits hold 8 or 4 numbers, the first lowest, each with half its range added."""
        packed, (outputs, inputs) = self.parts["weight_packed"], self.shape
        stated = self.parts.get("weight_shape")
        if stated is not None and tuple(stated.tolist()) != self.shape:
            raise ValueError(
                f"{self.name}.weight_shape is {stated.tolist()}, the description asks for {list(self.shape)}"
            )
        bits = {-(-inputs // 8): 4, -(-inputs // 4): 8}.get(packed.shape[-1])
        if bits is None or packed.dtype != torch.int32 or packed.shape[0] != outputs:
            raise ValueError(
                f"{self.name}.weight_packed is {packed.dtype} {list(packed.shape)}, "
                f"which is not 4 or 8 bits of {list(self.shape)}"
            )
        raw = packed.contiguous().view(torch.uint8)
        if bits == 8:
            return self._int8((raw[:, :inputs] ^ 128).view(torch.int8))
        scales, group = self._scales()
        zeros = self._zeros(scales, 4)
        values = raw[:, : inputs // 2].contiguous()
        if zeros is None:
            return self._quantized(Format.INT4, values, *_narrow(scales, group))
        # Products of a 4-bit number and a 16-bit float are exact in float32.
        wide = scales.float()
        mins, _ = _narrow(-(zeros.float() + 8) * wide, group)
        return self._quantized(Format.INT4, values, *_narrow(wide, group), mins)

    def _int8(self, weight: Tensor) -> Quantized:
        scales, group = self._scales()
        zeros = self._zeros(scales, 8)
        if zeros is not None and zeros.any():
            raise ValueError(f"{self.name}.weight_zero_point is not 0: 8 bits with zero points are not read")
        return self._quantized(Format.INT8, weight, *_narrow(scales, group))

    def _quantized(
        self, form: Format, values: Tensor, scales: Tensor, group: int, mins: Tensor | None = None
    ) -> Quantized:
        try:
            return Quantized(form, values, scales, group, mins)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error

    def _scales(self) -> tuple[Tensor, int]:
        """Scales [o, n], and the inputs that share one."""
        outputs, inputs = self.shape
        found = [self.parts[part] for part in _SCALES if part in self.parts]
        if len(found) != 1:
            raise ValueError(f"{self.name}: {len(found)} scales of the weight are there, must be 1")
        scales = found[0]
        if scales.dtype not in FLOATS:
            raise ValueError(f"{self.name}: scales are stored as {scales.dtype}, which is not read")
        if scales.numel() == 1:
            return scales.reshape(1, 1).expand(outputs, 1).contiguous(), inputs
        if self.block is not None:
            rows, columns = self.block
            self._check_shape("scales", scales, (-(-outputs // rows), -(-inputs // columns)))
            group = math.gcd(columns, inputs)
            spread = scales.repeat_interleave(rows, 0)[:outputs].repeat_interleave(columns // group, 1)
            return spread[:, : inputs // group].contiguous(), group
        if scales.dim() == 1:
            scales = scales[:, None]
        if scales.dim() != 2 or scales.shape[0] != outputs or not scales.shape[1] or inputs % scales.shape[1]:
            raise ValueError(f"{self.name}: scales have shape {list(scales.shape)}, the weight {list(self.shape)}")
        return scales, inputs // scales.shape[1]

    def _zeros(self, scales: Tensor, bits: int) -> Tensor | None:
        """Zero points [o, n] as int8; packed along the outputs, or not at all by early writers."""
        zeros = self.parts.get("weight_zero_point")
        if zeros is None:
            return None
        outputs = scales.shape[0]
        if zeros.dtype == torch.int8:
            self._check_shape("weight_zero_point", zeros, tuple(scales.shape))
            return zeros
        if zeros.dtype != torch.int32:
            raise ValueError(f"{self.name}.weight_zero_point is stored as {zeros.dtype}, which is not read")
        self._check_shape("weight_zero_point", zeros, (-(-outputs * bits // 32), scales.shape[1]))
        places = torch.arange(0, 32, bits, dtype=torch.int32)
        unpacked = (zeros[:, None, :] >> places[None, :, None]) & ((1 << bits) - 1)
        return (unpacked.flatten(0, 1)[:outputs] - (1 << (bits - 1))).to(torch.int8)

    def _check_columns(self) -> None:
        order = self.parts.get("weight_g_idx")
        if order is None or bool((order < 0).all()):
            return
        group = self._scales()[1]
        if not torch.equal(order.long(), torch.arange(self.shape[1]) // group):
            raise ValueError(
                f"{self.name}.weight_g_idx reorders columns (actorder 'group'), which is not read; "
                "actorder 'weight' and none are"
            )

    def _check_shape(self, part: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{self.name}: {part} has shape {list(tensor.shape)}, must have {list(shape)}")


def _narrow(scales: Tensor, group: int) -> tuple[Tensor, int]:
    """The same scales for groups of at most 128 inputs."""
    if group <= _WIDEST:
        return scales, group
    shared = math.gcd(group, _WIDEST)
    return scales.repeat_interleave(group // shared, dim=1), shared


def _by_native_rows(value: Tensor | Quantized, head_dim: int) -> Tensor | Quantized:
    """Rows of queries or keys, from Hugging Face's order to the native one; groups lie along inputs and stay."""
    if isinstance(value, Tensor):
        return permute.hf_to_native(value, head_dim)
    parts = (value.values, value.scales, value.mins)
    values, scales, mins = (None if part is None else permute.hf_to_native(part, head_dim) for part in parts)
    assert values is not None
    assert scales is not None
    return Quantized(value.format, values, scales, value.group, mins)
