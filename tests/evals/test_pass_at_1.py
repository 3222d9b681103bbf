import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest

from magister.evals.pass_at_1 import measure, problems, wilson
from magister.tasks import FAMILIES, HONEST, is_held_out
from magister.types import ChatRequest, Event, Finish, FinishReason, TextDelta, Usage


@dataclass(frozen=True)
class Parrot:
    """A chat model that answers from a table; asked anything else it fails the sequence."""

    answers: dict[str, str]

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        prompt = request.messages[-1].text
        if prompt not in self.answers:
            yield Finish(reason=FinishReason.ERROR, error="unknown prompt")
            return
        yield TextDelta(text=self.answers[prompt])
        yield Usage(completion_tokens=3)
        yield Finish(reason=FinishReason.END)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_right_reply_scores_and_silence_does_not(family: str) -> None:
    asked = problems(family, 20, seed=0, book="held_out")
    right = asyncio.run(measure(Parrot({p.prompt: p.reply for p in asked}), asked, name=family))
    silent = asyncio.run(measure(Parrot({p.prompt: "" for p in asked}), asked, name=family))
    assert right.interval.share == 1.0
    assert silent.correct == 0


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - HONEST))
def test_problems_are_held_out_different_and_repeatable(family: str) -> None:
    asked = problems(family, 30, seed=1, book="held_out")
    assert asked == problems(family, 30, seed=1, book="held_out")
    assert len({problem.prompt for problem in asked}) == 30
    assert all(is_held_out(family, problem.kind, problem.operands) for problem in asked)
    assert {problem.level for problem in asked} == set(range(1, FAMILIES[family].LEVELS + 1))


def test_a_small_family_gives_all_its_prompts_and_more_are_only_added() -> None:
    everything = problems("greeting", 500, seed=0, book="held_out")
    assert len(everything) == 39
    for n in (10, 39, 40):
        assert problems("greeting", n, seed=0, book="held_out") == everything[:n]


def test_a_broken_model_is_no_weak_model() -> None:
    asked = problems("arithmetic", 3, seed=0, book="held_out")
    with pytest.raises(RuntimeError, match="unknown prompt"):
        asyncio.run(measure(Parrot({}), asked, name="arithmetic"))


def test_wilson_has_the_published_values() -> None:
    share, low, high = wilson(90, 100)
    assert share == 0.9
    assert low == pytest.approx(0.8256, abs=1e-4)
    assert high == pytest.approx(0.9448, abs=1e-4)
    assert wilson(0, 0) == (0.0, 0.0, 1.0)
    assert wilson(10, 10).high == 1.0
