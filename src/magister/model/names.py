"""The two spellings of every tensor's name, native checkpoints' and Hugging Face's, and whose a tensor is.

Knows no tensors; the order of rows inside query and key weights is `permute`'s. Source:
transformers:models/mistral3/convert_mistral3_weights_to_hf.py.
"""

import re

from magister.model.config import ModelConfig

_LAYER = {
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}
_VISION_LAYER = {
    "attention_norm": "attention_norm",
    "ffn_norm": "ffn_norm",
    "attention.wq": "attention.q_proj",
    "attention.wk": "attention.k_proj",
    "attention.wv": "attention.v_proj",
    "attention.wo": "attention.o_proj",
    "feed_forward.w1": "feed_forward.gate_proj",
    "feed_forward.w2": "feed_forward.down_proj",
    "feed_forward.w3": "feed_forward.up_proj",
}
_TOP = {
    "tok_embeddings": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
}
_VISION_TOP = {
    "vision_encoder.patch_conv": "vision_tower.patch_conv",
    "vision_encoder.ln_pre": "vision_tower.ln_pre",
    "pre_mm_projector_norm": "multi_modal_projector.norm",
    "patch_merger.merging_layer": "multi_modal_projector.patch_merger.merging_layer",
    "vision_language_adapter.w_in": "multi_modal_projector.linear_1",
    "vision_language_adapter.w_out": "multi_modal_projector.linear_2",
}
_NATIVE_LAYER = re.compile(r"(vision_encoder\.transformer\.)?layers\.(\d+)\.(.+)")
_QUERY_OR_KEY = re.compile(r"attention\.w[qk]\.weight$")
_VISION_PARTS = ("vision_tower.", "multi_modal_projector.")


def to_hf(native: str, multimodal: bool) -> str:
    """The published Hugging Face name of a native tensor; `multimodal` picks the prefix of the text tensors.

    KeyError for a name that no checkpoint of this family has.
    """
    stem, _, kind = native.rpartition(".")
    prefix = "language_model." if multimodal else ""
    if stem in _TOP:
        return f"{prefix}{_TOP[stem]}.{kind}"
    if stem in _VISION_TOP:
        return f"{_VISION_TOP[stem]}.{kind}"
    layer = _NATIVE_LAYER.fullmatch(stem)
    if layer is None:
        raise KeyError(native)
    in_vision, index, part = layer.groups()
    if in_vision:
        return f"vision_tower.transformer.layers.{index}.{_VISION_LAYER[part]}.{kind}"
    return f"{prefix}model.layers.{index}.{_LAYER[part]}.{kind}"


def plain_hf(stored: str) -> str:
    """One spelling for all Hugging Face ones: that of a text-only file for text, no prefix for vision and projector.

    `language_model.model.X`, `model.language_model.X` and `model.X` are `model.X`; `language_model.lm_head.X` and
    `lm_head.X` are `lm_head.X`; `model.vision_tower.X` and `vision_tower.X` are `vision_tower.X`.
    """
    if stored.startswith("model.language_model."):
        return "model." + stored.removeprefix("model.language_model.")
    if stored.startswith("model.") and stored.removeprefix("model.").startswith(_VISION_PARTS):
        return stored.removeprefix("model.")
    return stored.removeprefix("language_model.")


def is_query_or_key(native: str) -> bool:
    """True for the weights whose rows `permute` moves."""
    return _QUERY_OR_KEY.search(native) is not None


def head_dim(native: str, config: ModelConfig) -> int:
    """Width of one head of the network that the tensor belongs to, of images or of text."""
    if config.vision is not None and native.startswith("vision_encoder."):
        return config.vision.head_dim
    return config.decoder.head_dim
