"""`magister export`: others load what it writes and compute the same; nothing is overwritten, nothing half is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import gguf
import pytest
import torch
import transformers
from torch import Tensor

from magister.cli import export
from magister.cli.main import app
from magister.kernels.quantized import Quantized, dequantize
from magister.model import weights
from magister.model.attention import CausalAttention
from magister.model.config import DecoderConfig, ModelConfig, VisionConfig
from magister.model.network import Model, build, native_parameters, set_parameter
from magister.model.quantize import Plan
from magister.model.quantized_files import Writer
from magister.text.tokenizer import TekkenPlan, load_tokenizer, tekken, write_tekken

PLAN = TekkenPlan(ranks=300, specials=64)
TEXT = ModelConfig(DecoderConfig(64, 2, 16, 96, 6, 2, 1e-5, 364, 1e6, 4096))
WITH_VISION = replace(TEXT, vision=VisionConfig(32, 2, 2, 48, 4, 64, max_image_size=64))
TIED = replace(TEXT, decoder=replace(TEXT.decoder, tied_embeddings=True))


@cache
def vocabulary() -> str:
    """The Tekken file, made once: it takes a second."""
    return json.dumps(tekken(PLAN))


def random_model(config: ModelConfig) -> Model:
    """Weights large enough that attention is not uniform and every norm matters."""
    model, generator = build(config), torch.Generator().manual_seed(7)
    for name, parameter in list(native_parameters(model)):
        value = torch.randn(parameter.shape, generator=generator)
        scale = 2.0 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.2
        set_parameter(model, name, value * scale + (0.0 if parameter.dim() > 1 else 1.0))
    return model.eval()


def checkpoint(folder: Path, config: ModelConfig = TEXT, dtype: torch.dtype = torch.float32) -> Path:
    weights.save_native(random_model(config), folder, dtype)
    (folder / "tekken.json").write_text(vocabulary())
    (folder / "magister.json").write_text('{"name": "tiny", "system_prompt": ""}')
    return folder


def quantized(folder: Path, plan: Plan, config: ModelConfig = TEXT) -> Path:
    writer = Writer(folder, config, plan, "random")
    for name, parameter in native_parameters(random_model(config)):
        writer.add(name, parameter.detach())
    (folder / "tekken.json").write_text(vocabulary())
    writer.finish()
    return folder


def numbers(path: Path) -> dict[str, Tensor]:
    return {name: dequantize(v) if isinstance(v, Quantized) else v.clone() for name, v in weights.stream(path)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def logits(model: Model, ids_t: Tensor) -> Tensor:
    with torch.inference_mode():
        return model.logits(model(ids_t, torch.arange(len(ids_t)), CausalAttention()))


def theirs(folder: Path, ids_t: Tensor) -> Tensor:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.filterwarnings("ignore", module=r"(transformers|huggingface_hub)\.")
        kind = json.loads((folder / "config.json").read_text())["architectures"][0]
        model = getattr(transformers, kind).from_pretrained(folder)
        found: Tensor = model(ids_t[None]).logits[0]
        return found


@pytest.mark.parametrize("config", [TEXT, WITH_VISION, TIED], ids=["text", "vision", "tied"])
@pytest.mark.parametrize("layout", ["hf", "native"])
def test_folders_come_back_as_they_were(config: ModelConfig, layout: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", config)
    assert export.run(str(source), tmp_path / "made", layout, None) == 0
    assert same(numbers(tmp_path / "made"), numbers(source))
    assert weights.read_config(tmp_path / "made") == config
    beside = {"magister.json", "tekken.json"}
    weight = {"model.safetensors", "config.json", "generation_config.json"}
    own = weight if layout == "hf" else {"consolidated.safetensors", "params.json"}
    assert {path.name for path in (tmp_path / "made").iterdir()} == beside | own
    assert {path.name for path in tmp_path.iterdir()} == {"source", "made"}


@pytest.mark.parametrize("config", [TEXT, WITH_VISION, TIED], ids=["text", "vision", "tied"])
def test_transformers_computes_the_same(config: ModelConfig, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", config)
    export.run(str(source), tmp_path / "made", "hf", None)
    ids_t = torch.arange(20, 50)
    wanted_tv = logits(weights.load(source), ids_t)
    assert (theirs(tmp_path / "made", ids_t) - wanted_tv).norm() / wanted_tv.norm() < 1e-4
    assert transformers.GenerationConfig.from_pretrained(tmp_path / "made").eos_token_id == 2


@pytest.mark.parametrize(("asked", "dtype"), [("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_types_of_folders(asked: str, dtype: torch.dtype, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    export.run(str(source), tmp_path / "made", "hf", asked)
    wanted = {name: value.to(dtype) for name, value in numbers(source).items()}
    assert same(numbers(tmp_path / "made"), wanted)
    said = json.loads((tmp_path / "made" / "config.json").read_text())["torch_dtype"]
    assert said == str(dtype).removeprefix("torch.")


def test_a_gguf_says_what_a_runner_needs(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", WITH_VISION)
    export.run(str(source), tmp_path / "tiny.gguf", "gguf", None)
    decoder = {name: v for name, v in numbers(source).items() if name in dict(build(TEXT).decoder.named_parameters())}
    assert same(numbers(tmp_path / "tiny.gguf"), decoder)
    reader, made = gguf.GGUFReader(tmp_path / "tiny.gguf"), load_tokenizer(source / "tekken.json")
    said = {name: field.contents() for name, field in reader.fields.items()}
    assert said["general.architecture"] == "llama"
    assert said["general.name"] == "tiny"
    assert (said["tokenizer.ggml.model"], said["tokenizer.ggml.pre"]) == ("gpt2", "tekken")
    assert len(said["tokenizer.ggml.tokens"]) == len(said["tokenizer.ggml.token_type"]) == made.size
    assert said["tokenizer.ggml.tokens"][34] == "[THINK]"
    assert (said["tokenizer.ggml.bos_token_id"], said["tokenizer.ggml.eos_token_id"]) == (
        made.id("<s>"),
        made.id("</s>"),
    )
    assert said["tokenizer.ggml.add_bos_token"] is True
    assert "[INST]" in said["tokenizer.chat_template"]


@pytest.mark.parametrize(
    ("plan", "kinds"),
    [
        (Plan(bits=4, group=32, head_bits=8), {"Q4_0", "Q8_0", "F32"}),
        (Plan(bits=4, group=32, head_bits=4), {"Q4_0", "F32"}),
        (Plan(bits=4, group=32, minimum=True), {"Q4_1", "Q8_0", "F32"}),
        (Plan(bits=8, group=32), {"Q8_0", "F32"}),
    ],
)
def test_quantised_matrices_go_into_a_gguf_as_they_are(plan: Plan, kinds: set[str], tmp_path: Path) -> None:
    source = quantized(tmp_path / "source", plan)
    export.run(str(source), tmp_path / "tiny.gguf", "gguf", None)
    assert same(numbers(tmp_path / "tiny.gguf"), numbers(source))
    assert {tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "tiny.gguf").tensors} == kinds


@pytest.mark.parametrize("layout", ["hf", "native"])
def test_quantised_matrices_become_plain_ones(layout: str, tmp_path: Path) -> None:
    source = quantized(tmp_path / "source", Plan(group=16, minimum=True))
    export.run(str(source), tmp_path / "made", layout, None)
    found = numbers(tmp_path / "made")
    for name, value in weights.stream(source):
        wanted = dequantize(value, torch.bfloat16) if isinstance(value, Quantized) else value
        assert torch.equal(found[name], wanted), name


def test_a_gguf_and_its_folder_are_sources_too(tmp_path: Path) -> None:
    checkpoint(tmp_path / "source")
    (tmp_path / "middle").mkdir()
    export.run(str(tmp_path / "source"), tmp_path / "middle" / "tiny.gguf", "gguf", "q8_0")
    (tmp_path / "source" / "tekken.json").rename(tmp_path / "middle" / "tekken.json")
    export.run(str(tmp_path / "middle" / "tiny.gguf"), tmp_path / "again.gguf", "gguf", None)
    assert same(numbers(tmp_path / "again.gguf"), numbers(tmp_path / "middle"))
    export.run(str(tmp_path / "middle"), tmp_path / "made", "native", "f32")
    assert same(numbers(tmp_path / "made"), numbers(tmp_path / "middle"))
    assert (tmp_path / "made" / "tekken.json").is_file()


def test_what_cannot_be_is_refused_with_what_can(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    narrow = quantized(tmp_path / "narrow", Plan(group=16, head_bits=16))
    odd = checkpoint(tmp_path / "odd", replace(TEXT, decoder=replace(TEXT.decoder, dim=48)))
    (odd / "again").mkdir()
    for path, made, layout, asked, said in (
        (source, "source", "native", None, "source is there already"),
        (odd, "tiny.gguf", "gguf", "q8_0", r"has rows of 48, q8_0 asks for a multiple of 32"),
        (narrow, "tiny.gguf", "gguf", None, "int4 in groups of 16, which no GGUF kind holds exactly: --type bf16"),
        (narrow, "tiny.gguf", "gguf", "q4_0", "quantised already and is not quantised twice"),
        (odd / "again", "made", "hf", None, "is no checkpoint"),
    ):
        with pytest.raises(ValueError, match=said):
            export.run(str(path), tmp_path / made, layout, asked)
    export.run(str(narrow), tmp_path / "plain.gguf", "gguf", "bf16")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "narrow", "odd", "plain.gguf"}


@pytest.mark.parametrize(
    ("made", "layout", "asked", "said"),
    [
        ("tiny", "gguf", None, "the name of a GGUF file ends in .gguf"),
        ("made", "hf", "q4_0", "--type q4_0 is for --layout gguf; hf takes f32, f16, bf16"),
    ],
)
def test_what_was_typed_wrongly_is_wrong_usage(
    made: str, layout: str, asked: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = checkpoint(tmp_path / "source")
    assert export.run(str(source), tmp_path / made, layout, asked) == 2
    told = capsys.readouterr().err
    assert told.startswith("magister export: ")
    assert told.endswith(f"{said}\n")
    assert not (tmp_path / made).exists()


def test_a_tokenizer_of_another_size_is_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    write_tekken(source / "tekken.json", TekkenPlan(ranks=301, specials=64))
    with pytest.raises(ValueError, match="365 tokens do not fit 364 rows of embeddings"):
        export.run(str(source), tmp_path / "tiny.gguf", "gguf", None)
    (source / "tekken.json").unlink()
    with pytest.raises(ValueError, match="364 tokens is not Magistral's 131072"):
        export.run(str(source), tmp_path / "tiny.gguf", "gguf", None)


def test_a_missing_tensor_leaves_nothing(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    params = json.loads((source / "params.json").read_text())
    (source / "params.json").write_text(json.dumps(params | {"n_layers": 3}))
    for made, layout in (("made", "hf"), ("tiny.gguf", "gguf")):
        with pytest.raises(ValueError, match=r"9 tensors missing: layers\.2\."):
            export.run(str(source), tmp_path / made, layout, None)
    (source / "params.json").write_text(json.dumps(params | {"n_layers": 1}))
    with pytest.raises(ValueError, match=r"layers\.1\..*: the network has no such tensor"):
        export.run(str(source), tmp_path / "made", "hf", None)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


CHILD = """
import os, signal, sys
from pathlib import Path
from magister.cli import export
def stopped(path):
    for number, pair in enumerate(stream(path)):
        if number == 5:
            os.kill(os.getpid(), int(sys.argv[4]))
        yield pair
