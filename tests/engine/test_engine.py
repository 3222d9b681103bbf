"""What a caller of the engine sees: chunks, constraints, failures, cancels, new weights."""

import asyncio
import math
import threading
import time
from contextlib import aclosing
from typing import Any

import pytest
import torch
from tests.engine.world import (
    END,
    END_THINK,
    FIRST,
    LIMITS,
    PIECES,
    THINK,
    VISION,
    VOCABULARY,
    Reply,
    SlowModel,
    ask,
    ask_all,
    opened,
    random_model,
    reciting,
    replies,
    take,
)
from torch import Tensor

from magister.engine.engine import Engine
from magister.engine.limits import Limits
from magister.engine.mailbox import Mailbox, ring
from magister.engine.reply import Reply as Saying
from magister.engine.runner import TorchRunner
from magister.engine.vocabulary import Vocabulary
from magister.model.cache import KVFormat
from magister.model.decoder import Attend
from magister.model.network import Model, native_parameters
from magister.types import Busy, FinishReason, Prompt, Sampling, TokenModel, Updatable

GREEDY: dict[str, Any] = {"temperature": 0.0}
LONG = Limits(context=500, blocks=300, block_size=4)


def test_the_engine_fits_both_sockets() -> None:
    with opened(random_model()) as engine:
        sockets: tuple[TokenModel, Updatable] = (engine, engine)
        assert sockets


def test_a_whole_reply_ends_its_turn_and_says_how_long_it_took() -> None:
    with reciting(b"one ", b"two") as engine:
        reply = ask(engine, [FIRST], **GREEDY)
    assert reply.ids == (FIRST + 1, FIRST + 2, END)
    # A caller that is late gets several tokens in one chunk; how many is a matter of time.
    assert 1 <= len(reply.chunks) <= len(reply.ids)
    assert (reply.finish, reply.last.trim, reply.last.stop, reply.last.cached_tokens) == (FinishReason.END, 0, None, 0)
    assert reply.forced == [False, False, False]
    assert (reply.logprobs, reply.sampled_logprobs, reply.entropy, reply.top) == ([], [], [], [])
    assert reply.last.timings is not None
    assert reply.last.timings.queued >= 0
    assert reply.last.timings.prefill > 0
    assert reply.last.timings.decode > 0
    assert all(chunk.timings is None for chunk in reply.chunks[:-1])


def test_max_tokens_and_the_context_end_a_reply() -> None:
    with opened(random_model()) as engine:
        for number in (1, 5):
            reply = ask(engine, [7, 8], max_tokens=number, ignore_end=True, **GREEDY)
            assert (len(reply.ids), reply.finish) == (number, FinishReason.LENGTH)
        for extra in (GREEDY, {**GREEDY, "max_tokens": 10_000}):
            reply = ask(engine, [7, 8], ignore_end=True, **extra)
            assert (len(reply.ids), reply.finish) == (LIMITS.context - 2, FinishReason.LENGTH)
        reply = ask(engine, [7] * (LIMITS.context - 1), ignore_end=True, **GREEDY)
        assert (len(reply.ids), reply.finish) == (1, FinishReason.LENGTH)


def test_ignore_end_goes_on() -> None:
    with reciting(b"a", follows={END: FIRST + 1}) as engine:
        assert ask(engine, [FIRST], max_tokens=5, **GREEDY).ids == (FIRST + 1, END)
        reply = ask(engine, [FIRST], max_tokens=5, ignore_end=True, **GREEDY)
    assert reply.ids == (FIRST + 1, END, FIRST + 1, END, FIRST + 1)
    assert reply.finish is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("pieces", "stop", "text", "found", "trims"),
    [
        ((b"one", b" two", b" three"), ("tw",), b"one ", "tw", 3),
        ((b"a", b"b", b"c", b"d"), ("bc",), b"a", "bc", 2),
        ((b"a", b"b", b"x", b"d"), ("bc",), b"abxd", None, 0),
        ((b"a", b"b", b"c"), ("cd",), b"abc", None, 0),
        ((b"cost: \xe2\x82", b"\xac", b"5"), ("€",), b"cost: ", "€", 3),
        (("é".encode(), b"\xc3", b"\xa9!"), ("éé!",), b"", "éé!", 5),
        ((b"ab", b"ab", b"abc", b"x"), ("ababc",), b"ab", "ababc", 5),
        ((b"abcdef",), ("cd", "bcde"), b"ab", "cd", 4),
        ((b"stop",), ("stop",), b"", "stop", 4),
    ],
)
def test_stop_strings(
    pieces: tuple[bytes, ...], stop: tuple[str, ...], text: bytes, found: str | None, trims: int
) -> None:
    with reciting(*pieces) as engine:
        reply = ask(engine, [FIRST], stop=stop, **GREEDY)
    table = (*[b""] * (FIRST + 1), *pieces)
    assert reply.text(table) == text
    assert (reply.last.stop, reply.last.trim) == (found, trims)
    assert reply.finish is (FinishReason.STOP if found else FinishReason.END)
    assert all(chunk.trim == 0 for chunk in reply.chunks[:-1])
    shown = b"".join(table[id_] for chunk in reply.chunks[:-1] for id_ in chunk.ids)
    assert text.startswith(shown)


