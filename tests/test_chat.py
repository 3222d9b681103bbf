"""The adapter: a token model that replays given chunks becomes a chat model."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest

from magister.chat import LocalChat
from magister.text import Renderer, TekkenPlan, detect_format, make_tokenizer
from magister.types import (
    Annotation,
    ChatModel,
    ChatRequest,
    Chunk,
    Effort,
    Event,
    Finish,
    FinishReason,
    OpenAt,
    Prompt,
    Refused,
    Reply,
    Sampling,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    Timings,
    Tool,
    ToolChoice,
    ToolMode,
    TooLong,
    Usage,
    assistant,
    collect,
    user,
)


@functools.cache
def renderer() -> Renderer:
    tokenizer = make_tokenizer(TekkenPlan(ranks=512, specials=64, vision=False))
    return Renderer(tokenizer, detect_format(tokenizer))


@dataclass
class Replay:
    """A token model that says what it was given."""

    chunks: list[Chunk]
    failure: Exception | None = None
    closed: bool = False
    seen: list[tuple[Prompt, Sampling]] = field(default_factory=list)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        self.seen.append((prompt, sampling))
        try:
            for chunk in self.chunks:
                await asyncio.sleep(0)
                yield chunk
            if self.failure:
                raise self.failure
        finally:
            self.closed = True


ASK = ChatRequest(messages=(user("?"),))
TIMINGS = Timings(queued=0.1, prefill=0.2, decode=0.3)


def said(*content: str | Thinking, ended: bool = True) -> tuple[int, ...]:
    return renderer().reply(assistant(*content), ended=ended)


def run(model: Replay, request: ChatRequest = ASK) -> list[Event]:
    async def gather() -> list[Event]:
        return [event async for event in LocalChat(model, renderer()).chat(request)]

    return asyncio.run(gather())


def reply(model: Replay, request: ChatRequest = ASK) -> Reply:
    return asyncio.run(collect(LocalChat(model, renderer()).chat(request)))


def last(ids: tuple[int, ...], reason: FinishReason = FinishReason.END, choice: int = 0) -> Chunk:
    return Chunk(choice=choice, ids=ids, finish=reason, cached_tokens=16, timings=TIMINGS)


def test_it_is_a_chat_model() -> None:
    model: ChatModel = LocalChat(Replay([]), renderer())
    assert model


def test_a_reply_is_thought_text_usage_finish() -> None:
    ids = said(Thinking("2 + 2"), "4")
    events = run(Replay([*(Chunk(ids=(token,)) for token in ids[:-1]), last(ids[-1:])]))
    thinking = "".join(event.text for event in events if isinstance(event, ThinkingDelta))
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert (thinking, text) == ("2 + 2", "4")
    prompt = len(renderer().render(ASK).ids)
    assert events[-2] == Usage(
        prompt_tokens=prompt,
        cached_tokens=16,
        thinking_tokens=len(ids) - 2,
        completion_tokens=len(ids),
        timings=TIMINGS,
    )
    assert events[-1] == Finish(reason=FinishReason.END)


def test_the_prompt_and_the_sampling_are_passed_on() -> None:
    model = Replay([last(said("4"))])
    request = ChatRequest(
        messages=(user("?"), assistant(Thinking("T", closed=False))), sampling=Sampling(seed=7, max_tokens=3)
    )
    reply(model, request)
    ((prompt, sampling),) = model.seen
    assert prompt == renderer().render(request)
    assert (prompt.open_at, sampling) == (OpenAt.THOUGHT, request.sampling)


def test_choices_run_side_by_side_and_the_prompt_counts_once() -> None:
    one, two = said(Thinking("a"), "b"), said("c")
    model = Replay([Chunk(choice=1, ids=two[:1]), Chunk(ids=one[:2]), last(two[1:], choice=1), last(one[2:])])
    first, second = reply(model, ChatRequest(messages=ASK.messages, sampling=Sampling(n=2))).choices
    assert first.message == assistant(Thinking("a"), "b")
    assert second.message == assistant("c")
    assert (first.usage.prompt_tokens, first.usage.cached_tokens) == (len(renderer().render(ASK).ids), 16)
    assert (second.usage.prompt_tokens, second.usage.cached_tokens) == (0, 0)
    assert (first.usage.completion_tokens, second.usage.completion_tokens) == (len(one), len(two))
    assert (first.usage.thinking_tokens, second.usage.thinking_tokens) == (3, 0)


def test_a_turn_that_ends_in_calls_finishes_so() -> None:
    made = renderer().tokenizer
    ids = (made.id("[TOOL_CALLS]"), *made.encode_text("add"), made.id("[ARGS]"), *made.encode_text('{"a": 1}'))
    request = ChatRequest(messages=ASK.messages, tools=(Tool("add", {}),))
    choice = reply(Replay([last((*ids, 2))]), request).choices[0]
    (call,) = choice.message.tool_calls
    assert (call.name, call.arguments, choice.finish) == ("add", '{"a": 1}', FinishReason.TOOL_CALLS)
    cut = reply(Replay([last(ids, FinishReason.LENGTH)]), request).choices[0]
    assert cut.finish is FinishReason.LENGTH
    longer = ChatRequest(messages=(user("?"), assistant("!"), user("?")), tools=request.tools)
    again, other = (reply(Replay([last((*ids, 2))]), asked).message.tool_calls[0].id for asked in (request, longer))
    assert call.id == again != other
    none = ChatRequest(messages=ASK.messages, tools=request.tools, tool_choice=ToolChoice(ToolMode.NONE))
    assert reply(Replay([last((*ids, 2))]), none).message == assistant('add{"a": 1}')


def test_a_continued_thought_is_continued() -> None:
    request = ChatRequest(messages=(user("?"), assistant(Thinking("2 + 2", closed=False))))
    tokens = (*renderer().tokenizer.encode_text(" = 4"), renderer().tokenizer.id("[/THINK]"), *said("4"))
    choice = reply(Replay([last(tokens)]), request).choices[0]
    assert choice.message.parts == (Thinking(" = 4"), Text("4"))
    assert choice.usage.thinking_tokens == len(tokens) - 2


def test_stop_strings_errors_and_logprobs_are_passed_on() -> None:
    stopped = Chunk(ids=said("4, so", ended=False), trim=4, finish=FinishReason.STOP, stop=", so")
    choice = reply(Replay([stopped])).choices[0]
    assert (choice.message.text, choice.finish, choice.stop) == ("4", FinishReason.STOP, ", so")
    failed = reply(Replay([Chunk(finish=FinishReason.ERROR, error="no blocks")])).choices[0]
    assert (failed.finish, failed.error) == (FinishReason.ERROR, "no blocks")
    ids = said("4")
    chunk = Chunk(ids=ids, logprobs=(-0.1,) * len(ids), sampled_logprobs=(-0.2,) * len(ids), finish=FinishReason.END)
    asked = ChatRequest(messages=ASK.messages, sampling=Sampling(logprobs=True))
    tokens = reply(Replay([chunk]), asked).choices[0].tokens
    assert [token.id for token in tokens] == list(ids[:-1])


def test_a_stream_that_breaks_off_has_no_finish_but_all_that_was_said() -> None:
    ids = said("4", ended=False)
    choice = reply(Replay([Chunk(ids=(*ids, 64 + 0xE5))])).choices[0]
    assert (choice.message.text, choice.finish) == ("4\ufffd", None)
    assert choice.usage.completion_tokens == len(ids) + 1


def test_refusals_and_failures_reach_the_caller() -> None:
    model = Replay([], failure=TooLong(9, 8))
    with pytest.raises(TooLong):
        run(model)
    assert model.closed
    untouched = Replay([])
    with pytest.raises(ValueError, match="messages: must not be empty"):
        run(untouched, ChatRequest(messages=()))
    assert not untouched.seen


def test_closing_the_iterator_closes_the_token_model() -> None:
    model = Replay([Chunk(ids=said("a", ended=False))] * 1000)

    async def leave_early() -> None:
        events = LocalChat(model, renderer()).chat(ASK)
        assert await anext(events) == TextDelta(text="a")
        assert not model.closed
        await events.aclose()

    asyncio.run(leave_early())
    assert model.closed


def test_no_torch() -> None:
    code = "import sys, magister.chat, magister.text; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("effort", "tokens"),
    [("none", 0), ("minimal", 32), ("low", 128), ("medium", 256), ("high", 512), ("xhigh", 768), ("max", None)],
)
def test_an_effort_is_a_share_of_the_context(effort: str, tokens: int | None) -> None:
    model = Replay([last(said("4"))])
    chat = LocalChat(model, renderer(), context=1024)
    asyncio.run(collect(chat.chat(ChatRequest(messages=(user("?"),), effort=Effort(effort)))))
    assert model.seen[0][1].thinking_tokens == tokens
    given = ChatRequest(messages=(user("?"),), effort=Effort(effort), sampling=Sampling(thinking_tokens=7))
    asyncio.run(collect(chat.chat(given)))
    assert model.seen[1][1].thinking_tokens == 7


def test_an_effort_needs_a_context_and_a_thought_that_can_be_cut() -> None:
    request = ChatRequest(messages=(user("?"),), effort=Effort.LOW)
    with pytest.raises(Refused, match="effort: low: the size of the context is not known here"):
        run(Replay([]), request)
    old = make_tokenizer(TekkenPlan(version="v7", ranks=512, specials=64, vision=False))
    tagged = LocalChat(Replay([last((2,))]), Renderer(old, detect_format(old)), context=1024)
    with pytest.raises(Refused, match="effort: low: this model writes its thought as text"):
        asyncio.run(collect(tagged.chat(request)))
    asyncio.run(collect(tagged.chat(ChatRequest(messages=(user("?"),), effort=Effort.HIGH))))


def test_what_events_have_no_place_for_is_refused() -> None:
    request = ChatRequest(messages=(user("?"),), sampling=Sampling(logprobs=True, prompt_logprobs=True))
    with pytest.raises(Refused, match="prompt_logprobs"):
        run(Replay([]), request)


def test_near_the_limit_the_oldest_thoughts_go_first() -> None:
    thought = "so be it " * 20
    turns = [turn for at in range(4) for turn in (user(f"q{at}"), assistant(Thinking(f"{at}{thought}"), f"a{at}"))]
    request = ChatRequest(messages=(*turns, user("and?")))
    whole = len(renderer().render(request).ids)
    each = (whole - len(renderer().render(ChatRequest(messages=request.messages, keep_thinking=False)).ids)) // 4

    def left(context: int) -> tuple[int, list[str]]:
        model = Replay([last(said("4"))])
        chat = LocalChat(model, renderer(), context=context)
        events = asyncio.run(gathered(chat, request))
        counts = [event.data["count"] for event in events if isinstance(event, Annotation)]
        text = renderer().tokenizer.decode(model.seen[0][0].ids)
        assert chat.count(request) == len(model.seen[0][0].ids)
        return sum(counts), [number for number in "0123" if f"{number}so be" in text]

    room = whole * 4 // 3 + 8
    assert left(room) == (0, ["0", "1", "2", "3"])
    assert left(room - each // 2) == (1, ["1", "2", "3"])
    assert left(room - 2 * each) == (2, ["2", "3"])
    # Nothing makes it fit: all thoughts go, and the token model says what is too long.
    assert left(64) == (4, [])


async def gathered(chat: LocalChat, request: ChatRequest) -> list[Event]:
    return [event async for event in chat.chat(request)]