stream, export.weights.stream = export.weights.stream, stopped
export.run(sys.argv[1], Path(sys.argv[2]), sys.argv[3], None)
"""


@pytest.mark.parametrize(("layout", "made"), [("native", "made"), ("gguf", "tiny.gguf")])
def test_asked_to_end_it_leaves_nothing(layout: str, made: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    child = [sys.executable, "-c", CHILD, str(source), str(tmp_path / made), layout]
    assert subprocess.run([*child, str(int(signal.SIGTERM))], check=False).returncode == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(("layout", "made"), [("native", "made"), ("gguf", "tiny.gguf")])
def test_what_a_killed_one_left_goes_with_the_next_and_nothing_else(layout: str, made: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    child = [sys.executable, "-c", CHILD, str(source), str(tmp_path / made), layout]
    assert subprocess.run([*child, str(int(signal.SIGKILL))], check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(f".{made}.*.tmp"))) == 1
    others = {f".{made}.{os.getpid()}0.tmp.tmp", f".{made}.{os.getppid()}.tmp", f".{made}.x.tmp", f".a{made}.1.tmp"}
    for name in others:
        (tmp_path / name).write_text("of somebody else", encoding="utf-8")
    export.run(str(source), tmp_path / made, layout, None)
    assert {path.name for path in tmp_path.iterdir()} == {"source", made, *others}


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = checkpoint(tmp_path / "source")
    monkeypatch.setattr(export, "SPARE", 1 << 60)
    with pytest.raises(ValueError, match=r"the export needs about 1,152,921,504,6.* bytes of disk, .* are free"):
        export.run(str(source), tmp_path / "made", "hf", None)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = checkpoint(tmp_path / "source", WITH_VISION)
    app(["export", str(source), str(tmp_path / "t.gguf"), "--layout", "gguf", "--type", "q4_0"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "14 Q4_0, 2 Q8_0" in said
    assert "The image encoder is not in it" in said