def test_what_is_held_back_comes_when_a_reply_is_full() -> None:
    with reciting(b"a", b"b", b"c") as engine:
        reply = ask(engine, [FIRST], stop=("bcd",), max_tokens=3, **GREEDY)
        # A caller who looks late has all of it in one chunk.
        assert reply.ids == (FIRST + 1, FIRST + 2, FIRST + 3)
        assert reply.last.ids[-2:] == (FIRST + 2, FIRST + 3)
        assert (reply.finish, reply.last.trim) == (FinishReason.LENGTH, 0)


def test_no_stop_string_reaches_across_a_tag() -> None:
    with reciting(b"a", b"b", follows={FIRST + 1: END_THINK, END_THINK: FIRST + 2}) as engine:
        reply = ask(engine, [FIRST], stop=("ab",), **GREEDY)
    assert reply.ids == (FIRST + 1, END_THINK, FIRST + 2, END)


def test_penalties_count_generated_tokens_only() -> None:
    prompt = [FIRST] * 6
    with reciting(b"a", follows={FIRST: FIRST, FIRST + 1: FIRST}) as engine:
        assert ask(engine, prompt, max_tokens=4, **GREEDY).ids == (FIRST,) * 4
        for name in ("presence_penalty", "frequency_penalty"):
            reply = ask(engine, prompt, max_tokens=2, **{**GREEDY, name: 2.0})
            assert reply.ids[0] == FIRST, "the prompt's own tokens are free"
            assert reply.ids[1] != FIRST


def test_ids_that_are_never_sampled() -> None:
    for model, never in (
        (random_model(), frozenset[int]()),
        (random_model(), frozenset(range(FIRST, 20))),
        (random_model(vision=VISION), frozenset[int]()),
    ):
        vocabulary = Vocabulary(pieces=PIECES, end=END, think=THINK, end_think=END_THINK, never=never)
        sampling = Sampling(temperature=20.0, max_tokens=90, ignore_end=True, n=4, seed=1)
        with opened(model, vocabulary) as engine:
            choices = asyncio.run(replies(engine, Prompt((7,)), sampling))
        said = set(sum((reply.ids for reply in choices), ()))
        wanted = set(range(len(PIECES))) - never
        if model.vision is not None:
            wanted -= {VISION.image_token_id, VISION.image_break_token_id, VISION.image_end_token_id}
        assert said == wanted, "every other token is said sooner or later"


def test_a_row_of_nans_ends_its_own_request_only() -> None:
    model = random_model()
    dict(native_parameters(model))["tok_embeddings.weight"][9] = math.nan
    with opened(model) as engine:
        good = ask(engine, [7, 8], max_tokens=20, logit_bias={9: -1000.0}, **GREEDY)
        sampling = Sampling(max_tokens=20, logit_bias={9: -1000.0}, **GREEDY)
        mixed = ask_all(engine, ([7, 8], sampling), ([7, 9], sampling), ([9], sampling), ([7, 8], sampling))
    assert [reply.ids for reply in mixed] == [good.ids, (), (), good.ids]
    for reply in mixed[1:3]:
        assert reply.finish is FinishReason.ERROR
        assert "not finite" in (reply.last.error or "")


