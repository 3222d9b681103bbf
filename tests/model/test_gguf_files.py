"""GGUF files as checkpoints: what the `gguf` package writes is read here, what is written here it reads; bad files."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from magister.kernels.quantized import Format, Quantized, dequantize
from magister.model import gguf_blocks, gguf_container, gguf_files, weights
from magister.model.cache import CachedAttention, KVCache, Span
from magister.model.config import DecoderConfig, ModelConfig
from magister.model.export import Type, write_gguf
from magister.model.network import Model, build, init_weights, native_parameters
from magister.model.quantize import Rule, quantize

# Width 64 and 6 heads of 16: no shape is right by accident.
CONFIG = ModelConfig(DecoderConfig(64, 2, 16, 96, 6, 2, 1e-5, 100, 1e9, 4096))
TIED = ModelConfig(replace(CONFIG.decoder, tied_embeddings=True, norm_eps=3e-6, rope_theta=12345.5))


def tensors(config: ModelConfig = CONFIG) -> dict[str, Tensor]:
    model = build(config)
    init_weights(model, seed=1)
    return {name: parameter.detach() for name, parameter in native_parameters(model)}


def written(
    path: Path,
    config: ModelConfig = CONFIG,
    *,
    asked: Type | None = None,
    keys: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    said = {**gguf_files.metadata(config, "tiny"), **keys}
    metadata = {key: value for key, value in said.items() if value is not None}
    write_gguf(path, config, tensors(config).items(), metadata, asked, lambda: None)
    return path


def by_the_package(path: Path, change: Callable[[gguf.GGUFWriter], None] | None = None) -> Path:
    """The same model by other hands."""
    d = CONFIG.decoder
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(d.n_layers)
    writer.add_context_length(d.max_position_embeddings)
    writer.add_embedding_length(d.dim)
    writer.add_feed_forward_length(d.hidden_dim)
    writer.add_head_count(d.n_heads)
    writer.add_head_count_kv(d.n_kv_heads)
    writer.add_key_length(d.head_dim)
    writer.add_value_length(d.head_dim)
    writer.add_layer_norm_rms_eps(d.norm_eps)
    writer.add_rope_freq_base(d.rope_theta)
    writer.add_token_list([f"t{n}" for n in range(d.vocab_size)])
    writer.add_token_scores([0.0] * d.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, d.n_layers)
    for native, value in tensors().items():
        stem = native.removesuffix(".weight")
        name = names.get_name(stem)
        assert name is not None, native
        writer.add_tensor(f"{name}.weight", value.numpy())
    if change is not None:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_packages_file_is_read(tmp_path: Path) -> None:
    path = by_the_package(tmp_path / "tiny.gguf")
    assert gguf_files.detect(path)
    assert gguf_files.read_config(path) == CONFIG
    found, wanted = dict(gguf_files.stream(path)), tensors()
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert isinstance(value, Tensor)
        assert torch.equal(value, wanted[name]), name


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
def test_the_package_reads_ours(config: ModelConfig, tmp_path: Path) -> None:
    more: dict[str, Any] = {"a.text": "ü", "a.flag": True, "a.texts": ["x", "", "yz"], "a.numbers": [3, -1]}
    reader = gguf.GGUFReader(written(tmp_path / "tiny.gguf", config, keys=more))
    for key, value in (gguf_files.metadata(config, "tiny") | more).items():
        field = reader.get_field(key)
        assert field is not None, key
        assert field.contents() == pytest.approx(value) if isinstance(value, float) else field.contents() == value
    wanted = tensors(config)
    assert len(reader.tensors) == len(wanted)
    for tensor in reader.tensors:
        name = next(native for native in wanted if gguf_files.to_gguf(native) == tensor.name)
        assert np.array_equal(tensor.data, wanted[name].numpy()), name
        assert tensor.data_offset % 32 == 0


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
def test_what_is_written_is_read(config: ModelConfig, tmp_path: Path) -> None:
    path = written(tmp_path / "tiny.gguf", config)
    assert gguf_files.read_config(path) == config
    for name, value in gguf_files.stream(path):
        assert isinstance(value, Tensor)
        assert torch.equal(value, tensors(config)[name]), name


@pytest.mark.parametrize("asked", list(Type))
def test_types(asked: Type, tmp_path: Path) -> None:
    path = written(tmp_path / "tiny.gguf", asked=asked)
    for record in gguf.GGUFReader(path).tensors:
        edge = asked is Type.Q4_0 and record.name in ("token_embd.weight", "output.weight")
        wanted = "F32" if len(record.shape) == 1 else "Q8_0" if edge else str(asked).upper()
        assert record.tensor_type.name == wanted, record.name
    steps = {Type.F32: 0.0, Type.F16: 2**-11, Type.BF16: 2**-8, Type.Q8_0: 1 / 127, Type.Q4_0: 1 / 7}
    for name, value in gguf_files.stream(path):
        found = dequantize(value) if isinstance(value, Quantized) else value.float()
        # Within a step of the largest number there is.
        assert (found - tensors()[name]).abs().max() <= steps[asked] * tensors()[name].abs().max(), name


def test_a_folder_with_one(tmp_path: Path) -> None:
    assert not gguf_files.detect(tmp_path)
    written(tmp_path / "tiny.gguf")
    (tmp_path / "mmproj-tiny.gguf").write_bytes(b"an image encoder, left alone")
    assert gguf_files.detect(tmp_path)
    assert gguf_files.read_config(tmp_path) == CONFIG
    written(tmp_path / "other.gguf")
    with pytest.raises(ValueError, match=r"2 GGUF files: other\.gguf, tiny\.gguf; name one"):
        gguf_files.read_config(tmp_path)


def split(folder: Path, cut: int, again: int) -> dict[str, Tensor]:
    """A file in two parts: the first `cut` tensors, and all from number `again` on."""
    whole = list(tensors().items())
    for number, part in enumerate((whole[:cut], whole[again:]), 1):
        path = folder / f"tiny-0000{number}-of-00002.gguf"
        shapes = {gguf_files.to_gguf(name): tuple(value.shape) for name, value in part}
        with gguf_container.Writer(path, gguf_files.metadata(CONFIG, "tiny") if number == 1 else {}, shapes) as writer:
            for name, value in part:
                writer.add(gguf_files.to_gguf(name), "F32", value.flatten().view(torch.uint8))
            writer.finish()
    return dict(whole)


def test_a_split_file(tmp_path: Path) -> None:
    whole = split(tmp_path, 5, 5)
    assert gguf_files.read_config(tmp_path) == CONFIG
    assert dict(gguf_files.stream(tmp_path / "tiny-00002-of-00002.gguf")).keys() == whole.keys()
    (tmp_path / "tiny-00002-of-00002.gguf").unlink()
    with pytest.raises(ValueError, match=r"1 missing parts: tiny-00002-of-00002\.gguf"):
        gguf_files.read_config(tmp_path)


def test_a_tensor_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    split(tmp_path, 5, 4)
    name = gguf_files.to_gguf(list(tensors())[4]).replace(".", r"\.")
    parts = r"tiny-00001-of-00002\.gguf and in tiny-00002-of-00002\.gguf"
    with pytest.raises(ValueError, match=rf"{name} is in {parts}"):
        gguf_files.read_config(tmp_path)
    path = written(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes().replace(b"blk.0.attn_k.weight", b"blk.0.attn_v.weight"))
    with pytest.raises(ValueError, match=r"tiny\.gguf: blk\.0\.attn_v\.weight is there twice"):
        gguf_files.read_config(path)


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes().replace(b"llama.attention.key_length", b"llama.attention.head_count"))
    with pytest.raises(ValueError, match=r"tiny\.gguf: llama\.attention\.head_count is there twice"):
        gguf_files.read_config(path)


def test_embeddings_without_dimensions_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    with gguf_container.Writer(path, gguf_files.metadata(CONFIG, "tiny"), {"token_embd.weight": ()}) as writer:
        writer.add("token_embd.weight", "F32", torch.zeros(4, dtype=torch.uint8))
        writer.finish()
    with pytest.raises(ValueError, match=r"token_embd\.weight has shape \[\], must have two dimensions"):
        gguf_files.read_config(path)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"general.architecture": "gemma3"}, "general.architecture is 'gemma3'; llama and mistral3 are read"),
        ({"llama.block_count": None}, r"llama\.block_count is missing"),
        ({"llama.block_count": "two"}, r"llama\.block_count is 'two', must be a whole number"),
        ({"llama.attention.layer_norm_rms_epsilon": None}, r"rms_epsilon is missing"),
        ({"llama.rope.scaling.type": "yarn"}, r"rope\.scaling\.type is 'yarn'"),
        ({"llama.rope.scaling.factor": 4.0}, r"rope\.scaling\.factor is 4\.0, must be 0 or 1"),
        ({"llama.rope.scale_linear": 2.0}, r"rope\.scale_linear is 2\.0, must be 0 or 1"),
        ({"llama.attention.sliding_window": 4096}, r"attention\.sliding_window is 4096"),
        ({"llama.expert_count": 8}, r"expert_count is 8; this network does not compute it"),
        ({"llama.attention.value_length": 8}, r"attention\.value_length is 8, must be the key length, 16"),
        ({"llama.attention.head_count_kv": [2, 3]}, r"head_count_kv is \[2, 3\], must be a whole number"),
        ({"llama.attention.head_count_kv": 4}, r"n_heads is 6, must be a multiple of 4"),
        ({"llama.attention.head_count": 0}, r"llama\.attention\.head_count is 0, must be greater than 0"),
        (
            {"llama.attention.head_count": 0, "llama.attention.key_length": None},
            r"llama\.attention\.head_count is 0, must be greater than 0",
        ),
        ({"llama.block_count": 3}, r"9 missing: blk\.2\.attn_k\.weight.*; 0 unexpected"),
        ({"llama.block_count": 1}, r"0 missing; 9 unexpected: blk\.1\."),
        ({"llama.feed_forward_length": 80}, r"blk\.0\.ffn_.* has shape .*, the description asks for"),
        ({"tokenizer.ggml.tokens": ["a", "b"]}, r"the tokenizer has 2 tokens, token_embd\.weight 100 rows"),
        ({"general.alignment": 0}, r"general\.alignment is 0"),
    ],
)
def test_what_is_not_computed_is_refused(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "tiny.gguf", keys=keys)
    with pytest.raises(ValueError, match=said):
        list(gguf_files.stream(path))


@pytest.mark.parametrize(
    "keys",
    [
        {"llama.rope.scaling.factor": 1.0, "llama.rope.scale_linear": 0.0},
        {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0},
    ],
    ids=["by one", "of no type"],
)
@pytest.mark.filterwarnings("error")
def test_factors_that_scale_nothing_are_read(keys: dict[str, Any], tmp_path: Path) -> None:
    assert gguf_files.read_config(written(tmp_path / "tiny.gguf", keys=keys)) == CONFIG


@pytest.mark.parametrize("head", ["Q8_0", "F16"])
def test_a_quantised_file_is_computed_in_one_dtype(head: str, tmp_path: Path) -> None:
    """Norms are float32 in the file, embeddings come restored, and the head may have been left in float16."""
    path, given = tmp_path / "tiny.gguf", tensors()
    shapes = {gguf_files.to_gguf(name): tuple(value.shape) for name, value in given.items()}
    with gguf_container.Writer(path, gguf_files.metadata(CONFIG, "tiny"), shapes) as writer:
        for name, value in given.items():
            kind = "F32" if value.dim() == 1 else head if name == "output.weight" else "Q8_0"
            kept = quantize(value, Rule(Format.INT8, 32, False)) if kind == "Q8_0" else value
            writer.add(gguf_files.to_gguf(name), kind, gguf_blocks.pack(kind, kept))
        writer.finish()
    loaded = weights.load(path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    got, wanted = through_a_cache(loaded), through_a_cache(weights.load(path, dtype=torch.float32))
    assert got.dtype is torch.bfloat16
    assert (got.float() - wanted).norm() < 0.03 * wanted.norm()


def through_a_cache(model: Model) -> Tensor:
    """Logits of ten tokens, in the model's own dtype."""
    cache = KVCache.allocate(CONFIG.decoder, 16, dtype=model.decoder.tok_embeddings.weight.dtype)
    ids_t = torch.arange(10)
    with torch.inference_mode():
        hidden_td = model(ids_t, ids_t, CachedAttention(cache, [Span(torch.arange(16), 0, 10)]))
        return model.logits(hidden_td)


