"""ours = transformers: the same random weights give the same logits and the same greedy tokens, in every layout."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from magister.model import weights
from magister.model.attention import CausalAttention
from magister.model.cache import CachedAttention, KVCache, Span
from magister.model.network import Model

VOCAB, IMG, IMG_BREAK, IMG_END = 128, 10, 12, 13
SIDE = 4 * 2  # pixels behind one image token


def _text_config(**changes: Any) -> Any:
    # 6 heads of 16 on a width of 64, so that no shape is right by accident; 2 key/value heads.
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e9},
    }
    return transformers.MistralConfig(**(sizes | changes))


def _reference() -> Any:
    vision = transformers.PixtralVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=4,
        image_size=64,
        hidden_act="silu",
    )
    config = transformers.Mistral3Config(
        vision_config=vision, text_config=_text_config(), image_token_index=IMG, tie_word_embeddings=False
    )
    return _randomised(transformers.Mistral3ForConditionalGeneration(config))


def _randomised(model: Any) -> Any:
    """Weights large enough that attention is not uniform and every norm matters."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.normal_(0.0, 2.0 / parameter[0].numel() ** 0.5, generator=generator)
    return model.eval()


def _save_transformers(model: Any, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(transformers|huggingface_hub)\.")
        model.save_pretrained(folder)


@pytest.fixture(scope="module")
def reference() -> Any:
    return _reference()


@pytest.fixture(scope="module", params=["transformers' own files", "our Hugging Face files", "our native files"])
def ours(request: pytest.FixtureRequest, reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("checkpoint")
    _save_transformers(reference, folder / "theirs")
    model = weights.load(folder / "theirs")
    if request.param == "our Hugging Face files":
        weights.save_hf(model, folder / "ours")
        model = weights.load(folder / "ours")
    if request.param == "our native files":
        weights.save_native(model, folder / "ours")
        model = weights.load(folder / "ours")
    with torch.inference_mode():
        yield model


def _image_ids(height: int, width: int) -> list[int]:
    row = [IMG] * (width // SIDE) + [IMG_BREAK]
    return [*(row * (height // SIDE))[:-1], IMG_END]


def _prompt(sizes: list[tuple[int, int]]) -> tuple[Tensor, list[Tensor]]:
    """Random text with one image of each (height, width) in it: ids [t] and normalised images."""
    generator = torch.Generator().manual_seed(len(sizes))
    ids: list[int] = []
    for height, width in sizes:
        ids += torch.randint(20, VOCAB, (5,), generator=generator).tolist() + _image_ids(height, width)
    ids += torch.randint(20, VOCAB, (9,), generator=generator).tolist()
    images = [torch.randn(3, height, width, generator=generator) for height, width in sizes]
    return torch.tensor(ids), images


def _theirs(images: list[Tensor]) -> dict[str, Any]:
    """transformers takes images padded to a common size, and their sizes."""
    if not images:
        return {}
    height, width = (max(image.shape[side] for image in images) for side in (1, 2))
    padded = torch.zeros(len(images), 3, height, width)
    for target, image in zip(padded, images, strict=True):
        target[:, : image.shape[1], : image.shape[2]] = image
    return {"pixel_values": padded, "image_sizes": torch.tensor([tuple(image.shape[1:]) for image in images])}


PROMPTS = pytest.mark.parametrize(
    "sizes", [[], [(24, 40)], [(8, 8), (64, 16), (32, 64)]], ids=["text only", "one image", "three images"]
)


@PROMPTS
def test_logits(reference: Any, ours: Model, sizes: list[tuple[int, int]]) -> None:
    ids_t, images = _prompt(sizes)
    expected_tv = reference(ids_t[None], **_theirs(images)).logits[0]
    assert ours.vision is not None
    x_td = ours.embed(ids_t, ours.vision(images))
    logits_tv = ours.logits(ours(x_td, torch.arange(len(ids_t)), CausalAttention()))
    assert (logits_tv - expected_tv).norm() / expected_tv.norm() < 1e-4
    assert (logits_tv - expected_tv).abs().max() / expected_tv.abs().max() < 1e-4


@PROMPTS
def test_greedy_continuation_through_the_cache(reference: Any, ours: Model, sizes: list[tuple[int, int]]) -> None:
    ids_t, images = _prompt(sizes)
    whole = reference.generate(
        ids_t[None],
        attention_mask=torch.ones(1, len(ids_t), dtype=torch.int64),
        max_new_tokens=32,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        **_theirs(images),
    )
    expected = whole[0, len(ids_t) :].tolist()
    assert ours.vision is not None
    cache = KVCache.allocate(ours.config.decoder, len(ids_t) + 32)
    slots, stop = torch.arange(len(ids_t) + 32), len(ids_t)
    attend = CachedAttention(cache, [Span(slots, 0, stop)])
    hidden_td = ours(ours.embed(ids_t, ours.vision(images)), torch.arange(stop), attend)
    made = [int(ours.logits(hidden_td[-1]).argmax())]
    while len(made) < 32:
        attend = CachedAttention(cache, [Span(slots, stop, stop + 1)])
        hidden_td = ours(torch.tensor(made[-1:]), torch.tensor([stop]), attend)
        made.append(int(ours.logits(hidden_td[-1]).argmax()))
        stop += 1
    assert made == expected
    assert len(set(made)) > 4, "a continuation that repeats itself proves little"


def test_image_features(reference: Any, ours: Model) -> None:
    _, images = _prompt([(16, 24), (40, 8)])
    expected = reference.model.get_image_features(**_theirs(images)).pooler_output
    assert ours.vision is not None
    for features_nd, expected_nd in zip(ours.vision(images), expected, strict=True):
        assert (features_nd - expected_nd).norm() / expected_nd.norm() < 1e-4


def test_transformers_reads_our_files(reference: Any, tmp_path: Path) -> None:
    _save_transformers(reference, tmp_path / "theirs")
    weights.save_hf(weights.load(tmp_path / "theirs"), tmp_path / "ours")
    again = transformers.Mistral3ForConditionalGeneration.from_pretrained(tmp_path / "ours")
    expected = reference.state_dict()
    assert set(again.state_dict()) == set(expected)
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_text_only_checkpoint(tied: bool, tmp_path: Path) -> None:
    reference = _randomised(transformers.MistralForCausalLM(_text_config(tie_word_embeddings=tied)))
    _save_transformers(reference, tmp_path / "theirs")
    model = weights.load(tmp_path / "theirs")
    assert model.config.decoder.tied_embeddings is tied
    weights.save_hf(model, tmp_path / "ours")
    again = transformers.MistralForCausalLM.from_pretrained(tmp_path / "ours")
    ids_t, _ = _prompt([])
    with torch.inference_mode():
        logits_tv = model.logits(model(ids_t, torch.arange(len(ids_t)), CausalAttention()))
        for theirs in (reference, again):
            expected_tv = theirs(ids_t[None]).logits[0]
            assert (logits_tv - expected_tv).norm() / expected_tv.norm() < 1e-4


def test_bfloat16_is_near(reference: Any, tmp_path: Path) -> None:
    _save_transformers(reference, tmp_path)
    ids_t, images = _prompt([(24, 40)])
    model = weights.load(tmp_path, dtype=torch.bfloat16)
    with torch.inference_mode():
        expected_tv = reference(ids_t[None], **_theirs(images)).logits[0].log_softmax(-1)
        assert model.vision is not None
        x_td = model.embed(ids_t, model.vision(images))
        logits_tv = model.logits(model(x_td, torch.arange(len(ids_t)), CausalAttention()))
    assert logits_tv.dtype == torch.bfloat16
    kl_t = (expected_tv.exp() * (expected_tv - logits_tv.float().log_softmax(-1))).sum(-1)
    assert kl_t.mean() < 0.05
