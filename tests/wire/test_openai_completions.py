"""Plain Completions: what is read and refused by name, what is written, and both directions as equations."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.canned_streams import cut
from tests.wire.openai_worlds import ANYTHING, frames

from magister.types import FinishReason, Refused, Sampling, Upstream, Usage
from magister.wire import openai_completions as completions
from magister.wire.dialect import Stamp
from magister.wire.fault import BadRequest, Fault, Kind
from magister.wire.openai_completions import CompletionAsked, Piece

STAMP = Stamp(id="a" * 32, created=7, model="nano")
SIXTEEN = {"sampling": Sampling(max_tokens=16), "given": frozenset({"max_tokens"})}


def read(**fields: Any) -> CompletionAsked:
    return completions.read_request(json.dumps({"model": "nano", "prompt": "hi", **fields}).encode())


def test_a_plain_request() -> None:
    assert read() == CompletionAsked(model="nano", prompts=("hi",), **SIXTEEN)  # type: ignore[arg-type]
    assert not read(stream=True).usage_at_end
    assert read(stream=True, stream_options={"include_usage": True}).usage_at_end


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("", ("",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        (["a", [3]], ("a", (3,))),
    ],
)
def test_prompts(prompt: Any, prompts: Any) -> None:
    assert read(prompt=prompt).prompts == prompts


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("prompt", {"prompt": None}),
        ("prompt", {"prompt": []}),
        ("prompt[1]", {"prompt": ["a", 1]}),
        ("prompt[1]", {"prompt": [1, -1]}),
        ("prompt[0]", {"prompt": [[]]}),
        ("prompt[1][0]", {"prompt": [[1], [1 << 31]]}),
        ("prompt", {"prompt": ["a"] * 129}),
        ("suffix", {"suffix": "x"}),
        ("best_of", {"best_of": 2}),
        ("best_of", {"best_of": 1, "n": 2}),
        ("logprobs", {"logprobs": 21}),
        ("logprobs", {"logprobs": True}),
        ("max_tokens", {"max_tokens": 0}),
        ("temperature", {"temperature": -1}),
        ("stream_options", {"stream_options": {}}),
        ("messages", {"messages": []}),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(field: str, given: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**given)
    assert caught.value.fault.field == field


def test_settings() -> None:
    asked = read(n=2, best_of=2, logprobs=0, echo=True, return_token_ids=True, skip_special_tokens=False, user="u")
    assert asked.sampling == Sampling(max_tokens=16, n=2, logprobs=True, top_logprobs=0, prompt_logprobs=True)
    assert (asked.echo, asked.token_ids, asked.special_tokens, asked.labels) == (True, True, True, {"user": "u"})


SETTINGS = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, 99)},
    optional={
        "temperature": st.floats(0, 2),
        "top_k": st.integers(0, 99),
        "logit_bias": st.dictionaries(st.integers(0, 99), st.floats(-100, 100), min_size=1, max_size=3),
        "seed": st.integers(0, 1 << 62),
        "n": st.integers(1, 128),
        "stop": st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3).map(tuple),
        "ignore_end": st.booleans(),
    },
)
IDS = st.lists(st.integers(0, 99), min_size=1, max_size=4).map(tuple)


@given(st.data(), st.booleans(), st.sampled_from([None, 0, 3]))
def test_what_is_asked_is_what_is_read(data: Any, streams: bool, logprobs: int | None) -> None:
    settings, echo = data.draw(SETTINGS), data.draw(st.booleans())
    if logprobs is not None:
        settings |= {"logprobs": True, "top_logprobs": logprobs}
        if echo:
            settings |= {"prompt_logprobs": True, "max_tokens": data.draw(st.integers(0, 3))}
    asked = CompletionAsked(
        model="nano",
        prompts=data.draw(st.lists(st.one_of(st.text(max_size=3), IDS), min_size=1, max_size=3).map(tuple)),
        sampling=Sampling(**settings),
        given=frozenset(settings),
        stream=streams,
        usage_at_end=data.draw(st.booleans()) if streams else True,
        echo=echo,
        token_ids=data.draw(st.booleans()),
        special_tokens=data.draw(st.booleans()),
        labels=data.draw(st.sampled_from([{}, {"user": "u"}])),
    )
    assert completions.read_request(completions.write_request(asked)) == asked


def test_the_prompts_probabilities_go_with_its_echo() -> None:
    asked = read(max_tokens=0, echo=True, logprobs=1)
    assert (asked.sampling.max_tokens, asked.sampling.prompt_logprobs) == (0, True)
    for wrong in ({"echo": True}, {"logprobs": 1}, {}):
        with pytest.raises(BadRequest, match="max_tokens"):
            read(max_tokens=0, **wrong)
    with pytest.raises(Refused, match="prompt_logprobs"):
        completions.write_request(msgspec.structs.replace(asked, echo=False))


@st.composite
def pieces(draw: Any) -> list[Piece]:
    """What some choices say, piece by piece, in any order among them."""
    found = []
    for choice in range(draw(st.integers(1, 3))):
        own = []
        for at in range(draw(st.integers(1, 3))):
            ids = draw(IDS)
            said = tuple(draw(st.text(max_size=3)) for _ in ids)
            logprobs = tuple(draw(st.one_of(st.none(), st.floats(-9, 0))) for _ in ids)
            top = tuple(draw(st.one_of(st.none(), st.dictionaries(st.text(max_size=2), st.floats(-9, 0)))) for _ in ids)
            text = "".join(said)
            prompt = (1, 2) if at == 0 else None
            own.append(
                Piece(choice=choice, text=text, ids=ids, tokens=said, logprobs=logprobs, top=top, prompt_ids=prompt)
            )
        found.append(
            [*own, Piece(choice=choice, finish=draw(st.sampled_from([FinishReason.END, FinishReason.LENGTH])))]
        )
    mixed: list[Piece] = []
    while any(found):
        mixed.append(draw(st.sampled_from([one for one in found if one])).pop(0))
    return mixed


def joined(said: list[Piece]) -> list[Piece]:
    """A piece for each choice."""
    return [
        Piece(
            choice=choice,
            text="".join(one.text for one in said if one.choice == choice),
            ids=tuple(id_ for one in said if one.choice == choice for id_ in one.ids),
            tokens=tuple(token for one in said if one.choice == choice for token in one.tokens),
            logprobs=tuple(logprob for one in said if one.choice == choice for logprob in one.logprobs),
            top=tuple(top for one in said if one.choice == choice for top in one.top),
            prompt_ids=next(one.prompt_ids for one in said if one.choice == choice),
            finish=next(one.finish for one in said if one.choice == choice and one.finish),
        )
        for choice in sorted({one.choice for one in said})
    ]


FULL = CompletionAsked(
    model="nano", prompts=("hi",), sampling=Sampling(logprobs=True), given=frozenset(), stream=True, token_ids=True
)


@given(st.data(), pieces())
def test_a_stream_is_its_whole_reply(data: Any, said: list[Piece]) -> None:
    cost = Usage(prompt_tokens=2, completion_tokens=3)
    writer = completions.Writer(FULL, STAMP)
    stream = writer.write(said) + writer.end([cost])
    reader = completions.read_events()
    heard = [one for part in data.draw(cut(stream)) for one in reader.feed(part)] + reader.end()
    assert heard == [*said, cost]
    whole = completions.Writer(FULL, STAMP).reply(said, [cost])
    assert completions.read_reply(whole) == (joined(said), cost)
    offsets: dict[int, list[int]] = {}
    for frame in frames(stream)[:-1]:
        choice = frame["choices"][0]
        offsets.setdefault(choice["index"], []).extend(choice["logprobs"]["text_offset"])
    assert [one["logprobs"]["text_offset"] for one in json.loads(whole)["choices"]] == [
        offsets[at] for at in sorted(offsets)
    ]


@given(pieces())
def test_offsets_are_where_tokens_stand_in_the_text(said: list[Piece]) -> None:
    for choice in json.loads(completions.Writer(FULL, STAMP).reply(said, []))["choices"]:
        told = choice["logprobs"]
        for token, at in zip(told["tokens"], told["text_offset"], strict=True):
            assert choice["text"][at:].startswith(token)


def test_offsets_stay_within_a_text_that_tokens_do_not_spell() -> None:
    """Two halves of a character, a special token that is not shown, and what comes after them."""
    said = [
        Piece(
            choice=0,
            text="é",
            ids=(1, 2, 3),
            tokens=("\ufffd", "\ufffd", "[THINK]"),
            logprobs=(0, 0, 0),
            top=(None,) * 3,
        ),
        Piece(choice=0, text="ab", ids=(4, 5), tokens=("a", "b"), logprobs=(0, 0), top=(None,) * 2),
    ]
    told = json.loads(completions.Writer(FULL, STAMP).reply(said, []))
    assert told["choices"][0]["logprobs"]["text_offset"] == [0, 1, 1, 1, 2]


def test_what_was_not_asked_for_is_not_told() -> None:
    asked = CompletionAsked(model="nano", prompts=("hi",), sampling=Sampling(), given=frozenset(), usage_at_end=False)
    said = [Piece(choice=0, text="a", ids=(1,), prompt_ids=(2,)), Piece(choice=0, finish=FinishReason.STOP)]
    writer = completions.Writer(asked, STAMP)
    told = frames(writer.write(said) + writer.end([Usage()]))
    head = {"id": f"cmpl-{STAMP.id}", "object": "text_completion", "created": 7, "model": "nano"}
    choice = {"index": 0, "text": "a", "logprobs": None, "finish_reason": None}
    assert told == [
        {**head, "choices": [choice]},
        {**head, "choices": [{**choice, "text": "", "finish_reason": "stop"}]},
    ]


def test_what_is_impossible_is_still_json() -> None:
    said = [Piece(choice=0, text="a", ids=(1,), tokens=("a",), logprobs=(float("-inf"),), top=({"b": float("-inf")},))]
    told = json.loads(completions.Writer(FULL, STAMP).reply(said, []))["choices"][0]["logprobs"]
    assert (told["token_logprobs"], told["top_logprobs"]) == ([-9999.0], [{"b": -9999.0}])


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"data: [DONE]\n\n",
        b'data: {"choices":[{"index":0,"text":"a"}]}\n\ndata: [DONE]\n\n',
        b"data: nothing\n\n",
        completions.Writer(FULL, STAMP).fail(Fault(kind=Kind.UPSTREAM, message="it broke")),
    ],
)
def test_a_stream_that_breaks_off_is_an_error(stream: bytes) -> None:
    reader = completions.read_events()
    with pytest.raises(Upstream):  # noqa: PT012 - which of them raises depends on what came before
        reader.feed(stream)
        reader.end()


def test_what_came_before_a_failure_is_heard() -> None:
    writer = completions.Writer(FULL, STAMP)
    fault = Fault(kind=Kind.UPSTREAM, message="it broke")
    reader = completions.read_events()
    assert reader.feed(writer.write([Piece(choice=0, text="a")]) + writer.fail(fault)) == [Piece(choice=0, text="a")]
    with pytest.raises(Upstream, match="it broke"):
        reader.feed(b"")


@given(ANYTHING)
def test_whatever_comes_is_taken_or_refused_in_words(more: Any) -> None:
    for one in ({"model": "m", "prompt": more}, {"model": "m", "prompt": "x", "stop": more, "logit_bias": more}, more):
        with suppress(BadRequest):
            completions.read_request(msgspec.json.encode(one))
    with suppress(Upstream):
        completions.read_reply(msgspec.json.encode({"choices": [{"text": "a", "logprobs": more}], "usage": more}))
    reader = completions.read_events()
    with suppress(Upstream):
        reader.feed(b"data: " + msgspec.json.encode({"choices": [more]}) + b"\n\n")
        reader.end()
