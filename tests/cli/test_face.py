"""`magister.load`, as a program uses it, on the shipped nano."""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing

import pytest

import magister
from magister.cli.face import LocalModel, SamplingOptions
from magister.types import Finish, Refused, Sampling, TextDelta, ThinkingDelta, assistant, fold, user


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    with magister.load("nano") as loaded:
        yield loaded


def test_chat_is_the_fold_of_stream(model: LocalModel) -> None:
    answer = model.chat("What is 12 + 7?", max_tokens=64)
    assert fold(model.stream("What is 12 + 7?", max_tokens=64)).message == answer.message
    assert answer.model == "nano"
    assert answer.usage.completion_tokens > 0
    assert answer.usage.thinking_tokens <= answer.usage.completion_tokens


def test_the_twins_agree(model: LocalModel) -> None:
    async def both() -> tuple[str, list[object]]:
        answer = await model.achat("What is 12 + 7?", max_tokens=64)
        async with aclosing(model.astream("What is 12 + 7?", max_tokens=64)) as stream:
            return answer.answer, [event async for event in stream]

    text, events = asyncio.run(both())
    assert text == model.chat("What is 12 + 7?", max_tokens=64).answer
    assert isinstance(events[-1], Finish)


def test_a_conversation_goes_on(model: LocalModel) -> None:
    first = model.chat("What is 12 + 7?", max_tokens=64)
    second = model.chat([user("What is 12 + 7?"), first.message, user("What is 5 + 5?")], max_tokens=64)
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


def test_leaving_a_stream_frees_its_blocks(model: LocalModel) -> None:
    free = model.loaded.engine.load().free_blocks
    stream = model.stream("What is 12 + 7?", temperature=2.0)
    next(stream)
    stream.close()
    deadline = 100
    while model.loaded.engine.load().free_blocks != free and deadline:
        deadline -= 1
    assert model.loaded.engine.load().free_blocks == free


def test_seeds_repeat_and_differ(model: LocalModel) -> None:
    def said(seed: int) -> str:
        reply = model.chat("Hello", temperature=10.0, seed=seed, max_tokens=24)
        return reply.thinking + reply.answer

    assert said(1) == said(1)
    assert said(1) != said(2)


def test_events_are_typed_and_in_order(model: LocalModel) -> None:
    kinds = [type(event) for event in model.stream("What is 12 + 7?", max_tokens=64)]
    assert kinds[-1] is Finish
    if ThinkingDelta in kinds and TextDelta in kinds:
        assert kinds.index(ThinkingDelta) < kinds.index(TextDelta)


def test_what_cannot_be_honoured_is_refused(model: LocalModel) -> None:
    with pytest.raises(Refused, match="temperature"):
        model.chat("x", temperature=-1.0)
    with pytest.raises(ValueError, match="images"):
        model.chat([user("x"), assistant("y"), user("z")], images=[b"x"])


def test_a_forgotten_model_is_closed() -> None:
    forgotten = magister.load("nano")
    finalizer = forgotten._close
    del forgotten
    assert not finalizer.alive


@pytest.mark.parametrize("asked", ["chat.chat(asked).answer", "next(stream := chat.stream(asked, ignore_end=True))"])
def test_a_program_that_ends_without_closing_says_nothing_of_it(asked: str) -> None:
    code = f"import magister; chat = magister.load('nano'); asked = 'What is 3 + 4?'; print({asked})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=True)
    assert done.stdout
    assert done.stderr == b""


def test_unknown_models_are_named() -> None:
    with pytest.raises(ValueError, match="no-such"):
        magister.load("no-such")


@pytest.mark.parametrize(
    "options", [{"temperature": "hot"}, {"seed": "x"}, {"top_p": None}, {"seed": 1.5}, {"no_such": 1}, {"grammar": "x"}]
)
def test_wrong_options_are_refused_and_never_hang(model: LocalModel, options: SamplingOptions) -> None:
    with pytest.raises(Refused):
        model.chat("hi", **options)


def test_one_stop_string_is_one_stop_string(model: LocalModel) -> None:
    whole = model.chat("What is 12 + 7?", max_tokens=64).answer
    assert model.chat("What is 12 + 7?", max_tokens=64, stop="answer").answer == whole.split("answer")[0]


def test_a_prompt_must_be_words_or_messages(model: LocalModel) -> None:
    with pytest.raises(ValueError, match="prompt"):
        model.chat(["hi"])  # type: ignore[list-item]


def test_options_are_the_fields_of_sampling() -> None:
    # A chat's events have no place for the prompt's probabilities.
    assert set(SamplingOptions.__annotations__) == set(Sampling.__struct_fields__) - {"prompt_logprobs"}


def test_closing_ends_streams_in_flight_and_refuses_new_ones() -> None:
    loaded = magister.load("nano")
    ended = threading.Event()

    def read() -> None:
        with contextlib.suppress(RuntimeError):
            for _ in loaded.stream("What is 12 + 7?", ignore_end=True):
                pass
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.2)
    loaded.close()
    assert ended.wait(20)
    reader.join()
    with pytest.raises(RuntimeError, match="closed"):
        loaded.chat("hi")


def test_the_context_may_be_smaller_and_never_larger() -> None:
    with magister.load("nano", context=64) as small:
        assert small.loaded.context == 64
        reply = small.chat("What is 12 + 7?", ignore_end=True)
        assert reply.usage.prompt_tokens + reply.usage.completion_tokens == 64
    with pytest.raises(ValueError, match="4096"):
        magister.load("nano", context=4096)
