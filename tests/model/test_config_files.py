"""What a checkpoint's description may say: read, defaulted, warned about, refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from magister.model.config import MAGISTRAL_SMALL, DecoderConfig, ModelConfig
from magister.model.config_files import config_json, params_json, read_config_json, read_params_json

TEXT_ONLY = ModelConfig(MAGISTRAL_SMALL.decoder)


def _written(folder: Path, content: Any) -> Path:
    path = folder / "description.json"
    path.write_text(json.dumps(content))
    return path


def _changed(content: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    *sections, key = dotted.split(".")
    target = content
    for section in sections:
        target = target[section]
    target[key] = value
    return content


@pytest.mark.parametrize("config", [MAGISTRAL_SMALL, TEXT_ONLY])
def test_what_is_written_is_read_back(config: ModelConfig, tmp_path: Path) -> None:
    assert read_params_json(_written(tmp_path, params_json(config))) == config
    assert read_config_json(_written(tmp_path, config_json(config, "bfloat16"))) == config


def test_native_defaults(tmp_path: Path) -> None:
    content = params_json(MAGISTRAL_SMALL)
    for key in ("rope_theta", "max_position_embeddings", "tied_embeddings"):
        del content[key]
    for key in ("image_break_token_id", "spatial_merge_size", "adapter_bias", "mm_projector_id", "max_image_size"):
        del content["vision_encoder"][key]
    config = read_params_json(_written(tmp_path, content))
    assert config.decoder.rope_theta == 1e6
    assert config.decoder.max_position_embeddings == 128_000
    assert config.decoder.tied_embeddings is False
    assert config.vision is not None
    assert config.vision.image_break_token_id == 12
    assert config.vision.spatial_merge_size == 1
    assert config.vision.has_patch_merger is False
    assert config.vision.adapter_bias is True
    assert config.vision.max_image_size == 1540


def test_older_name_of_the_context_length(tmp_path: Path) -> None:
    content = params_json(TEXT_ONLY) | {"max_seq_len": 40_960, "max_position_embeddings": None}
    assert read_params_json(_written(tmp_path, content)).decoder.max_position_embeddings == 40_960


def test_rope_theta_in_rope_parameters(tmp_path: Path) -> None:
    content = config_json(MAGISTRAL_SMALL, "bfloat16")
    for section, kind in (("text_config", "default"), ("vision_config", "axial")):
        theta = content[section].pop("rope_theta")
        content[section]["rope_parameters"] = {"rope_type": kind, "rope_theta": theta}
    assert read_config_json(_written(tmp_path, content)) == MAGISTRAL_SMALL


def test_head_dim_defaults_to_a_share_of_the_width(tmp_path: Path) -> None:
    content = config_json(TEXT_ONLY, "bfloat16")
    del content["head_dim"]
    assert read_config_json(_written(tmp_path, content)).decoder.head_dim == 5120 // 32


def test_unknown_keys_are_listed_in_one_warning(tmp_path: Path) -> None:
    content = params_json(MAGISTRAL_SMALL) | {"colour": "red", "taste": None}
    content["vision_encoder"]["sound"] = 3
    with pytest.warns(UserWarning, match=r"not known and not used: .*: colour, .*: vision_encoder\.sound$") as caught:
        assert read_params_json(_written(tmp_path, content)) == MAGISTRAL_SMALL
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("yarn", {"factor": 4}),
        ("moe", {"num_experts": 8}),
        ("llama_4_scaling", {"beta": 0.1}),
        ("sliding_window", 4096),
        ("quantization", {"qformat_weight": "fp8_e4m3"}),
        ("vision_encoder.hidden_act", "gelu"),
        ("vision_encoder.mm_projector_id", "other"),
    ],
)
def test_native_keys_that_change_the_arithmetic(key: str, value: Any, tmp_path: Path) -> None:
    path = _written(tmp_path, _changed(params_json(MAGISTRAL_SMALL), key, value))
    with pytest.raises(ValueError, match=rf"{key} is .*this network"):
        read_params_json(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantization_config", {"quant_method": "fp8"}),
        ("text_config.sliding_window", 4096),
        ("text_config.rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("text_config.rope_scaling", {"type": "linear", "factor": 4.0}),
        ("text_config.rope_parameters", {"rope_type": "llama3", "rope_theta": 1e6}),
        ("text_config.rope_parameters", {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5}),
        ("text_config.attention_bias", True),
        ("text_config.hidden_act", "gelu"),
        ("text_config.layer_types", ["sliding_attention"]),
        ("vision_config.hidden_act", "gelu"),
        ("vision_config.head_dim", 32),
        ("projector_hidden_act", "relu"),
        ("vision_feature_layer", -2),
        ("model_type", "mixtral"),
    ],
)
def test_hugging_face_keys_that_change_the_arithmetic(key: str, value: Any, tmp_path: Path) -> None:
    path = _written(tmp_path, _changed(config_json(MAGISTRAL_SMALL, "bfloat16"), key, value))
    with pytest.raises(ValueError, match=rf"{key}.* is .*this network"):
        read_config_json(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dim", None, "dim is missing"),
        ("n_layers", "40", "n_layers is '40', must be an integer"),
        ("n_layers", True, "n_layers is True, must be an integer"),
        ("n_layers", 0, "n_layers is 0, must be greater than 0"),
        ("tied_embeddings", 1, "tied_embeddings is 1, must be true or false"),
        ("n_kv_heads", 5, r"n_heads is 32, must be a multiple of 5 \(n_kv_heads\)"),
        ("head_dim", 127, r"head_dim is 127, must be a multiple of 2"),
        ("vision_encoder", [], r"vision_encoder is \[\], must be an object"),
    ],
)
def test_impossible_values_are_named(key: str, value: Any, message: str, tmp_path: Path) -> None:
    path = _written(tmp_path, params_json(MAGISTRAL_SMALL) | {key: value})
    with pytest.raises(ValueError, match=message):
        read_params_json(path)


@pytest.mark.parametrize("head_dim", [128, None])
@pytest.mark.parametrize("heads", [0, -32])
def test_a_number_of_heads_that_divides_nothing_is_named(heads: int, head_dim: int | None, tmp_path: Path) -> None:
    changes = {"num_attention_heads": heads, "head_dim": head_dim}
    path = _written(tmp_path, config_json(TEXT_ONLY, "bfloat16") | changes)
    with pytest.raises(ValueError, match=rf"num_attention_heads is {heads}, must be greater than 0"):
        read_config_json(path)


def test_layer_types_that_are_no_list_are_named(tmp_path: Path) -> None:
    path = _written(tmp_path, config_json(TEXT_ONLY, "bfloat16") | {"layer_types": 5})
    with pytest.raises(ValueError, match="layer_types is 5; this network computes only 'full_attention'"):
        read_config_json(path)


def test_files_that_are_not_objects(tmp_path: Path) -> None:
    path = _written(tmp_path, [])
    with pytest.raises(ValueError, match="holds a list, must be an object"):
        read_params_json(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        read_params_json(path)


def test_config_json_cannot_say_everything() -> None:
    assert MAGISTRAL_SMALL.vision is not None
    plain = replace(MAGISTRAL_SMALL, vision=replace(MAGISTRAL_SMALL.vision, spatial_merge_size=1))
    with pytest.raises(ValueError, match="spatial_merge_size is 1"):
        config_json(plain, "bfloat16")


def test_magistral_small_is_what_the_facts_sheet_says() -> None:
    d = MAGISTRAL_SMALL.decoder
    assert d == DecoderConfig(5120, 40, 128, 32768, 32, 8, 1e-5, 131072, 1e9, 131072, tied_embeddings=False)
    assert d.n_heads * d.head_dim == 4096
