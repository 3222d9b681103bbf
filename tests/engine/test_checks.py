"""Every field of a request is honoured or refused by its name, before anything is allocated."""

import tracemalloc
from typing import Any

import pytest
from tests.engine.world import LIMITS, THINK, VISION, VOCABULARY, ask, opened, random_model

from magister.engine.checks import check_prompt, check_sampling
from magister.engine.vocabulary import Vocabulary
from magister.types import OpenAt, Pixels, Prompt, Refused, Sampling, TooLong

NAN, INF = float("nan"), float("inf")

REFUSED: list[dict[str, Any]] = [
    *[{"temperature": value} for value in (-0.1, NAN, INF)],
    *[{"top_p": value} for value in (0.0, 1.01, NAN)],
    {"top_k": -1},
    *[{"min_p": value} for value in (-0.1, 1.0, NAN)],
    *[{"frequency_penalty": value} for value in (-2.1, 2.1, NAN, INF)],
    *[{"presence_penalty": value} for value in (-2.1, 2.1, NAN)],
    *[{"logit_bias": value} for value in ({-1: 1.0}, {len(VOCABULARY.pieces): 1.0}, {7: INF}, {7: NAN}, {7: -1e300})],
    *[{"seed": value} for value in (2**63, -(2**63) - 1)],
    *[{"n": value} for value in (0, 65)],
    {"max_tokens": 0},
    {"thinking_tokens": -1},
    *[{"stop": value} for value in (("",), ("a",) * 17, ("\ud800",), ("a", "é" * 513))],
    *[{"top_logprobs": value, "logprobs": True} for value in (-1, 21)],
    {"top_logprobs": 1},
    {"prompt_logprobs": True},
    {"max_tokens": -1, "prompt_logprobs": True, "logprobs": True},
    {"grammar": 'start: "a"', "ignore_end": True},
]

ALLOWED: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 100.0},
    {"temperature": 1e300},
    {"top_p": 1e-9},
    {"top_k": 10**9},
    {"min_p": 0.999},
    {"frequency_penalty": -2.0, "presence_penalty": 2.0},
    {"logit_bias": {0: -100.0, len(VOCABULARY.pieces) - 1: 100.0}},
    {"logit_bias": {0: -1e30, 7: 1e30}},
    {"seed": -(2**63)},
    {"seed": 2**63 - 1},
    {"n": 64},
    {"max_tokens": 1},
    {"thinking_tokens": 0},
    {"stop": ("a",) * 16},
    {"stop": ("é" * 512,)},
    {"top_logprobs": 20, "logprobs": True},
    {"prompt_logprobs": True, "logprobs": True},
    {"max_tokens": 0, "prompt_logprobs": True, "logprobs": True},
]


@pytest.mark.parametrize("fields", REFUSED, ids=str)
def test_what_is_refused_is_named(fields: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        check_sampling(Sampling(**fields), VOCABULARY)
    assert refused.value.field in fields


@pytest.mark.parametrize("fields", ALLOWED, ids=str)
def test_what_is_allowed(fields: dict[str, Any]) -> None:
    check_sampling(Sampling(**fields), VOCABULARY)


def test_every_field_is_tried() -> None:
    tried = {name for fields in REFUSED for name in fields}
    assert tried | {"ignore_end", "logprobs"} == set(Sampling.__struct_fields__)


def test_a_model_without_thoughts_refuses_to_count_them() -> None:
    plain = Vocabulary(pieces=VOCABULARY.pieces, end=0)
    with pytest.raises(Refused, match="thinking_tokens"):
        check_sampling(Sampling(thinking_tokens=5), plain)
    with pytest.raises(Refused, match="open_at"):
        check_prompt(Prompt((7,), open_at=OpenAt.THOUGHT), plain, 10, None)


@pytest.mark.parametrize("ids", [(), (-1,), (7, len(VOCABULARY.pieces))])
def test_ids_outside_the_vocabulary(ids: tuple[int, ...]) -> None:
    with pytest.raises(Refused, match="ids"):
        check_prompt(Prompt(ids), VOCABULARY, 10, None)


def test_a_prompt_leaves_room_for_one_token() -> None:
    check_prompt(Prompt((7,) * 9), VOCABULARY, 10, None)
    with pytest.raises(TooLong) as too_long:
        check_prompt(Prompt((7,) * 10), VOCABULARY, 10, None)
    assert (too_long.value.tokens, too_long.value.limit) == (10, 9)


def _image(**changes: Any) -> Pixels:
    values: dict[str, Any] = {
        "data": bytes(4 * 3 * 4 * 8),
        "channels": 3,
        "height": 4,
        "width": 8,
        "digest": "0",
    } | changes
    return Pixels(**values)


@pytest.mark.parametrize(
    ("images", "places", "reason"),
    [
        ((_image(),), 3, "they fill 2 tokens, the prompt has 3 image tokens"),
        ((), 1, "they fill 0 tokens"),
        ((_image(data=b""),), 2, "has 0 bytes, must have 384"),
        ((_image(channels=1),), 2, "must have 3 channels"),
        ((_image(height=6),), 2, "multiples of 4 up to 16"),
        ((_image(width=20),), 2, "multiples of 4 up to 16"),
        ((_image(height=0),), 2, "multiples of 4 up to 16"),
    ],
)
def test_images_that_do_not_fit(images: tuple[Pixels, ...], places: int, reason: str) -> None:
    prompt = Prompt((7, *[VISION.image_token_id] * places), images)
    with pytest.raises(Refused, match=reason) as refused:
        check_prompt(prompt, VOCABULARY, 90, VISION)
    assert refused.value.field == "images"


def test_images_for_a_model_that_cannot_see() -> None:
    check_prompt(Prompt((7, VISION.image_token_id, VISION.image_token_id), (_image(),)), VOCABULARY, 90, VISION)
    with pytest.raises(Refused, match="cannot see"):
        check_prompt(Prompt((7, 7), (_image(),)), VOCABULARY, 90, None)


def test_the_engine_refuses_at_the_first_step_and_holds_nothing() -> None:
    with opened(random_model()) as engine:
        with pytest.raises(Refused, match="top_p"):
            ask(engine, [7], top_p=2.0)
        with pytest.raises(Refused, match="thinking_tokens"):
            ask(engine, [THINK], open_at=OpenAt.THOUGHT, thinking_tokens=-5)
        with pytest.raises(TooLong):
            ask(engine, [7] * LIMITS.context)


def test_a_prompt_of_a_million_tokens_is_refused_before_anything_is_allocated() -> None:
    prompt = (7,) * 1_000_000
    with opened(random_model()) as engine:
        tracemalloc.start()
        with pytest.raises(TooLong) as too_long:
            ask(engine, prompt)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (too_long.value.tokens, too_long.value.limit) == (1_000_000, LIMITS.context - 1)
    assert "1000000 tokens" in str(too_long.value)
    assert peak < 200_000