def test_numbers_a_layer_and_unknown_keys(tmp_path: Path) -> None:
    path = written(tmp_path / "tiny.gguf", keys={"llama.attention.head_count_kv": [2, 2], "llama.wings": 2})
    with pytest.warns(UserWarning, match=r"keys not known and not used: llama\.wings"):
        assert gguf_files.read_config(path) == CONFIG


def test_a_kind_that_is_not_read_is_named_before_anything_is(tmp_path: Path) -> None:
    path = written(tmp_path / "tiny.gguf")
    data = bytearray(path.read_bytes())
    at = data.index(b"output.weight") + len("output.weight") + 4 + 16
    assert struct.unpack_from("<I", data, at) == (0,)
    for number, said in ((1 << 20, "of kind type 1048576, which is not read"), (39, "MXFP4"), (13, "multiple of 256")):
        struct.pack_into("<I", data, at, number)
        path.write_bytes(data)
        with pytest.raises(ValueError, match=said):
            next(gguf_files.stream(path))


def test_cut_short_and_damaged(tmp_path: Path) -> None:
    path = written(tmp_path / "tiny.gguf", keys={"a.texts": ["x"] * 9})
    whole = path.read_bytes()
    header = whole.index(b"output.weight")
    for kept in [0, 3, 4, 8, 23, 24, *range(40, header, 97), header, len(whole) // 2, len(whole) - 200]:
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"tiny\.gguf is (cut short|no GGUF file|not a whole GGUF file)"):
            list(gguf_files.stream(path))
    for at, byte in ((4, 1), (7, 3), (8, 255), (16, 255), (24, 255)):
        path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=r"tiny\.gguf"):
            list(gguf_files.stream(path))


def test_a_long_vocabulary_is_counted_not_read(tmp_path: Path) -> None:
    path = by_the_package(tmp_path / "tiny.gguf")
    opened = gguf_container.read(path)
    assert opened.metadata["tokenizer.ggml.tokens"] == gguf_container.Counted(length=100)
    assert opened.metadata["tokenizer.ggml.scores"] == [0.0] * 100


def test_names_of_the_image_network_are_unknown() -> None:
    with pytest.raises(KeyError):
        gguf_files.to_gguf("vision_encoder.transformer.layers.0.attention.wq.weight")
