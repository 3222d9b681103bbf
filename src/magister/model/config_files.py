"""Reads and writes the two files in which a checkpoint describes its shape: native `params.json` and `config.json`.

Every key of a file is used, known to be harmless, refused because it changes the arithmetic, or listed in one warning:
none is dropped in silence. Knows no tensors. Defaults for missing keys are those of the public loaders
(mistral-inference:args.py, vLLM, the converter in transformers).
"""

import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from magister.model.config import DecoderConfig, ModelConfig, VisionConfig

_HARMLESS_NATIVE = ("model_type", "max_batch_size", "dtype")
_REFUSED_NATIVE = (
    "yarn",
    "moe",
    "llama_4_scaling",
    "sliding_window",
    "_sliding_window",
    "rope_scaling",
    "quantization",
    "lora",
    "use_biases",
)
_HARMLESS_HF = (
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "is_composition",
    "model_type",
    "pad_token_id",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)
_REFUSED_HF = (
    "attention_bias",
    "llama_4_scaling",
    "mlp_bias",
    "moe",
    "num_experts",
    "num_local_experts",
    "quantization",
    "quantization_config",
    "sliding_window",
    "use_biases",
    "yarn",
)


class _Fields:
    """One JSON object being read; remembers which keys were asked for."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where
        self.known: set[str] = set()

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{self.where}{key} is {value!r}, must be an integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{self.where}{key} is {value!r}, must be a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise ValueError(f"{self.where}{key} is {value!r}, must be true or false")
        return value

    def section(self, key: str) -> "_Fields | None":
        self.known.add(key)
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ValueError(f"{self.where}{key} is {value!r}, must be an object")
        return _Fields(value, f"{self.where}{key}.")

    def only(self, key: str, allowed: tuple[Any, ...], default: Any) -> Any:
        """A value that may take the `allowed` values and no other."""
        value = self._value(key, default)
        if value not in allowed:
            choice = " or ".join(map(repr, allowed))
            raise ValueError(f"{self.where}{key} is {value!r}; this network computes only {choice}")
        return value

    def refuse(self, keys: Iterable[str]) -> None:
        """Keys that would change the arithmetic: only null, false and empty pass."""
        for key in keys:
            self.known.add(key)
            if self.values.get(key):
                raise ValueError(f"{self.where}{key} is {self.values[key]!r}; this network does not compute it")

    def ignore(self, keys: Iterable[str]) -> None:
        self.known.update(keys)

    def unknown(self) -> list[str]:
        stated = (key for key, value in self.values.items() if value is not None)
        return [f"{self.where}{key}" for key in stated if key not in self.known]

    def _value(self, key: str, default: Any) -> Any:
        self.known.add(key)
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise ValueError(f"{self.where}{key} is missing")
        return value


def read_params_json(path: Path, values: Mapping[str, Any] | None = None) -> ModelConfig:
    """The shape in a native `params.json`. With `values` those are taken for what it holds: it was read already.

    Errors: OSError if unreadable; ValueError naming the key for bad JSON, missing or impossible values, and keys that
    change the arithmetic. Warns once with all keys it does not know.
    """
    fields = _open(path, values)
    fields.refuse(_REFUSED_NATIVE)
    fields.ignore(_HARMLESS_NATIVE)
    block = fields.section("vision_encoder")
    decoder = DecoderConfig(
        dim=fields.integer("dim"),
        n_layers=fields.integer("n_layers"),
        head_dim=fields.integer("head_dim"),
        hidden_dim=fields.integer("hidden_dim"),
        n_heads=fields.integer("n_heads"),
        n_kv_heads=fields.integer("n_kv_heads"),
        norm_eps=fields.number("norm_eps"),
        vocab_size=fields.integer("vocab_size"),
        rope_theta=fields.number("rope_theta", 1e6),
        max_position_embeddings=fields.integer("max_position_embeddings", fields.integer("max_seq_len", 128000)),
        tied_embeddings=fields.flag("tied_embeddings", False),
    )
    vision = None if block is None else _native_vision(block)
    _warn_unknown(path, [fields, block])
    return ModelConfig(decoder, vision)


def _native_vision(block: _Fields) -> VisionConfig:
    block.refuse(("moe", "quantization"))
    block.only("hidden_act", ("silu",), "silu")
    merge = block.integer("spatial_merge_size", 1)
    # A merge size without a merger (or the reverse) is a checkpoint nobody publishes.
    block.only("mm_projector_id", ("patch_merge",) if merge > 1 else ("",), "")
    image_size = block.integer("image_size")
    return VisionConfig(
        hidden_size=block.integer("hidden_size"),
        num_hidden_layers=block.integer("num_hidden_layers"),
        num_attention_heads=block.integer("num_attention_heads"),
        intermediate_size=block.integer("intermediate_size"),
        patch_size=block.integer("patch_size"),
        image_size=image_size,
        image_token_id=block.integer("image_token_id", 10),
        image_break_token_id=block.integer("image_break_token_id", 12),
        image_end_token_id=block.integer("image_end_token_id", 13),
        rope_theta=block.number("rope_theta", 10000.0),
        num_channels=block.integer("num_channels", 3),
        spatial_merge_size=merge,
        adapter_bias=block.flag("adapter_bias", True),
        add_pre_mm_projector_layer_norm=block.flag("add_pre_mm_projector_layer_norm", False),
        max_image_size=block.integer("max_image_size", image_size),
    )


def params_json(config: ModelConfig) -> dict[str, Any]:
    """The content of the native `params.json` that `read_params_json` reads back as `config`."""
    d = config.decoder
    params: dict[str, Any] = {
        "dim": d.dim,
        "n_layers": d.n_layers,
        "head_dim": d.head_dim,
        "hidden_dim": d.hidden_dim,
        "n_heads": d.n_heads,
        "n_kv_heads": d.n_kv_heads,
        "norm_eps": d.norm_eps,
        "vocab_size": d.vocab_size,
        "rope_theta": d.rope_theta,
        "max_position_embeddings": d.max_position_embeddings,
        "tied_embeddings": d.tied_embeddings,
    }
    if config.vision is not None:
        v = config.vision
        params["vision_encoder"] = {
            "hidden_size": v.hidden_size,
            "num_hidden_layers": v.num_hidden_layers,
            "num_attention_heads": v.num_attention_heads,
            "intermediate_size": v.intermediate_size,
            "patch_size": v.patch_size,
            "image_size": v.image_size,
            "image_token_id": v.image_token_id,
            "image_break_token_id": v.image_break_token_id,
            "image_end_token_id": v.image_end_token_id,
            "rope_theta": v.rope_theta,
            "num_channels": v.num_channels,
            "spatial_merge_size": v.spatial_merge_size,
            "adapter_bias": v.adapter_bias,
            "add_pre_mm_projector_layer_norm": v.add_pre_mm_projector_layer_norm,
            "max_image_size": v.max_image_size,
            "mm_projector_id": "patch_merge" if v.has_patch_merger else "",
        }
    return params


def read_config_json(path: Path, values: Mapping[str, Any] | None = None) -> ModelConfig:
    """The shape in a Hugging Face `config.json` of a Mistral3ForConditionalGeneration or a MistralForCausalLM.

    `values`, errors and warnings as `read_params_json`. Embeddings are tied only if the file says so: transformers' own
    default for this family has changed sides. The projector's norm uses the text rms_norm_eps, as transformers does.
    """
    fields = _open(path, values)
    kind = fields.only("model_type", ("mistral3", "mistral"), None)
    fields.ignore(_HARMLESS_HF)
    if kind == "mistral":
        decoder = _hf_text(fields, tied=fields.flag("tie_word_embeddings", False))
        _warn_unknown(path, [fields])
        return ModelConfig(decoder)
    fields.refuse(("quantization", "quantization_config"))
    fields.only("projector_hidden_act", ("gelu",), "gelu")
    fields.only("vision_feature_layer", (-1,), -1)
    text, block = fields.section("text_config"), fields.section("vision_config")
    if text is None or block is None:
        raise ValueError(f"{fields.where}{'text_config' if text is None else 'vision_config'} is missing")
    tied = fields.flag("tie_word_embeddings", text.flag("tie_word_embeddings", False))
    decoder, vision = _hf_text(text, tied), _hf_vision(fields, block)
    _warn_unknown(path, [fields, text, block])
    return ModelConfig(decoder, vision)


def _hf_text(text: _Fields, tied: bool) -> DecoderConfig:
    text.refuse(_REFUSED_HF)
    text.ignore((*_HARMLESS_HF, "tie_word_embeddings"))
    text.only("hidden_act", ("silu",), "silu")
    layer_types = text.values.get("layer_types") or []
    text.ignore(("layer_types",))
    if not isinstance(layer_types, list) or any(layer_type != "full_attention" for layer_type in layer_types):
        raise ValueError(f"{text.where}layer_types is {layer_types!r}; this network computes only 'full_attention'")
    dim, n_heads = text.integer("hidden_size"), text.integer("num_attention_heads")
    if n_heads < 1:
        raise ValueError(f"{text.where}num_attention_heads is {n_heads}, must be greater than 0")
    return DecoderConfig(
        dim=dim,
        n_layers=text.integer("num_hidden_layers"),
        head_dim=text.integer("head_dim", dim // n_heads),
        hidden_dim=text.integer("intermediate_size"),
        n_heads=n_heads,
        n_kv_heads=text.integer("num_key_value_heads", n_heads),
        norm_eps=text.number("rms_norm_eps", 1e-5),
        vocab_size=text.integer("vocab_size"),
        rope_theta=_hf_rope_theta(text, "default", None),
        max_position_embeddings=text.integer("max_position_embeddings", 131072),
        tied_embeddings=tied,
    )


def _hf_vision(fields: _Fields, block: _Fields) -> VisionConfig:
    block.refuse(_REFUSED_HF)
    block.ignore(_HARMLESS_HF)
    block.only("hidden_act", ("silu",), "silu")
    image_size = block.integer("image_size")
    vision = VisionConfig(
        hidden_size=block.integer("hidden_size"),
        num_hidden_layers=block.integer("num_hidden_layers"),
        num_attention_heads=block.integer("num_attention_heads"),
        intermediate_size=block.integer("intermediate_size"),
        patch_size=block.integer("patch_size"),
        image_size=image_size,
        image_token_id=fields.integer("image_token_index", fields.integer("image_token_id", 10)),
        rope_theta=_hf_rope_theta(block, "axial", 10000.0),
        num_channels=block.integer("num_channels", 3),
        spatial_merge_size=fields.integer("spatial_merge_size", 2),
        adapter_bias=fields.flag("multimodal_projector_bias", False),
        max_image_size=image_size,
    )
    block.only("head_dim", (vision.head_dim,), vision.head_dim)
    return vision


def _hf_rope_theta(fields: _Fields, rope_type: str, default: float | None) -> float:
    """The base, from `rope_theta` (older transformers) or `rope_parameters` (newer); any scaling is refused."""
    found = default
    for key in ("rope_scaling", "rope_parameters"):
        section = fields.section(key)
        if section is None:
            continue
        section.only("rope_type", ("default", rope_type), section.only("type", ("default", rope_type), rope_type))
        section.only("partial_rotary_factor", (1.0,), 1.0)
        if "rope_theta" in section.values:
            found = section.number("rope_theta")
        if unknown := section.unknown():
            raise ValueError(f"{unknown[0]} is not known for unscaled rotary positions")
    return fields.number("rope_theta", found)


def config_json(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The content of the Hugging Face `config.json` of `config`; `dtype` is the stored type, such as "bfloat16".

    What the file cannot say is lost: image break and end ids other than 12 and 13, max_image_size other than
    image_size. ValueError for a vision block that Mistral3 cannot be: without patch merger or without projector norm.
    """
    d, v = config.decoder, config.vision
    text: dict[str, Any] = {
        "model_type": "mistral",
        "hidden_size": d.dim,
        "num_hidden_layers": d.n_layers,
        "head_dim": d.head_dim,
        "intermediate_size": d.hidden_dim,
        "num_attention_heads": d.n_heads,
        "num_key_value_heads": d.n_kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": d.norm_eps,
        "vocab_size": d.vocab_size,
        "rope_theta": d.rope_theta,
        "max_position_embeddings": d.max_position_embeddings,
        "sliding_window": None,
        "tie_word_embeddings": d.tied_embeddings,
    }
    if v is None:
        return {"architectures": ["MistralForCausalLM"], "torch_dtype": dtype, **text}
    if not (v.has_patch_merger and v.add_pre_mm_projector_layer_norm):
        raise ValueError(
            f"spatial_merge_size is {v.spatial_merge_size} and add_pre_mm_projector_layer_norm is "
            f"{v.add_pre_mm_projector_layer_norm}: config.json can only say more than 1 and True"
        )
    return {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "model_type": "mistral3",
        "torch_dtype": dtype,
        "image_token_index": v.image_token_id,
        "spatial_merge_size": v.spatial_merge_size,
        "vision_feature_layer": -1,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": v.adapter_bias,
        "tie_word_embeddings": d.tied_embeddings,
        "text_config": text,
        "vision_config": {
            "model_type": "pixtral",
            "hidden_size": v.hidden_size,
            "num_hidden_layers": v.num_hidden_layers,
            "num_attention_heads": v.num_attention_heads,
            "head_dim": v.head_dim,
            "intermediate_size": v.intermediate_size,
            "patch_size": v.patch_size,
            "image_size": v.image_size,
            "num_channels": v.num_channels,
            "hidden_act": "silu",
            "rope_theta": v.rope_theta,
        },
    }


def _open(path: Path, values: Any) -> _Fields:
    try:
        values = values if values is not None else json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, must be an object")
    return _Fields(values, f"{path.name}: ")


def _warn_unknown(path: Path, sections: Iterable[_Fields | None]) -> None:
    unknown = [key for section in sections if section is not None for key in section.unknown()]
    if unknown:
        warnings.warn(f"{path}: keys not known and not used: {', '.join(unknown)}", UserWarning, stacklevel=3)
