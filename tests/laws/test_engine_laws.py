"""The engine's equations, on tiny random networks in float32.

decode = prefill; chunked = whole; alone = in a batch; preempted = undisturbed; the same seed, the same reply; n choices
= n requests; continued = never cut; images in chunks = images at once; each of them with blocks shared or not, tokens
guessed or not, keys and values in int8 or not, in torch and in compiled code; after everything the pool audits clean.
"""

import asyncio
import random
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from tests.engine.world import (
    FIRST,
    IMAGE,
    LIMITS,
    PIECES,
    VISION,
    VOCABULARY,
    Make,
    Reply,
    ask,
    ask_all,
    compiled_runner,
    opened,
    random_model,
    replies,
    take,
    torch_runner,
    whole_logits,
)

from magister.engine.engine import Engine
from magister.engine.limits import Limits
from magister.engine.randomness import choice_seed
from magister.model.cache import KVFormat
from magister.types import FinishReason, Pixels, Prompt, Sampling

CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-4}
TIGHT = Limits(context=48, blocks=14, block_size=4, step_tokens=12, running=6)
"""A pool in which six sequences cannot finish side by side."""

KINDS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 10, "frequency_penalty": 0.5},
    {"temperature": 1.0, "min_p": 0.05, "presence_penalty": 1.0, "logit_bias": {FIRST: 2.0}},
    {"temperature": 1.0, "thinking_tokens": 3},
    {"temperature": 1.0, "stop": ("ab", "xyz")},
)


class World(NamedTuple):
    """What must make no difference, switched on or off."""

    make: Make
    changes: dict[str, Any]

    def limits(self, limits: Limits = LIMITS) -> Limits:
        """These limits with the world's switches."""
        return replace(limits, **self.changes)


OFF: dict[str, Any] = {"prefix_cache": False}
GUESSING: dict[str, Any] = {"speculation": 4, "row_cost": 0.0}
"""At no price a row, guesses are made wherever there is something to look up."""
TORCH, COMPILED = torch_runner(), compiled_runner(KVFormat.FP32)
WORLDS = {
    "plain": World(TORCH, OFF),
    "shared": World(TORCH, {}),
    "guessing": World(TORCH, OFF | GUESSING),
    "everything": World(TORCH, GUESSING),
    "compiled": World(COMPILED, OFF),
    "compiled, everything": World(COMPILED, GUESSING),
}
EVERYWHERE = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


