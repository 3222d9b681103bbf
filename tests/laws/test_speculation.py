"""Speculation on = off: the same tokens and logprobs in fewer steps, greedy or sampled, whatever holds the reply.

In a world that says nearly always what it said before, so that guesses are right, and wrong, all the time.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
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
    Make,
    Reply,
    ask,
    ask_all,
    compiled_runner,
    opened,
    reciting_model,
    replies,
    torch_runner,
)

from magister.engine.engine import Load
from magister.engine.limits import Limits
from magister.model.cache import KVFormat
from magister.model.network import Model
from magister.types import FinishReason, OpenAt, Prompt, Sampling

RUNNERS = {"torch": torch_runner(), "compiled": compiled_runner(KVFormat.FP32)}
EVERYWHERE = pytest.mark.parametrize("make", RUNNERS.values(), ids=RUNNERS)
LIMITS_ON = replace(LIMITS, speculation=5, row_cost=0.0)
LIMITS_OFF = replace(LIMITS, prefix_cache=False)
PERIOD = 6
PROMPT = [FIRST + place % PERIOD for place in range(2 * PERIOD)]
OFTEN: dict[str, Any] = {"temperature": 0.14, "ignore_end": True, "max_tokens": 60}
"""Some nine tokens in ten are the likeliest."""

KINDS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    OFTEN,
    OFTEN | {"top_p": 0.999},
    OFTEN | {"top_k": 5, "frequency_penalty": 0.05},
    OFTEN | {"min_p": 0.0003, "presence_penalty": 0.1},
    OFTEN | {"logit_bias": {FIRST + 2: -1.0}},
    OFTEN | {"stop": ("cdefa", "zz")},
    OFTEN | {"thinking_tokens": 4, "logit_bias": {THINK: 0.9}},
    {"temperature": 1.0, "max_tokens": 40},
)


def _model() -> Model:
    """After FIRST, FIRST + 1, ..., the period begins again; a thought goes on for ever."""
    follows = {FIRST + place: FIRST + (place + 1) % PERIOD for place in range(PERIOD)}
    return reciting_model(follows | {THINK: FIRST, END_THINK: FIRST + 1}, len(PIECES))


def _run(make: Make, limits: Limits, requests: list[tuple[list[int], Sampling]]) -> tuple[list[Reply], Load]:
    with opened(_model(), limits=limits, make=make) as engine:
        return ask_all(engine, *requests), engine.load()


def _assert_equal(ours: list[Reply], theirs: list[Reply]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one.ids, one.forced, one.finish) == (other.ids, other.forced, other.finish)
        assert (one.last.stop, one.last.trim) == (other.last.stop, other.last.trim)
        assert [[alternative.id for alternative in top[:1]] for top in one.top] == [
            [alternative.id for alternative in top[:1]] for top in other.top
        ]
        for ours_f, theirs_f in (
            (one.logprobs, other.logprobs),
            (one.sampled_logprobs, other.sampled_logprobs),
            (one.entropy, other.entropy),
        ):
            torch.testing.assert_close(ours_f, theirs_f, rtol=0, atol=1e-4)


@EVERYWHERE
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_on_is_off(kind: dict[str, Any], make: Make) -> None:
    values = {"max_tokens": 60, "logprobs": True, "top_logprobs": 1} | kind
    requests = [(PROMPT[: len(PROMPT) - seed % 3], Sampling(**values, seed=seed)) for seed in range(8)]
    off, plain = _run(make, LIMITS_OFF, requests)
    on, load = _run(make, LIMITS_ON, requests)
    _assert_equal(on, off)
    assert plain.guessed == 0
    assert load.right > 0
    if kind["temperature"]:
        assert load.right < load.guessed
    assert load.steps <= plain.steps or kind["temperature"] == 1.0, "its batches fall out otherwise"


@EVERYWHERE
def test_a_repeating_greedy_reply_takes_a_sixth_of_the_steps(make: Make) -> None:
    request = (PROMPT, Sampling(temperature=0.0, max_tokens=60, ignore_end=True))
    (off,), plain = _run(make, LIMITS_OFF, [request])
    (on,), load = _run(make, LIMITS_ON, [request])
    assert on.ids == off.ids
    assert (plain.steps, load.steps) == (60, 11)


def test_bans_and_forced_tokens_hold_in_the_middle_of_guesses() -> None:
    sampling: dict[str, Any] = {"temperature": 0.0, "max_tokens": 30, "thinking_tokens": 9}
    outcomes = []
    for limits in (LIMITS_OFF, LIMITS_ON):
        with opened(_model(), limits=limits) as engine:
            outcomes.append(ask(engine, [*PROMPT, THINK], open_at=OpenAt.THOUGHT, **sampling))
    off, on = outcomes
    assert (on.ids, on.forced) == (off.ids, off.forced)
    assert on.ids[9] == END_THINK
    assert on.forced.index(True) == 9


def test_a_guess_is_never_heard_after_the_end() -> None:
    follows = {FIRST: FIRST + 1, FIRST + 1: FIRST + 2, FIRST + 2: END, END: FIRST}
    prompt = [FIRST, FIRST + 1, FIRST + 2, END, FIRST, FIRST + 1, FIRST + 2, END, FIRST, FIRST + 1]
    with opened(reciting_model(follows, len(PIECES)), limits=LIMITS_ON) as engine:
        reply = ask(engine, prompt, temperature=0.0)
        assert engine.load().guessed == 5, "END, FIRST, FIRST + 1, ..."
    assert (reply.ids, reply.finish) == ((FIRST + 2, END), FinishReason.END)


@EVERYWHERE
def test_choices_share_a_prompt_and_guess_each_for_itself(make: Make) -> None:
    sampling = Sampling(n=6, seed=3, logprobs=True, **OFTEN)
    outcomes = []
    for limits in (LIMITS_OFF, LIMITS_ON):
        with opened(_model(), limits=limits, make=make) as engine:
            outcomes.append(asyncio.run(replies(engine, Prompt(tuple(PROMPT)), sampling)))
    _assert_equal(outcomes[1], outcomes[0])


def test_where_guesses_lose_they_are_given_up() -> None:
    """Luck at a high temperature cannot be guessed: after some tries only one in many steps is spent on it."""
    requests = [(PROMPT * 3, Sampling(temperature=3.0, max_tokens=50, seed=seed, ignore_end=True)) for seed in range(8)]
    _, load = _run(torch_runner(), replace(LIMITS_ON, row_cost=0.4, running=1), requests)
    assert load.guessed < load.steps / 2
