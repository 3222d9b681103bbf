"""Chatting with checkpoints in the published layouts, images included, on small random weights."""

from pathlib import Path

import pytest

import magister
from magister.model import weights
from magister.model.config import DecoderConfig, ModelConfig, VisionConfig
from magister.model.network import build, init_weights
from magister.text.tokenizer import TekkenPlan, write_tekken
from magister.types import Refused

PLAN = TekkenPlan(ranks=1000, specials=64, vision=True)
CONFIG = ModelConfig(
    DecoderConfig(
        dim=32,
        n_layers=2,
        head_dim=16,
        hidden_dim=64,
        n_heads=4,
        n_kv_heads=2,
        norm_eps=1e-5,
        vocab_size=1064,
        rope_theta=1e9,
        max_position_embeddings=4096,
    ),
    VisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        patch_size=14,
        image_size=1540,
    ),
)


@pytest.fixture(scope="module", params=["native", "hf"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp(request.param)
    model = build(CONFIG)
    init_weights(model, 0)
    save = weights.save_native if request.param == "native" else weights.save_hf
    save(model, path)
    write_tekken(path / "tekken.json", PLAN)
    return path


def picture(path: Path, size: tuple[int, int]) -> Path:
    from PIL import Image

    Image.new("RGB", size, (200, 30, 90)).save(path)
    return path


def test_an_image_is_seen(folder: Path, tmp_path: Path) -> None:
    small, large = picture(tmp_path / "a.png", (28, 28)), picture(tmp_path / "b.jpg", (100, 60))
    with magister.load(str(folder)) as model:
        one = model.chat("What is it?", images=[small], temperature=0.0, max_tokens=8)
        two = model.chat("What is it?", images=[small, large], temperature=0.0, max_tokens=8)
        none = model.chat("What is it?", temperature=0.0, max_tokens=8)
    # 28 x 28 is one patch and its end; 100 x 60 is 4 x 3 patches with a break or end a row.
    assert one.usage.prompt_tokens - none.usage.prompt_tokens == 2
    assert two.usage.prompt_tokens - one.usage.prompt_tokens == 15


def test_both_layouts_say_the_same(tmp_path: Path) -> None:
    said = []
    for save in (weights.save_native, weights.save_hf):
        model = build(CONFIG)
        init_weights(model, 4)
        save(model, tmp_path / save.__name__)
        write_tekken(tmp_path / save.__name__ / "tekken.json", PLAN)
        with magister.load(str(tmp_path / save.__name__)) as loaded:
            reply = loaded.chat("Say something", temperature=0.0, max_tokens=24)
            said.append((reply.thinking, reply.answer))
    assert said[0] == said[1]


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_is_refused(folder: Path, content: bytes) -> None:
    with magister.load(str(folder)) as model, pytest.raises((Refused, ValueError), match="image"):
        model.chat("What is it?", images=[content])


def test_a_checkpoint_without_tokenizer_must_have_magistrals_vocabulary(tmp_path: Path) -> None:
    model = build(CONFIG)
    init_weights(model, 0)
    weights.save_native(model, tmp_path)
    with pytest.raises(ValueError, match="1064 tokens is not Magistral's 131072"):
        magister.load(str(tmp_path))