def test_slots_full_of_nans_do_no_harm_to_whoever_has_them_next() -> None:
    model = random_model()
    dict(native_parameters(model))["tok_embeddings.weight"][9] = math.nan
    sampling = Sampling(max_tokens=12, logit_bias={9: -1000.0}, ignore_end=True, **GREEDY)
    with opened(model, limits=Limits(context=24, blocks=12, block_size=4, step_tokens=32, running=4)) as engine:
        clean = ask_all(engine, ([7] * 3, sampling), ([8] * 9, sampling))
        ask_all(engine, *[([9] * 20, sampling)] * 4)
        again = ask_all(engine, ([7] * 3, sampling), ([8] * 9, sampling))
    assert [reply.ids for reply in again] == [reply.ids for reply in clean]


class _Breaking(Model):
    """Fails on token 9."""

    def forward(self, ids_or_x: Tensor, positions_t: Tensor, attend: Attend) -> Tensor:
        if (ids_or_x == 9).any():
            raise ArithmeticError("nine")
        return super().forward(ids_or_x, positions_t, attend)


def test_a_failing_step_reaches_every_caller_and_the_engine_goes_on() -> None:
    sampling = Sampling(max_tokens=60, ignore_end=True, logit_bias={9: -1000.0}, **GREEDY)

    async def run(engine: Engine) -> list[list[Reply] | BaseException]:
        asks = [replies(engine, Prompt(ids), sampling) for ids in ((7,), (8,), (9,))]
        return await asyncio.wait_for(asyncio.gather(*asks, return_exceptions=True), 30)

    with opened(random_model(kind=_Breaking)) as engine:
        for outcome in asyncio.run(run(engine)):
            assert isinstance(outcome, RuntimeError)
            assert isinstance(outcome.__cause__, ArithmeticError)
        assert len(ask(engine, [7], max_tokens=3, ignore_end=True, logit_bias={9: -1000.0}).ids) == 3


def _together(engine: Engine, *requests: Sampling) -> list[list[Reply] | BaseException]:
    """What becomes of requests whose first step is the same."""

    async def run() -> list[list[Reply] | BaseException]:
        gate = threading.Event()
        engine._stepper.submit(gate.wait)
        tasks = [asyncio.ensure_future(replies(engine, Prompt((7,)), sampling)) for sampling in requests]
        while engine.pulse[1] < len(tasks):
            await asyncio.sleep(0)
        gate.set()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)

    return asyncio.run(run())


