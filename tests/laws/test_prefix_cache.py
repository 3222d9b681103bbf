"""Prefix cache on = off, and what it saves: counted in tokens that the network computes."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.engine.world import (
    FIRST,
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
)

from magister.engine.engine import Engine
from magister.engine.limits import Limits
from magister.model.cache import KVFormat
from magister.model.network import native_parameters
from magister.types import Pixels, Prompt, Sampling

RUNNERS = {"torch": torch_runner(), "compiled": compiled_runner(KVFormat.FP32), "int8": torch_runner(KVFormat.INT8)}
EVERYWHERE = pytest.mark.parametrize("make", RUNNERS.values(), ids=RUNNERS)
LIMITS = Limits(context=96, blocks=64, block_size=4, step_tokens=64, running=8)
ANY: dict[str, Any] = {"temperature": 1.0, "ignore_end": True, "logprobs": True}


def _engine(make: Make, *, on: bool = True, **changes: Any) -> AbstractContextManager[Engine]:
    model = random_model(vision=changes.pop("vision", None))
    return opened(model, limits=replace(LIMITS, prefix_cache=on, **changes), make=make)


def _tokens(start: int, count: int) -> list[int]:
    return [FIRST + (start + 7 * place + place * place // 3) % (len(PIECES) - FIRST) for place in range(count)]


def _assert_equal(one: Reply, other: Reply) -> None:
    assert one.ids == other.ids
    torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-4)
    torch.testing.assert_close(one.entropy, other.entropy, rtol=0, atol=1e-4)


@EVERYWHERE
def test_a_conversation_computes_each_turn_once(make: Make) -> None:
    transcripts: list[list[Reply]] = []
    computed: list[int] = []
    for on in (False, True):
        with _engine(make, on=on) as engine:
            ids = _tokens(0, 10)
            turns: list[Reply] = []
            for turn in range(4):
                before = engine.load().tokens
                turns.append(ask(engine, ids, seed=turn, max_tokens=9, **ANY))
                assert engine.load().tokens - before == len(ids) - turns[-1].last.cached_tokens + 8
                ids = [*ids, *turns[-1].ids, *_tokens(turn, 7)]
            transcripts.append(turns)
            computed.append(engine.load().tokens)
    for off, on_ in zip(*transcripts, strict=True):
        _assert_equal(on_, off)
    assert [reply.last.cached_tokens for reply in transcripts[0]] == [0] * 4
    # Of 10 + 9 tokens the last is never computed, and whole blocks of the rest are found: 16 of 18, then 32 of 34...
    assert [reply.last.cached_tokens for reply in transcripts[1]] == [0, 16, 32, 48]
    assert computed[0] - computed[1] == 16 + 32 + 48


@EVERYWHERE
def test_eight_samples_of_a_thousand_tokens_compute_them_once_and_a_block_each(make: Make) -> None:
    block = 16
    limits = Limits(context=1200, blocks=1000, block_size=block, step_tokens=256, running=8)
    prompt = tuple(_tokens(3, 1000))
    model = random_model(positions=1200)
    sampling = Sampling(n=8, max_tokens=4, seed=1, **ANY)
    with opened(model, limits=limits, make=make) as engine:
        choices = asyncio.run(replies(engine, Prompt(prompt), sampling))
        computed = engine.load().tokens - 8 * 3
        assert computed <= 1000 + 8 * block
        assert computed == 1000 + 7 * (1000 % block)
        cached = [reply.last.cached_tokens for reply in choices]
        assert cached == [0] + [1000 - 1000 % block] * 7
    with opened(model, limits=limits, make=make) as engine:
        singly = Sampling(max_tokens=4, **ANY)
        apart = ask_all(engine, *[(prompt, singly)] * 8)
        assert engine.load().tokens - 8 * 3 == computed
        assert sorted(reply.last.cached_tokens for reply in apart) == cached


@EVERYWHERE
def test_a_prompt_found_whole_still_computes_its_last_block(make: Make) -> None:
    prompt = _tokens(0, 16)
    with _engine(make) as engine:
        first = ask(engine, prompt, seed=1, max_tokens=5, **ANY)
        again = ask(engine, prompt, seed=1, max_tokens=5, **ANY)
    _assert_equal(again, first)
    assert (first.last.cached_tokens, again.last.cached_tokens) == (0, 12)


def test_beginnings_shared_by_many_cost_no_more_than_each_alone_and_give_the_same() -> None:
    beginning = _tokens(5, 21)
    requests = [
        ([*beginning[: 21 - index % 9], *_tokens(index, 1 + index % 5)], Sampling(max_tokens=8, seed=index, **ANY))
        for index in range(20)
    ]
    outcomes = []
    for on in (False, True):
        with _engine(RUNNERS["torch"], on=on) as engine:
            outcomes.append((ask_all(engine, *requests), engine.load().tokens))
    for one, other in zip(outcomes[1][0], outcomes[0][0], strict=True):
        _assert_equal(one, other)
    assert outcomes[1][1] < outcomes[0][1] - 20 * 8


def test_a_preempted_sequence_computes_again_only_what_others_needed() -> None:
    tight: dict[str, Any] = {"context": 48, "blocks": 14, "step_tokens": 24, "running": 4}
    requests = [(_tokens(index, 15), Sampling(max_tokens=12, seed=index, **ANY)) for index in range(8)]
    outcomes = []
    for on in (False, True):
        with _engine(RUNNERS["torch"], on=on, **tight) as engine:
            outcomes.append((ask_all(engine, *requests), engine.load()))
    for one, other in zip(outcomes[1][0], outcomes[0][0], strict=True):
        _assert_equal(one, other)
    assert all(load.preemptions for _, load in outcomes)
    assert outcomes[1][1].tokens < outcomes[0][1].tokens


def _image(seed: int, height: int = 8, width: int = 8) -> Pixels:
    pixels = torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))
    return Pixels(pixels.numpy().tobytes(), 3, height, width, str(seed))


@EVERYWHERE
def test_images_are_part_of_what_is_compared(make: Make) -> None:
    # Equal ids, a block of them before the images, and images that differ in the first, in the second, or not at all.
    ids = (*_tokens(0, 4), *[IMAGE] * 4, *_tokens(4, 4), *[IMAGE] * 4, *_tokens(8, 5))
    pairs = [(_image(0), _image(1)), (_image(0), _image(2)), (_image(3), _image(1)), (_image(0), _image(1))]
    sampling = Sampling(max_tokens=5, seed=2, **ANY)
    outcomes: list[list[Reply]] = []
    for on in (False, True):
        with _engine(make, on=on, vision=VISION) as engine:
            outcomes.append([asyncio.run(replies(engine, Prompt(ids, pair), sampling))[0] for pair in pairs])
    for one, other in zip(outcomes[1], outcomes[0], strict=True):
        _assert_equal(one, other)
    assert [reply.last.cached_tokens for reply in outcomes[1]] == [0, 12, 4, 20]
    assert len({tuple(reply.logprobs) for reply in outcomes[0]}) == 3


@EVERYWHERE
def test_versions_of_the_weights_never_mix(make: Make) -> None:
    prompt = _tokens(0, 20)
    sampling: dict[str, Any] = {"seed": 1, "max_tokens": 9, **ANY}
    tensors = {name: parameter.clone() for name, parameter in native_parameters(random_model(seed=1))}
    with opened(random_model(seed=1), limits=LIMITS, make=make) as engine:
        wanted = ask(engine, prompt, **sampling)
    with _engine(make) as engine:
        old = ask(engine, prompt, **sampling)
        assert ask(engine, prompt, **sampling).last.cached_tokens == 16
        for _ in range(2):
            engine.publish(0, tensors)
            assert engine.load().idle_blocks == 0
            new = ask(engine, prompt, **sampling)
            assert new.last.cached_tokens == 0
            _assert_equal(new, wanted)
        assert new.ids != old.ids or new.logprobs != old.logprobs


def test_a_sequence_that_lives_through_a_publication_leaves_nothing_to_find() -> None:
    tensors = {name: parameter.clone() for name, parameter in native_parameters(random_model(seed=1))}

    async def run(engine: Engine) -> list[int]:
        ids: list[int] = []
        async for chunk in engine.generate(Prompt(tuple(_tokens(0, 20))), Sampling(max_tokens=60, **ANY)):
            if not ids:
                await asyncio.to_thread(engine.publish, 1, tensors)
            ids += chunk.ids
        return ids

    with _engine(RUNNERS["torch"]) as engine:
        said = asyncio.run(run(engine))
        after = ask(engine, [*_tokens(0, 20), *said], seed=1, max_tokens=3, **ANY)
        assert after.last.cached_tokens == 0


def test_a_reply_that_failed_leaves_nothing_to_find() -> None:
    model = random_model()
    dict(native_parameters(model))["tok_embeddings.weight"][9] = float("nan")
    prompt = [*_tokens(0, 6), 9, *_tokens(0, 9)]
    with opened(model, limits=replace(LIMITS, step_tokens=8)) as engine:
        reply = ask(engine, prompt, max_tokens=3)
        assert reply.last.error
        assert engine.load().idle_blocks == 0
