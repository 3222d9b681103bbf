"""Checkpoints: both layouts and spellings, shards, what may be wrong with them, and how much memory they take."""

import errno
import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from magister.model import atomic, expected, names, permute, weights
from magister.model.config import DecoderConfig, ModelConfig, VisionConfig
from magister.model.network import Model, build, init_weights, native_parameters

TEXT = ModelConfig(DecoderConfig(64, 2, 16, 96, 6, 2, 1e-5, 100, 1e9, 4096))
WITH_VISION = replace(TEXT, vision=VisionConfig(32, 2, 2, 48, 4, 64, max_image_size=64))
TIED = replace(TEXT, decoder=replace(TEXT.decoder, tied_embeddings=True))


def _model(config: ModelConfig = WITH_VISION) -> Model:
    model = build(config)
    init_weights(model, seed=1)
    return model


def _same(one: Model, other: Model) -> bool:
    values = dict(native_parameters(other))
    return (
        one.config == other.config
        and all(torch.equal(p, values.pop(n)) for n, p in native_parameters(one))
        and not values
    )


def _rewrite(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(path)), path)


@pytest.mark.parametrize("config", [TEXT, WITH_VISION, TIED], ids=["text", "vision", "tied"])
@pytest.mark.parametrize("save", [weights.save_native, weights.save_hf])
def test_what_is_saved_is_loaded(config: ModelConfig, save: Callable[[Model, Path], None], tmp_path: Path) -> None:
    model = _model(config)
    save(model, tmp_path / "new" / "folder")
    loaded = weights.load(tmp_path / "new" / "folder")
    assert _same(loaded, model)
    assert not loaded.training
    assert weights.read_config(tmp_path / "new" / "folder") == config


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_types(dtype: torch.dtype, tmp_path: Path) -> None:
    model = _model(TEXT)
    weights.save_native(model, tmp_path, dtype)
    as_stored, as_asked = weights.load(tmp_path), weights.load(tmp_path, dtype=torch.float32)
    for (name, value), (_, stored), (_, asked) in zip(
        *map(native_parameters, (model, as_stored, as_asked)), strict=True
    ):
        assert stored.dtype == dtype, name
        assert torch.equal(stored, value.to(dtype)), name
        assert torch.equal(asked, value.to(dtype).float()), name


def test_saving_replaces_whole_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    weights.save_native(_model(TEXT), tmp_path)
    first = (tmp_path / "consolidated.safetensors").stat().st_ino
    weights.save_native(_model(TEXT), tmp_path)
    assert (tmp_path / "consolidated.safetensors").stat().st_ino != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["consolidated.safetensors", "params.json"]


def test_saved_files_are_those_of_safetensors_itself(tmp_path: Path) -> None:
    model = _model(TEXT)
    weights.save_native(model, tmp_path)
    save_file({name: p.detach() for name, p in native_parameters(model)}, tmp_path / "own", metadata={"format": "pt"})
    assert (tmp_path / "consolidated.safetensors").read_bytes() == (tmp_path / "own").read_bytes()
    (tmp_path / "any").touch()
    assert len({(tmp_path / name).stat().st_mode for name in ("any", "params.json", "consolidated.safetensors")}) == 1