def _requests(count: int, longest: int = 30) -> list[tuple[list[int], Sampling]]:
    """Every third begins like others do."""
    chance = random.Random(count)

    def ids(most: int) -> list[int]:
        return [chance.randrange(FIRST, len(PIECES)) for _ in range(chance.randint(1, most))]

    beginning = [chance.randrange(FIRST, len(PIECES)) for _ in range(longest // 2)]
    return [
        (
            [*beginning, *ids(longest // 2)] if index % 3 == 0 else ids(longest),
            Sampling(**KINDS[index % len(KINDS)], seed=index, logprobs=True, max_tokens=chance.randint(5, 18)),
        )
        for index in range(count)
    ]


def _assert_equal(ours: list[Reply], theirs: list[Reply], close: dict[str, Any] = CLOSE) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one.ids, one.forced, one.finish) == (other.ids, other.forced, other.finish)
        assert (one.last.stop, one.last.trim) == (other.last.stop, other.last.trim)
        torch.testing.assert_close(one.logprobs, other.logprobs, **close)
        torch.testing.assert_close(one.sampled_logprobs, other.sampled_logprobs, **close)
        torch.testing.assert_close(one.entropy, other.entropy, **close)


def _alone(engine: Engine, requests: list[tuple[list[int], Sampling]]) -> list[Reply]:
    return [ask_all(engine, request)[0] for request in requests]


@cache
def _plainly(count: int, longest: int = 30) -> list[Reply]:
    """Replies to `_requests`, each alone, in torch, with nothing shared, guessed or cut."""
    with opened(random_model(), limits=WORLDS["plain"].limits()) as engine:
        return _alone(engine, _requests(count, longest))


@EVERYWHERE
def test_decode_step_by_step_is_one_prefill_pass(world: World) -> None:
    model = random_model()
    prompt = [7, 8, 9, 10, 11]
    with opened(model, limits=world.limits(), make=world.make) as engine:
        reply = ask(engine, prompt, temperature=0.0, max_tokens=60, ignore_end=True, logprobs=True, top_logprobs=3)
    logprobs_tv = whole_logits(model, [*prompt, *reply.ids]).log_softmax(-1)[len(prompt) - 1 : -1]
    taken = logprobs_tv.gather(1, torch.tensor(reply.ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(reply.logprobs), taken, **CLOSE)
    torch.testing.assert_close(torch.tensor(reply.entropy), -(logprobs_tv.exp() * logprobs_tv).sum(-1), **CLOSE)
    tops = torch.tensor([[alternative.logprob for alternative in top] for top in reply.top])
    torch.testing.assert_close(tops, logprobs_tv.topk(3).values, **CLOSE)


@EVERYWHERE
@pytest.mark.parametrize("step_tokens", [3, 29])
def test_chunked_prefill_is_whole_prefill(step_tokens: int, world: World) -> None:
    requests, whole = _requests(7, longest=70), _plainly(7, longest=70)
    limits = Limits(context=96, blocks=64, block_size=4, step_tokens=step_tokens, running=3)
    with opened(random_model(), limits=world.limits(limits), make=world.make) as engine:
        _assert_equal(_alone(engine, requests), whole)
        _assert_equal(ask_all(engine, *requests), whole)


@EVERYWHERE
def test_alone_is_in_a_batch(world: World) -> None:
    requests, alone = _requests(21), _plainly(21)
    with opened(random_model(), limits=world.limits(), make=world.make) as engine:
        _assert_equal(ask_all(engine, *requests), alone)
        load = engine.load()
    assert bool(load.guessed) is ("speculation" in world.changes)
    assert bool(load.idle_blocks) is ("prefix_cache" not in world.changes)


@EVERYWHERE
def test_preempted_is_undisturbed(world: World) -> None:
    requests, alone = _requests(24, longest=20), _plainly(24, longest=20)
    with opened(random_model(), limits=world.limits(TIGHT), make=world.make) as engine:
        _assert_equal(ask_all(engine, *requests), alone)
        assert engine.load().preemptions > 0


INT8 = {"torch": torch_runner(KVFormat.INT8), "compiled": compiled_runner(KVFormat.INT8)}


@pytest.mark.parametrize("make", INT8.values(), ids=INT8)
def test_in_int8_too_alone_is_in_a_batch_however_it_is_cut_shared_guessed_and_preempted(make: Make) -> None:
    """Against itself. A number in the middle between two whole ones may be rounded either way by a sum that torch adds
    in another order, which shows in the fourth digit; compiled code adds in one order only.
    """
    requests = _requests(21, longest=20)
    close = CLOSE if make is INT8["compiled"] else CLOSE | {"atol": 0.1}
    with opened(random_model(), limits=WORLDS["plain"].limits(), make=make) as engine:
        alone = _alone(engine, requests)
    assert [reply.logprobs for reply in alone] != [reply.logprobs for reply in _plainly(21, longest=20)]
    for limits in (LIMITS, TIGHT):
        for changes in (OFF, OFF | GUESSING, {}, GUESSING):
            with opened(random_model(), limits=replace(limits, **changes), make=make) as engine:
                _assert_equal(ask_all(engine, *requests), alone, close)


def test_compiled_code_gives_the_same_bits_whatever_it_is_told_to_save() -> None:
    requests = _requests(21)
    with opened(random_model(), limits=WORLDS["compiled"].limits(), make=COMPILED) as engine:
        alone = _alone(engine, requests)
    with opened(random_model(), limits=replace(TIGHT, **GUESSING), make=COMPILED) as engine:
        for one, other in zip(ask_all(engine, *requests), alone, strict=True):
            assert (one.ids, one.logprobs, one.entropy) == (other.ids, other.logprobs, other.entropy)


def test_the_same_seed_gives_the_same_reply_whatever_runs_beside_it() -> None:
    mine = ([7, 8, 9], Sampling(temperature=1.0, seed=11, max_tokens=40, ignore_end=True, logprobs=True))
    with opened(random_model()) as engine:
        alone = ask_all(engine, mine)
        for count in (2, 9):
            _assert_equal([ask_all(engine, *_requests(count), mine, *_requests(count))[count]], alone)
        fresh = [ask(engine, mine[0], temperature=1.0, max_tokens=40, ignore_end=True).ids for _ in range(3)]
    assert len({*fresh, alone[0].ids}) == 4, "without a seed, or with another, the reply differs"


@EVERYWHERE
def test_n_choices_are_n_requests_with_the_choices_seeds(world: World) -> None:
    for kind in KINDS:
        sampling = {"max_tokens": 12, "logprobs": True, **kind}
        with opened(random_model(), limits=world.limits(), make=world.make) as engine:
            choices = asyncio.run(replies(engine, Prompt((7, 8, 9)), Sampling(n=5, seed=5, **sampling)))
            assert [chunk.choice for reply in choices for chunk in reply.chunks[:1]] == list(range(5))
            singles = [ask(engine, (7, 8, 9), seed=choice_seed(5, choice), **sampling) for choice in range(5)]
            _assert_equal(choices, singles)


@EVERYWHERE
def test_a_reply_cut_and_continued_is_the_reply_never_cut(world: World) -> None:
    prompt = [7, 8, 9]
    sampling: dict[str, Any] = {"temperature": 1.0, "seed": 3, "ignore_end": True}
    with opened(random_model(), limits=world.limits(), make=world.make) as engine:
        whole = ask(engine, prompt, max_tokens=40, **sampling).ids
        for cut in (1, 17, 39):
            begun = [*prompt, *whole[:cut]]
            assert ask(engine, begun, max_tokens=40 - cut, **sampling).ids == whole[cut:]


def test_a_stop_string_cuts_the_text_that_comes_without_it() -> None:
    no_letters = [id_ for id_, piece in enumerate(PIECES) if not piece.isalpha()]
    shared: dict[str, Any] = {"temperature": 1.0, "max_tokens": 40, "logit_bias": dict.fromkeys(no_letters, -1000.0)}
    with opened(random_model()) as engine:
        for seed in range(12):
            sampling = {"seed": seed, **shared}
            plain = ask(engine, [7], **sampling)
            text = plain.text()
            middle = text[len(text) // 2 :][:3].decode()
            stopped = ask(engine, [7], stop=(middle, "never said"), **sampling)
            assert stopped.text() == text[: text.index(middle.encode())]
            assert (stopped.finish, stopped.last.stop) == (FinishReason.STOP, middle)
            assert stopped.ids == plain.ids[: len(stopped.ids)]


def _image(height: int, width: int, seed: int) -> Pixels:
    pixels = torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))
    return Pixels(pixels.numpy().tobytes(), 3, height, width, str(seed))


@EVERYWHERE
@pytest.mark.parametrize("step_tokens", [3, 64])
def test_images_are_seen_in_any_chunks(step_tokens: int, world: World) -> None:
    model = random_model(vision=VISION)
    images = (_image(8, 12, 0), _image(4, 4, 1))
    prompt = (7, *[IMAGE] * 6, 8, IMAGE, 9, 10)
    sampling = Sampling(temperature=0.0, max_tokens=6, ignore_end=True, logprobs=True)
    limits = Limits(context=96, blocks=24, block_size=4, step_tokens=step_tokens, running=3)

    async def run(engine: Engine) -> list[list[Reply]]:
        other = (images[0], _image(4, 4, 2))
        asks = [replies(engine, Prompt(prompt, pair), sampling) for pair in (images, other, images)]
        return await asyncio.gather(replies(engine, Prompt((7, 8)), sampling), *asks)

    with opened(model, limits=world.limits(limits), make=world.make) as engine:
        (_,), (reply,), (other,), (again,) = asyncio.run(run(engine))
    _assert_equal([reply], [again])
    ids = [*prompt, *reply.ids]
    logprobs_tv = whole_logits(model, ids, images).log_softmax(-1)[len(prompt) - 1 : -1]
    taken = logprobs_tv.gather(1, torch.tensor(reply.ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(reply.logprobs), taken, **CLOSE)
    assert other.logprobs != reply.logprobs
    assert IMAGE not in reply.ids


@pytest.mark.parametrize("world", [WORLDS["plain"], WORLDS["everything"]], ids=["plain", "everything"])
@pytest.mark.parametrize("limits", [LIMITS, TIGHT], ids=["roomy", "tight"])
def test_a_long_day_of_requests_cancels_and_stops(limits: Limits, world: World) -> None:
    """Every reply that is not cancelled is the one it gives alone; nothing is left behind."""
    requests, alone = _requests(75, longest=24), _plainly(75, longest=24)

    async def live(engine: Engine, index: int, chance: random.Random) -> None:
        await asyncio.sleep(chance.random() * 0.2)
        ids, sampling = requests[index]
        if chance.random() < 0.3:
            taken = await take(engine, ids, sampling, chance.randint(1, 6))
            said = sum((chunk.ids for chunk in taken), ())
            assert said == alone[index].ids[: len(said)]
        else:
            (reply,) = await replies(engine, Prompt(tuple(ids)), sampling)
            _assert_equal([reply], [alone[index]])

    async def day(engine: Engine) -> None:
        chance = random.Random(limits.blocks)
        await asyncio.gather(*[live(engine, index, random.Random(chance.random())) for index in range(len(requests))])

    with opened(random_model(), VOCABULARY, world.limits(limits), world.make) as engine:
        asyncio.run(asyncio.wait_for(day(engine), 120))
