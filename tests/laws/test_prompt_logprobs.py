"""How likely a prompt is: what the same tokens were worth when they were drawn, and what a pass without cache says."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import torch
from tests.engine.world import (
    IMAGE,
    PIECES,
    VISION,
    Make,
    Reply,
    ask,
    ask_all,
    compiled_runner,
    opened,
    random_model,
    replies,
    torch_runner,
    whole_logits,
)

from magister.engine.limits import Limits
from magister.model.cache import KVFormat
from magister.model.network import native_parameters
from magister.types import FinishReason, OpenAt, Pixels, Prompt, Refused, Sampling

RUNNERS = {"torch": torch_runner(), "compiled": compiled_runner(KVFormat.FP32)}
EVERYWHERE = pytest.mark.parametrize("make", RUNNERS.values(), ids=RUNNERS)
LIMITS = Limits(context=300, blocks=200, block_size=4, step_tokens=64, running=8)
SCORED: dict[str, Any] = {"logprobs": True, "prompt_logprobs": True}
IDS = [5 + (7 * place + place * place // 3) % 20 for place in range(150)]


def _scores(reply: Reply) -> tuple[float, ...]:
    first, *later = reply.chunks
    assert all(chunk.prompt_logprobs is None and chunk.prompt_top is None for chunk in later)
    assert first.prompt_logprobs is not None
    return first.prompt_logprobs


@EVERYWHERE
@pytest.mark.parametrize("step_tokens", [8, 65, 512])
def test_they_are_those_of_one_pass(make: Make, step_tokens: int) -> None:
    model = random_model()
    expected_tv = whole_logits(model, IDS).log_softmax(-1)[:-1]
    with opened(model, limits=replace(LIMITS, step_tokens=step_tokens), make=make) as engine:
        reply = ask(engine, IDS, max_tokens=2, top_logprobs=3, **SCORED)
    expected = expected_tv.gather(1, torch.tensor(IDS[1:])[:, None]).flatten().tolist()
    assert _scores(reply) == pytest.approx(expected, abs=1e-3)
    top = reply.chunks[0].prompt_top
    assert top is not None
    likeliest = expected_tv.topk(3)
    for place, values, ids in zip(top, likeliest.values.tolist(), likeliest.indices.tolist(), strict=True):
        assert [one.logprob for one in place] == pytest.approx(values, abs=1e-3)
        assert {one.id for one in place} == set(ids)


@EVERYWHERE
def test_what_was_said_is_worth_the_same_when_it_is_asked(make: Make) -> None:
    with opened(random_model(), limits=LIMITS, make=make) as engine:
        said = ask(engine, [7, 8], max_tokens=120, ignore_end=True, seed=3, logprobs=True)
        again = ask(engine, [7, 8, *said.ids], max_tokens=0, **SCORED)
        # Sharing a beginning that was computed before tells nothing of it, so this computes it again.
        third = ask(engine, [7, 8, *said.ids], max_tokens=0, **SCORED)
    assert again.ids == ()
    assert again.finish is FinishReason.LENGTH
    assert _scores(again)[1:] == pytest.approx(said.logprobs, abs=1e-3)
    assert _scores(third) == pytest.approx(_scores(again), abs=1e-4)
    assert third.last.cached_tokens == 0


@EVERYWHERE
def test_asking_for_them_changes_nothing_of_the_answer(make: Make) -> None:
    plain = Sampling(max_tokens=40, seed=5, logprobs=True, stop=("ab",), n=3)
    with opened(random_model(), limits=LIMITS, make=make) as engine:

        async def both() -> list[list[Reply]]:
            scored = msgspec.structs.replace(plain, prompt_logprobs=True)
            return [await replies(engine, Prompt(tuple(IDS)), one) for one in (plain, scored)]

        without, with_ = asyncio.run(both())
    assert [reply.ids for reply in with_] == [reply.ids for reply in without]
    assert len(_scores(with_[0])) == len(IDS) - 1
    assert all(reply.chunks[0].prompt_logprobs is None for reply in (*without, *with_[1:]))


def test_whoever_lost_its_blocks_on_the_way_has_each_number_once() -> None:
    limits = Limits(context=120, blocks=34, block_size=4, step_tokens=16, running=4)
    sampling = Sampling(max_tokens=30, seed=1, ignore_end=True, **SCORED)
    prompts = [IDS[start : start + 60] for start in (0, 20, 40)]
    model = random_model()
    with opened(model, limits=limits) as engine:
        found = ask_all(engine, *[(prompt, sampling) for prompt in prompts])
        assert engine.load().preemptions
    for prompt, reply in zip(prompts, found, strict=True):
        expected_tv = whole_logits(model, prompt).log_softmax(-1)[:-1]
        expected = expected_tv.gather(1, torch.tensor(prompt[1:])[:, None]).flatten().tolist()
        assert _scores(reply) == pytest.approx(expected, abs=1e-3)


def test_a_prompt_of_one_token_and_one_with_an_image() -> None:
    with opened(random_model()) as engine:
        assert _scores(ask(engine, [7], max_tokens=1, **SCORED)) == ()
    model = random_model(vision=VISION)
    size = VISION.token_pixels
    data = torch.rand(3, size, size).numpy().tobytes()
    prompt = Prompt((7, IMAGE, 8, 9), (Pixels(data, 3, size, size, "d"),))
    with opened(model) as engine:
        reply = asyncio.run(replies(engine, prompt, Sampling(max_tokens=1, **SCORED)))[0]
    expected_tv = whole_logits(model, prompt.ids, prompt.images).log_softmax(-1)[:-1]
    expected = expected_tv.gather(1, torch.tensor(prompt.ids[1:])[:, None]).flatten().tolist()
    assert _scores(reply) == pytest.approx(expected, abs=1e-3)


def test_numbers_that_are_none_end_the_request_and_no_other() -> None:
    model = random_model()
    dict(native_parameters(model))["tok_embeddings.weight"][9] = math.nan
    sampling = Sampling(max_tokens=4, temperature=0.0, logit_bias={9: -1000.0}, **SCORED)
    with opened(model, limits=LIMITS) as engine:
        good, bad = ask_all(engine, ([7, 8], sampling), ([7, 9, 8], sampling))
    assert good.finish is not FinishReason.ERROR
    assert bad.finish is FinishReason.ERROR
    assert "not finite" in (bad.last.error or "")


def test_a_capped_thought_without_room_asks_for_no_token() -> None:
    with opened(random_model()) as engine:
        reply = ask(engine, [7, 8, 9], open_at=OpenAt.THOUGHT, max_tokens=0, thinking_tokens=3, **SCORED)
        assert (reply.ids, len(_scores(reply))) == ((), 2)
        for wrong, said in (({"logprobs": False}, "prompt_logprobs: asked for without"), ({"max_tokens": -1}, "-1 is")):
            with pytest.raises(Refused, match=said):
                ask(engine, [7], **(SCORED | {"max_tokens": 0} | wrong))
        with pytest.raises(Refused, match="0 is less than 1"):
            ask(engine, [7], max_tokens=0)
    assert len(PIECES) > max(IDS)