@contextmanager
def _room(size: int) -> Iterator[None]:
    """No file may grow past `size`, as where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
@pytest.mark.parametrize(("save", "stem"), [(weights.save_native, "consolidated"), (weights.save_hf, "model")])
def test_a_full_disk_is_named_and_both_files_stay(
    save: Callable[[Model, Path], None], stem: str, tmp_path: Path
) -> None:
    model, other = _model(TEXT), build(replace(TEXT, decoder=replace(TEXT.decoder, rope_theta=3e6)))
    init_weights(other, seed=2)
    save(model, tmp_path)
    size = (tmp_path / f"{stem}.safetensors").stat().st_size
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with _room(50_000), pytest.raises(OSError, match=rf"{stem}\.safetensors needs {size:,} bytes, [\d,]+ are free"):
        save(other, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_description_that_cannot_be_written_leaves_the_weights_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.save_native(_model(TEXT), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    flushed: list[Path] = []

    def flush(path: Path) -> None:
        flushed.append(path)
        if len(flushed) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "flush", flush)
    other = build(TEXT)
    init_weights(other, seed=2)
    with pytest.raises(OSError, match=r"params\.json needs [\d,]+ bytes, .*No space left"):
        weights.save_native(other, tmp_path)
    assert "params.json" in flushed[1].name
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_loaded_model_does_not_hang_on_its_file(tmp_path: Path) -> None:
    model = _model(TEXT)
    weights.save_native(model, tmp_path)
    loaded = weights.load(tmp_path)
    with (tmp_path / "consolidated.safetensors").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 65536)
    assert _same(loaded, model)


def _newer(name: str) -> str:
    if name.startswith("language_model.model."):
        return "model.language_model." + name.removeprefix("language_model.model.")
    return name.removeprefix("language_model.") if "lm_head" in name else f"model.{name}"


def test_both_hugging_face_spellings(tmp_path: Path) -> None:
    model = _model()
    weights.save_hf(model, tmp_path)
    _rewrite(tmp_path / "model.safetensors", lambda tensors: {_newer(n): t for n, t in tensors.items()})
    stored = load_file(tmp_path / "model.safetensors")
    assert {"model.language_model.embed_tokens.weight", "lm_head.weight", "model.vision_tower.ln_pre.weight"} <= set(
        stored
    )
    assert _same(weights.load(tmp_path), model)


def _split(folder: Path, stem: str, index: bool) -> None:
    tensors = sorted(load_file(folder / f"{stem}.safetensors").items())
    (folder / f"{stem}.safetensors").unlink()
    files = {f"{stem}-0000{n + 1}-of-00003.safetensors": dict(tensors[n::3]) for n in range(3)}
    for file, part in files.items():
        save_file(part, folder / file)
    if index:
        weight_map = {name: file for file, part in files.items() for name in part}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize(("save", "stem"), [(weights.save_native, "consolidated"), (weights.save_hf, "model")])
def test_shards(save: Callable[[Model, Path], None], stem: str, index: bool, tmp_path: Path) -> None:
    model = _model()
    save(model, tmp_path)
    _split(tmp_path, stem, index)
    assert _same(weights.load(tmp_path), model)
    (tmp_path / f"{stem}-00002-of-00003.safetensors").unlink()
    with pytest.raises(ValueError, match=r"1 missing shards: .*2"):
        weights.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "weight_map is missing or no object"),
        ("{}", "weight_map is missing or no object"),
        ('{"weight_map": {"norm.weight": 3}}', "weight_map is missing or no object of file names"),
    ],
)
def test_what_is_no_index_is_refused_by_name(text: str, said: str, tmp_path: Path) -> None:
    weights.save_hf(_model(TEXT), tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=rf"model\.safetensors\.index\.json:? {said}"):
        weights.load(tmp_path)


def test_a_folder_with_both_layouts_is_native(tmp_path: Path) -> None:
    native, other = _model(TEXT), build(TEXT)
    init_weights(other, seed=2)
    weights.save_hf(other, tmp_path)
    assert _same(weights.load(tmp_path), other)
    weights.save_native(native, tmp_path)
    assert _same(weights.load(tmp_path), native)


def test_no_checkpoint(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="is no checkpoint"):
            weights.load(folder)
    weights.save_native(_model(TEXT), tmp_path)
    (tmp_path / "params.json").unlink()
    with pytest.raises(ValueError, match="is no checkpoint"):
        weights.load(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 300, 100_000])
def test_a_truncated_shard(kept: int, tmp_path: Path) -> None:
    weights.save_native(_model(TEXT), tmp_path)
    path = tmp_path / "consolidated.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"consolidated\.safetensors is not a whole safetensors file"):
        weights.load(tmp_path)


def test_a_wrong_shape_names_both_shapes(tmp_path: Path) -> None:
    weights.save_native(_model(TEXT), tmp_path)
    name = "layers.1.attention.wk.weight"
    _rewrite(tmp_path / "consolidated.safetensors", lambda tensors: tensors | {name: torch.zeros(64, 64)})
    with pytest.raises(ValueError, match=rf"{name} has shape \[64, 64\], the description asks for \[32, 64\]"):
        weights.load(tmp_path)


@pytest.mark.parametrize("wrong", [(33, 64), (64, 64), (32,)])
def test_a_wrong_shape_of_keys_names_both_shapes_in_the_other_layout_too(
    wrong: tuple[int, ...], tmp_path: Path
) -> None:
    weights.save_hf(_model(TEXT), tmp_path)
    stored = next(name for name in load_file(tmp_path / "model.safetensors") if "layers.1" in name and "k_proj" in name)
    _rewrite(tmp_path / "model.safetensors", lambda tensors: tensors | {stored: torch.zeros(wrong)})
    shape = re.escape(str(list(wrong)))
    with pytest.raises(ValueError, match=rf"wk\.weight has shape {shape}, the description asks for \[32, 64\]"):
        weights.load(tmp_path)


def test_missing_and_unexpected_tensors_are_listed(tmp_path: Path) -> None:
    weights.save_native(_model(TEXT), tmp_path)

    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors["layers.0.extra.weight"] = tensors.pop("norm.weight")
        return tensors

    _rewrite(tmp_path / "consolidated.safetensors", change)
    with pytest.raises(ValueError, match=r"1 missing: norm\.weight; 1 unexpected: layers\.0\.extra\.weight"):
        weights.load(tmp_path)


def test_of_many_names_twenty_are_shown() -> None:
    assert expected.listed("missing", []) == "0 missing"
    assert expected.listed("missing", map(str, range(20))).endswith(", 18, 19")
    assert expected.listed("missing", map(str, range(23))) == f"23 missing: {', '.join(map(str, range(20)))} and 3 more"


def test_integers_are_refused(tmp_path: Path) -> None:
    weights.save_native(_model(TEXT), tmp_path)
    integers = {"norm.weight": torch.ones(64, dtype=torch.int8)}
    _rewrite(tmp_path / "consolidated.safetensors", lambda tensors: tensors | integers)
    with pytest.raises(ValueError, match=r"norm\.weight is stored as torch\.int8"):
        weights.load(tmp_path)
    with pytest.raises(ValueError, match=r"dtype is torch\.float64"):
        weights.load(tmp_path, dtype=torch.float64)


def test_names_and_rows_go_there_and_back() -> None:
    for native, parameter in native_parameters(build(WITH_VISION)):
        spelled = {names.plain_hf(names.to_hf(native, multimodal)) for multimodal in (True, False)}
        assert len(spelled) == 1, native
        if names.is_query_or_key(native):
            weight = torch.randn(parameter.shape)
            assert torch.equal(permute.hf_to_native(permute.native_to_hf(weight, 16), 16), weight)
            assert names.head_dim(native, WITH_VISION) == 16
    wide = replace(WITH_VISION, vision=VisionConfig(32, 2, 4, 48, 4, 64))
    assert names.head_dim("vision_encoder.transformer.layers.0.attention.wq.weight", wide) == 8
    assert names.head_dim("layers.0.attention.wq.weight", wide) == 16
    with pytest.raises(KeyError):
        names.to_hf("layers.0.router.weight", multimodal=False)


def test_the_worked_example_of_permute() -> None:
    native = torch.tensor([[0.0], [0.5], [1.0], [1.5], [2.0], [2.5]])
    assert permute.native_to_hf(native, 6).flatten().tolist() == [0.0, 1.0, 2.0, 0.5, 1.5, 2.5]


PEAK = """
import sys
from magister.model import weights

def kilobytes(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))

weights.load(sys.argv[2])  # whatever loading imports is not the model's
before = kilobytes("VmRSS:")
model = weights.load(sys.argv[1])
size = sum(p.numel() * p.element_size() for p in model.parameters())
print((kilobytes("VmHWM:") - before) * 1024 / size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("save", [weights.save_native, weights.save_hf])
def test_loading_takes_little_more_memory_than_the_model(save: Callable[[Model, Path], None], tmp_path: Path) -> None:
    # 16 equal layers and 67 MB, so that one tensor is little beside the whole.
    save(_model(ModelConfig(DecoderConfig(256, 16, 32, 1024, 8, 2, 1e-5, 256, 1e9, 4096))), tmp_path / "large")
    weights.save_native(_model(TEXT), tmp_path / "small")
    command = [sys.executable, "-c", PEAK, str(tmp_path / "large"), str(tmp_path / "small")]
    source = str(Path(weights.__file__).parents[2])
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": source, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "large")
    assert float(done.stdout) < 1.2