@pytest.mark.parametrize("where", ["take", "chunks"])
def test_a_reply_that_ended_in_a_failing_step_is_told_too(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has said all it had to say when the second one fails: it is sent where it lay ready, else told too."""
    real = getattr(Saying, where)

    def failing(self: Saying, *arguments: Any) -> Any:
        if self.request.sampling.max_tokens == 2:
            raise MemoryError("two")
        return real(self, *arguments)

    with opened(random_model()) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(Saying, where, failing)
            outcomes = _together(engine, Sampling(max_tokens=1, ignore_end=True), Sampling(max_tokens=2))
        failed = outcomes
        if where == "chunks":
            whole, *failed = outcomes
            assert isinstance(whole, list)
            assert [reply.finish for reply in whole] == [FinishReason.LENGTH]
        for outcome in failed:
            assert isinstance(outcome, RuntimeError)
            assert isinstance(outcome.__cause__, MemoryError)
        assert len(ask(engine, [7], max_tokens=3, ignore_end=True).ids) == 3


def test_a_request_that_cannot_be_begun_is_told_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Saying.__init__

    def failing(self: Saying, request: Any, choice: int, *arguments: Any) -> None:
        if choice == 2:
            raise MemoryError("three")
        real(self, request, choice, *arguments)

    monkeypatch.setattr(Saying, "__init__", failing)
    with opened(random_model()) as engine:

        async def run() -> None:
            other = asyncio.ensure_future(replies(engine, Prompt((7,)), Sampling(max_tokens=60, ignore_end=True)))
            with pytest.raises(RuntimeError, match="three"):
                await replies(engine, Prompt((8,)), Sampling(n=3))
            assert len((await other)[0].ids) == 60

        asyncio.run(asyncio.wait_for(run(), 30))
        assert engine.pulse[1] == 0, "it counts as in flight no more"


def test_closing_ends_callers_in_flight_and_refuses_later_ones() -> None:
    engine = Engine(random_model(kind=SlowModel), VOCABULARY, LONG)

    async def run() -> None:
        stream = engine.generate(Prompt((7,)), Sampling(ignore_end=True))
        await anext(stream)
        await asyncio.to_thread(engine.close)
        with pytest.raises(RuntimeError, match="closed"):
            async for _ in stream:
                pass

    asyncio.run(run())
    with pytest.raises(RuntimeError, match="closed"):
        ask(engine, [7])
    with pytest.raises(RuntimeError, match="closed"):
        engine.publish(1, {})
    engine.close()


def test_a_closed_iterator_frees_its_blocks() -> None:
    with opened(random_model(kind=SlowModel), limits=LONG) as engine:
        sampling = Sampling(ignore_end=True, n=3)

        async def run() -> None:
            stream = engine.generate(Prompt((7, 8, 9)), sampling)
            async with aclosing(stream):
                async for _ in stream:
                    assert engine.load().free_blocks < LONG.blocks
                    break
            assert engine.load()[:3] == (0, 0, LONG.blocks)

        asyncio.run(run())
        asyncio.run(asyncio.wait_for(take(engine, [7], sampling, 5), 30))


def test_a_cancelled_task_frees_its_blocks() -> None:
    with opened(random_model(kind=SlowModel), limits=LONG) as engine:

        async def run() -> None:
            task = asyncio.ensure_future(replies(engine, Prompt((7,)), Sampling(ignore_end=True)))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert engine.load()[:3] == (0, 0, LONG.blocks)

        asyncio.run(run())


def test_too_many_are_told_to_come_later() -> None:
    limits = Limits(context=500, blocks=300, block_size=4, running=2, waiting=1)
    with opened(random_model(kind=SlowModel), limits=limits) as engine:

        async def run() -> None:
            stream = engine.generate(Prompt((7,)), Sampling(n=2, ignore_end=True))
            async with aclosing(stream):
                await anext(stream)
                with pytest.raises(Busy) as busy:
                    await anext(engine.generate(Prompt((7,)), Sampling(n=2)))
                assert busy.value.retry_after > 0
            assert engine.load().running == 0
            assert len(await replies(engine, Prompt((7,)), Sampling(n=3, max_tokens=2))) == 3

        asyncio.run(run())


def test_several_event_loops_share_an_engine() -> None:
    sampling = Sampling(max_tokens=30, ignore_end=True, seed=4)
    outcomes: dict[int, tuple[int, ...]] = {}
    with opened(random_model()) as engine:
        alone = ask(engine, [7, 8], max_tokens=30, ignore_end=True, seed=4).ids

        def ask_from(number: int) -> None:
            outcomes[number] = ask_all(engine, ([7, 8], sampling))[0].ids

        threads = [threading.Thread(target=ask_from, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert outcomes == dict.fromkeys(range(4), alone)


def test_a_reader_whose_loop_is_gone_is_found_out() -> None:
    async def make() -> Mailbox:
        return Mailbox()

    box = asyncio.run(make())
    assert ring([box]) == [box]
    limits = Limits(context=500, blocks=300, block_size=4, running=2, waiting=1)
    with opened(random_model(kind=SlowModel), limits=limits) as engine:
        loop = asyncio.new_event_loop()
        stream = engine.generate(Prompt((7,)), Sampling(n=3, ignore_end=True))
        loop.run_until_complete(anext(stream))
        loop.close()
        while engine.load().running:
            time.sleep(0.01)
        assert len(asyncio.run(replies(engine, Prompt((7,)), Sampling(n=3, max_tokens=1)))) == 3


def test_published_weights_are_used_from_the_next_step_on() -> None:
    old, new = random_model(0, kind=SlowModel), random_model(1)
    tensors = {name: parameter.clone() for name, parameter in native_parameters(new)}
    greedy = Sampling(temperature=0.0, max_tokens=80, ignore_end=True)
    with opened(new) as engine:
        wanted = ask_all(engine, ([7, 8], greedy))[0].ids
    with opened(old) as engine:
        before = ask_all(engine, ([7, 8], greedy))[0]
        assert {chunk.version for chunk in before.chunks} == {0}

        async def run() -> list[int]:
            versions: list[int] = []
            async for chunk in engine.generate(Prompt((7, 8)), greedy):
                versions.append(chunk.version)
                if len(versions) == 5:
                    await asyncio.to_thread(engine.publish, 7, tensors)
            return versions

        versions = asyncio.run(run())
        assert versions[0] == 0
        assert versions[-1] == 7
        assert versions == sorted(versions)
        after = ask_all(engine, ([7, 8], greedy))[0]
    assert before.ids != wanted
    assert (after.ids, after.last.version) == (wanted, 7)


def test_publishing_what_does_not_fit_changes_nothing() -> None:
    model = random_model()
    with opened(model) as engine:
        with pytest.raises(ValueError, match="nobody: the model has no such tensor"):
            engine.publish(1, {"nobody": torch.zeros(1)})
        with pytest.raises(ValueError, match=r"norm.weight: has shape \(3,\), must have \(32,\)"):
            engine.publish(1, {"norm.weight": torch.zeros(3)})
        with pytest.raises(ValueError, match=r"norm.weight: is a _Shaped, must be a tensor"):
            engine.publish(1, {"norm.weight": _Shaped()})
        assert ask(engine, [7], max_tokens=1).last.version == 0


class _Shaped:
    shape = (32,)


def test_weights_of_no_version_compute_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should copying fail half-way, nothing is said under a number that is not theirs, until all of it was copied."""
    tensors = {name: parameter.clone() for name, parameter in native_parameters(random_model(1))}

    def halfway(self: TorchRunner, tensors: Any) -> None:
        raise MemoryError

    with opened(random_model()) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(TorchRunner, "replace", halfway)
            with pytest.raises(MemoryError):
                engine.publish(1, tensors)
        engine.publish(2, {"norm.weight": tensors["norm.weight"]})
        with pytest.raises(RuntimeError, match="publishing failed half-way"):
            ask(engine, [7], max_tokens=1)
        engine.publish(1, tensors)
        assert ask(engine, [7], max_tokens=1).last.version == 1


@pytest.mark.parametrize(
    ("context", "pieces", "message"),
    [(600, PIECES, "context is 600, the model holds 512"), (96, PIECES * 2, "pieces has 72 tokens, the model 40")],
)
def test_an_engine_that_does_not_fit_its_model(context: int, pieces: tuple[bytes, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(random_model(), Vocabulary(pieces=pieces, end=0), Limits(context=context, blocks=200, block_size=4))


def test_a_runner_of_another_size_or_a_second_format() -> None:
    runner = TorchRunner(random_model(), 10, 4)
    with pytest.raises(ValueError, match="limits have 20 blocks of 4 tokens, the runner 10 of 4"):
        Engine(runner, VOCABULARY, Limits(context=40, blocks=20, block_size=4))
    with pytest.raises(ValueError, match="kv is int8, but a runner has chosen its own"):
        Engine(runner, VOCABULARY, Limits(context=40, blocks=10, block_size=4), kv=KVFormat.INT8)


def test_keys_and_values_in_another_format() -> None:
    with opened(random_model()) as engine:
        exact = ask(engine, [7, 8, 9], max_tokens=5, logprobs=True, **GREEDY).logprobs
    for kv in (KVFormat.BF16, KVFormat.INT8):
        with Engine(random_model(), VOCABULARY, LIMITS, kv=kv) as engine:
            rounded = ask(engine, [7, 8, 9], max_tokens=5, logprobs=True, **GREEDY).logprobs
        assert rounded != exact
        assert rounded[0] == pytest.approx(exact[0], abs=0.2)


def test_what_several_steps_said_while_nobody_looked_comes_as_one_chunk() -> None:
    with opened(random_model(), limits=LONG) as engine:

        async def run() -> list[int]:
            sizes: list[int] = []
            async for chunk in engine.generate(Prompt((7,)), Sampling(max_tokens=200, ignore_end=True)):
                sizes.append(len(chunk.ids))
                time.sleep(0.05)
            return sizes

        sizes = asyncio.run(run())
    assert sum(sizes) == 200
    assert max(sizes) > 1
