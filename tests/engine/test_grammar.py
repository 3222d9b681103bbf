"""A reply under a grammar: always a sentence of it, drawn from what the grammar leaves of the distribution."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import time
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.engine.grammars import CALL, PIECES, ROOMY, VOCABULARY, json_grammar, model, one, speaking, spell
from tests.engine.world import (
    END,
    END_THINK,
    FIRST,
    THINK,
    UNUSED,
    Make,
    Reply,
    ask,
    ask_all,
    compiled_runner,
    opened,
    random_model,
    reciting_model,
    replies,
    torch_runner,
    whole_logits,
)

from magister.engine.grammar import Grammars, Guide
from magister.engine.randomness import uniform
from magister.engine.reply import NOTHING_TO_DRAW
from magister.engine.vocabulary import Vocabulary
from magister.model.cache import KVFormat
from magister.text.tokenizer import TekkenPlan, Tokenizer, make_tokenizer
from magister.types import FinishReason, OpenAt, Prompt, Refused, Sampling

RUNNERS = {"torch": torch_runner(), "compiled": compiled_runner(KVFormat.FP32)}
PROMPT = spell("say")
WORDS = [b"ab", b"abcab", b"abd", b"c"]
FINITE = 'start: "ab" | "abcab" | "abd" | "c"'
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["x", "ü", "true"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
COMPILED = Grammars(VOCABULARY).compile(json_grammar(PERSON))


def said(reply: Reply) -> bytes:
    """The answer: what follows the thought, if there is one."""
    ids = reply.ids
    answer = ids[ids.index(END_THINK) + 1 :] if END_THINK in ids else ids
    return b"".join(PIECES[id_] for id_ in answer)


def allowed(before: bytes) -> set[int]:
    """What may follow the beginning of one of `WORDS`, by trying every token."""
    nexts = {
        id_ for id_, piece in enumerate(PIECES) if piece and any(word.startswith(before + piece) for word in WORDS)
    }
    return nexts | ({END} if before in WORDS else set())


class TestTheDistribution:
    """Exactly the model's own, of what is allowed, made to sum to one."""

    @pytest.mark.parametrize(
        "kind", [{}, {"temperature": 2.5}, {"frequency_penalty": 0.7, "logit_bias": {one(b"ab"): 1.5}}]
    )
    def test_tokens_are_drawn_from_what_is_left(self, kind: dict[str, Any]) -> None:
        values: dict[str, Any] = {"temperature": 1.0, "logprobs": True, "grammar": FINITE} | kind
        spellings = set()
        network = model()
        with opened(model(), VOCABULARY, ROOMY) as engine:
            for seed in range(24):
                reply = ask(engine, PROMPT, open_at=OpenAt.ANSWER, seed=seed, **values)
                assert reply.finish is FinishReason.END
                assert said(reply) in WORDS
                spellings.add(reply.ids)
                self._check(network, reply, seed, Sampling(**values))
        assert len(spellings) >= 4

    def _check(self, network: Any, reply: Reply, seed: int, sampling: Sampling) -> None:
        for place, id_ in enumerate(reply.ids):
            before = [*PROMPT, *reply.ids[:place]]
            raw_v = whole_logits(network, before)[-1].double()
            logits_v = raw_v.clone()
            for other, bias in sampling.logit_bias.items():
                logits_v[other] += bias
            for other in reply.ids[:place]:
                logits_v[other] -= sampling.frequency_penalty
            left_v = torch.full_like(logits_v, -math.inf)
            keep = sorted(allowed(b"".join(PIECES[other] for other in reply.ids[:place])))
            left_v[keep] = logits_v[keep]
            chances_v = (left_v / sampling.temperature).softmax(dim=-1)
            luck = uniform(seed, len(before))
            assert int((chances_v.cumsum(dim=-1) <= luck).sum()) == id_
            assert math.isclose(math.exp(reply.sampled_logprobs[place]), float(chances_v[id_]), abs_tol=1e-5)
            assert math.isclose(reply.logprobs[place], float(raw_v.log_softmax(dim=-1)[id_]), abs_tol=1e-4), "untouched"

    def test_all_spellings_together_have_all_the_mass(self) -> None:
        """Over every way to spell every word: their chances are those of a tree, and sum to one."""
        network = model()

        def mass(ids: tuple[int, ...], text: bytes) -> dict[tuple[int, ...], float]:
            keep = sorted(allowed(text))
            chances = whole_logits(network, [*PROMPT, *ids])[-1][keep].double().softmax(dim=-1).tolist()
            found: dict[tuple[int, ...], float] = {}
            for id_, chance in zip(keep, chances, strict=True):
                rest = {(id_,): 1.0} if id_ == END else mass((*ids, id_), text + PIECES[id_])
                found |= {(ids if id_ == END else ()) + key: chance * share for key, share in rest.items()}
            return found

        spellings = mass((), b"")
        assert math.isclose(sum(spellings.values()), 1.0)
        with opened(model(), VOCABULARY, ROOMY) as engine:
            sampling = Sampling(temperature=1.0, n=64, seed=5, grammar=FINITE, logprobs=True)
            choices = asyncio.run(replies(engine, Prompt(tuple(PROMPT), open_at=OpenAt.ANSWER), sampling))
        for choice in choices:
            assert math.isclose(math.exp(sum(choice.sampled_logprobs)), spellings[choice.ids], rel_tol=1e-4)

    @pytest.mark.parametrize(
        "kind", [{"top_k": 1}, {"top_k": 40}, {"top_p": 0.3}, {"min_p": 0.4}, {"temperature": 0.0}]
    )
    def test_truncation_keeps_the_likeliest_of_what_is_left(self, kind: dict[str, Any]) -> None:
        network = model()
        with opened(model(), VOCABULARY, ROOMY) as engine:
            for seed in range(6):
                values = {"temperature": 1.0, "grammar": FINITE, "seed": seed} | kind
                reply = ask(engine, PROMPT, open_at=OpenAt.ANSWER, **values)
                assert said(reply) in WORDS
                if kind.get("top_k") == 1 or kind.get("temperature") == 0.0:
                    for place, id_ in enumerate(reply.ids):
                        keep = sorted(allowed(b"".join(PIECES[other] for other in reply.ids[:place])))
                        logits_v = whole_logits(network, [*PROMPT, *reply.ids[:place]])[-1]
                        assert id_ == max(keep, key=lambda other: float(logits_v[other]))


class TestWhereItBegins:
    """After a thought, or at once; a thought may come first only where the turn is at its start."""

    X = one(b"x")
    GRAMMAR = 'start: "ab"'

    def _recite(self, follows: dict[int, int], ids: list[int], open_at: OpenAt, **values: Any) -> Reply:
        with opened(reciting_model(follows, len(PIECES)), VOCABULARY, ROOMY) as engine:
            return ask(engine, ids, open_at=open_at, **{"grammar": self.GRAMMAR, "temperature": 0.0} | values)

    def test_a_thought_may_come_first(self) -> None:
        follows = {self.X: THINK, THINK: one(b"y"), one(b"y"): one(b"z"), one(b"z"): END_THINK, END_THINK: one(b"ab")}
        reply = self._recite(follows, [self.X], OpenAt.START)
        assert reply.ids == (THINK, one(b"y"), one(b"z"), END_THINK, one(b"ab"), END)
        assert reply.finish is FinishReason.END

    def test_or_the_grammar(self) -> None:
        for open_at in (OpenAt.START, OpenAt.ANSWER):
            assert said(self._recite({self.X: one(b"ab")}, [self.X], open_at)) == b"ab"
        assert THINK not in self._recite({self.X: THINK}, [self.X], OpenAt.ANSWER).ids

    def test_an_open_thought_goes_on(self) -> None:
        follows = {self.X: one(b"z"), one(b"z"): END_THINK}
        reply = self._recite(follows, [THINK, self.X], OpenAt.THOUGHT)
        assert reply.ids[:2] == (one(b"z"), END_THINK)
        assert said(reply) == b"ab"

    def test_only_one_thought(self) -> None:
        assert self._recite({self.X: END_THINK, END_THINK: THINK}, [self.X], OpenAt.THOUGHT).ids.count(THINK) == 0

    @pytest.mark.parametrize("control", [END, CALL, THINK])
    def test_a_thought_cannot_end_around_the_grammar(self, control: int) -> None:
        reply = self._recite({self.X: control}, [self.X], OpenAt.THOUGHT, max_tokens=6)
        assert reply.ids[0] == END_THINK, "the lowest id of what is left, all as likely"
        assert (said(reply), reply.finish) == (b"ab", FinishReason.END)

    def test_the_cap_closes_the_thought_and_the_grammar_begins(self) -> None:
        follows = {self.X: THINK, THINK: one(b"y"), one(b"y"): one(b"y")}
        reply = self._recite(follows, [self.X], OpenAt.START, thinking_tokens=3)
        assert reply.ids[0] == THINK
        assert reply.ids[4] == END_THINK
        assert reply.forced.index(True) == 4
        assert said(reply) == b"ab"
        assert THINK not in self._recite({self.X: THINK}, [self.X], OpenAt.START, thinking_tokens=0).ids

    def test_a_model_without_thoughts_begins_at_once(self) -> None:
        with opened(model(), replace(VOCABULARY, think=None, end_think=None), ROOMY) as engine:
            assert said(ask(engine, PROMPT, temperature=1.0, grammar=self.GRAMMAR)) == b"ab"

    def test_control_tokens_that_the_grammar_names(self) -> None:
        reply = self._recite({}, [self.X], OpenAt.ANSWER, grammar=f'start: "a" <[{CALL}]> "b"')
        assert reply.ids == (one(b"a"), CALL, one(b"b"), END)


def documents(*, depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas whose documents are finite, so that they end."""
    words = st.text(st.sampled_from('abxyzé ü"\\{}[]€\n'), max_size=6)
    leaves: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.just({"type": "boolean"}),
        st.just({"type": "null"}),
        st.builds(
            lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
            st.integers(-40, 40),
            st.integers(0, 99),
        ),
        st.builds(
            lambda low: {"type": "number", "minimum": low, "maximum": low + 9, "multipleOf": 0.5}, st.integers(-9, 9)
        ),
        st.builds(lambda size: {"type": "string", "maxLength": size}, st.integers(0, 5)),
        st.builds(
            lambda values: {"enum": values},
            st.lists(st.one_of(words, st.integers(-9, 9), st.none()), min_size=1, max_size=4, unique_by=repr),
        ),
        st.builds(lambda value: {"const": value}, words),
        st.just({"type": "string", "pattern": "^[ab]{1,4}é?$"}),
    )
    if depth == 0:
        return leaves
    inner = documents(depth=depth - 1)
    arrays = st.builds(
        lambda items, size: {"type": "array", "items": items, "maxItems": size}, inner, st.integers(0, 3)
    )
    choices = st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=3))
    return st.one_of(leaves, arrays, choices, objects(inner))


def objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.lists(st.text(st.sampled_from("abé_ "), min_size=1, max_size=4), max_size=3, unique=True)

    def make(keys: list[str], parts: list[dict[str, Any]], needed: list[bool]) -> dict[str, Any]:
        required = [key for key, need in zip(keys, needed, strict=False) if need]
        properties = dict(zip(keys, parts, strict=False))
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    return st.builds(
        make, names, st.lists(inner, min_size=3, max_size=3), st.lists(st.booleans(), min_size=3, max_size=3)
    )


def test_what_is_said_validates() -> None:
    with speaking(limits=replace(ROOMY, context=2048, blocks=1024)) as engine:

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(schema=objects(documents()), temperature=st.sampled_from([0.0, 0.7, 1.5]), seed=st.integers(0, 99))
        def check(schema: dict[str, Any], temperature: float, seed: int) -> None:
            sampling = Sampling(temperature=temperature, top_p=0.95, seed=seed, n=2, grammar=json_grammar(schema))
            for reply in asyncio.run(replies(engine, Prompt(tuple(PROMPT), open_at=OpenAt.ANSWER), sampling)):
                assert reply.finish is FinishReason.END
                jsonschema_rs.validate(schema, json.loads(said(reply)))

        check()


KINDS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.5, "top_p": 0.9},
    {"temperature": 1.0, "top_k": 5, "min_p": 0.01, "frequency_penalty": 0.3},
    {"temperature": 1.0, "thinking_tokens": 4, "logit_bias": {THINK: 9.0}},
    {"temperature": 1.0, "stop": ('":', "zz")},
    {"temperature": 1.0, "grammar": FINITE},
    {"temperature": 1.0, "grammar": None},
)


def requests() -> list[tuple[list[int], Sampling]]:
    common: dict[str, Any] = {"grammar": json_grammar(PERSON), "max_tokens": 90, "logprobs": True}
    return [
        (PROMPT * (1 + place % 3), Sampling(**(common | kind), seed=place))
        for place, kind in enumerate(itertools.chain(KINDS, KINDS))
    ]


def assert_equal(ours: list[Reply], theirs: list[Reply]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.ids, mine.forced, mine.finish) == (other.ids, other.forced, other.finish)
        torch.testing.assert_close(mine.logprobs, other.logprobs, rtol=0, atol=1e-4)
        torch.testing.assert_close(mine.sampled_logprobs, other.sampled_logprobs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", RUNNERS.values(), ids=RUNNERS)
def test_alone_is_in_a_batch_is_preempted_is_guessed(make: Make) -> None:
    asked = requests()
    alone = []
    with speaking(make=make) as engine:
        for request in asked:
            alone += ask_all(engine, request)
        assert_equal(ask_all(engine, *asked), alone)
    with speaking(limits=replace(ROOMY, context=128, blocks=40, block_size=4), make=make) as engine:
        assert_equal(ask_all(engine, *asked), alone)
        assert engine.load().preemptions > 0
    with speaking(limits=replace(ROOMY, speculation=4, row_cost=0.0), make=make) as engine:
        assert_equal(ask_all(engine, *asked), alone)
        assert engine.load().right > 0


def test_guesses_that_break_the_grammar_are_not_made() -> None:
    """The prompt repeats what the grammar forbids, and what it allows."""
    prompt = spell('{"a": 1}{"b": 1}' * 4)
    grammar = json_grammar({"type": "array", "items": PERSON, "minItems": 3, "maxItems": 3})
    outcomes = []
    for limits in (ROOMY, replace(ROOMY, speculation=6, row_cost=0.0)):
        with speaking(limits=limits, sharpness=6.0) as engine:
            outcomes.append(
                ask_all(engine, (prompt, Sampling(temperature=0.0, max_tokens=200, grammar=grammar, logprobs=True)))
            )
            load = engine.load()
    assert_equal(*outcomes)
    assert load.right > 0


@settings(max_examples=60, deadline=None)
@given(luck=st.randoms(use_true_random=False), open_at=st.sampled_from(OpenAt))
def test_looking_along_a_draft_is_saying_it_and_leaves_no_trace(luck: random.Random, open_at: OpenAt) -> None:
    guide = COMPILED.follow(open_at)
    said_so_far: list[int] = []
    while len(said_so_far) < 30:
        now = guide.allowed()
        draft = guide.fit((*walk(said_so_far, open_at, luck), luck.choice([END, UNUSED, one(b"x")])))
        masks = guide.along(draft)
        assert [masks[0], guide.allowed()] == [now, now]
        twin = follow(said_so_far, open_at)
        for id_, mask in zip(draft, masks, strict=False):
            assert mask == twin.allowed()
            assert mask[id_ // 8] >> id_ % 8 & 1
            twin.push(id_)
        assert masks[-1] == twin.allowed()
        (id_,) = walk(said_so_far, open_at, luck, 1)
        if id_ == END:
            break
        guide.push(id_)
        said_so_far.append(id_)


def follow(ids: list[int], open_at: OpenAt) -> Guide:
    """A guide that has followed so far."""
    guide = COMPILED.follow(open_at)
    for id_ in ids:
        guide.push(id_)
    return guide


def walk(ids: list[int], open_at: OpenAt, luck: random.Random, count: int = 6) -> list[int]:
    """Some tokens that may follow, tags more often than not."""
    guide = follow(ids, open_at)
    more: list[int] = []
    while len(more) < count and END not in more:
        mask = guide.allowed()
        choices = [id_ for id_ in range(len(PIECES)) if mask[id_ // 8] >> id_ % 8 & 1]
        tags = [id_ for id_ in choices if id_ in (THINK, END_THINK)]
        more.append(luck.choice(tags if tags and luck.random() < 0.6 else choices))
        guide.push(more[-1])
    return more


def test_where_tokens_run_out_within_the_grammar_it_is_the_length() -> None:
    with speaking() as engine:
        for count in (1, 5, 20):
            reply = ask(
                engine,
                PROMPT,
                temperature=1.0,
                seed=1,
                max_tokens=count,
                open_at=OpenAt.ANSWER,
                grammar=json_grammar(PERSON | {"minProperties": 2}),
            )
            assert (len(reply.ids), reply.finish) == (count, FinishReason.LENGTH)


def test_a_stop_string_ends_it_early() -> None:
    with speaking() as engine:
        reply = ask(
            engine,
            PROMPT,
            temperature=1.0,
            seed=1,
            open_at=OpenAt.ANSWER,
            grammar=json_grammar(PERSON),
            stop=('"name',),
        )
    assert (reply.finish, reply.last.stop, reply.text(PIECES).strip()) == (FinishReason.STOP, '"name', b"{")


def test_a_grammar_that_nothing_goes_on_with_is_an_error_of_its_choice() -> None:
    with opened(random_model()) as engine:
        broken, whole = ask_all(
            engine,
            ([FIRST], Sampling(temperature=0.0, grammar='start: "a" "{" "b"', thinking_tokens=0)),
            ([FIRST], Sampling(temperature=0.0, grammar='start: "abc"', thinking_tokens=0)),
        )
    assert broken.finish is FinishReason.ERROR
    assert broken.last.error == "the grammar cannot be followed: no token of the vocabulary can go on with it"
    assert whole.finish is FinishReason.END


def test_a_control_token_that_is_never_said_leaves_nothing() -> None:
    with speaking() as engine:
        reply = ask(engine, PROMPT, open_at=OpenAt.ANSWER, grammar=f'start: "a" <[{UNUSED}]>')
    assert (reply.finish, reply.last.error) == (FinishReason.ERROR, NOTHING_TO_DRAW)


BAD = {
    "": "no start rule",
    "start: other": "unknown name",
    'start: %json {"type": "strin"}': "Invalid type: strin",
    'start: %json {"type": "string", "pattern": "(?=a)b"}': "look-around",
    f"start: <[{len(PIECES) + 99}]>": "too large",
    "{": "begins like JSON",
    '{"grammars": 1}': "a list",
    '{"grammars": []}': "empty",
    '{"grammars": [{"json_schema": {"type": "strin"}}]}': "Invalid type: strin",
    " " * (1 << 20) + FINITE: "characters",
}


@pytest.mark.parametrize(("text", "reason"), BAD.items(), ids=range(len(BAD)))
def test_what_is_no_grammar_is_refused(text: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    with speaking() as engine, pytest.raises(Refused, match=reason) as refused:
        ask(engine, PROMPT, grammar=text)
    assert refused.value.field == "grammar"
    assert "no_forcing" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"grammars": [{"lark_grammar": FINITE}]}),
        json.dumps({"grammars": [{"lark_grammar": "start: @word"}, {"name": "word", "lark_grammar": FINITE}]}),
        json.dumps({"grammars": [{"json_schema": {"enum": ["ab", "abc"]}}]}),
    ],
)
def test_grammars_may_be_json_and_leave_every_spelling(text: str) -> None:
    spellings = set()
    with speaking() as engine:
        for seed in range(30):
            spellings.add(ask(engine, PROMPT, temperature=3.0, seed=seed, open_at=OpenAt.ANSWER, grammar=text).ids)
    texts = {b"".join(PIECES[id_] for id_ in ids) for ids in spellings}
    assert texts <= {*WORDS, b'"ab"', b'"abc"'}
    assert len(spellings) > len(texts) > 1


def test_what_was_compiled_is_kept() -> None:
    grammars = Grammars(VOCABULARY)
    first = grammars.compile(FINITE)
    assert grammars.compile(FINITE) is first
    for word in range(40):
        grammars.compile(f'start: "{"a" * (word + 1)}"')
    assert grammars.compile(FINITE) is not first


@pytest.fixture(scope="module")
def magistral() -> Tokenizer:
    return make_tokenizer(TekkenPlan(vision=True))


def test_the_real_vocabulary_is_quick(magistral: Tokenizer) -> None:
    """131,072 tokens: a grammar begins within 50 ms, and a mask takes less than one."""
    grammars = Grammars(
        Vocabulary(
            pieces=magistral.vocabulary, end=2, think=magistral.id("[THINK]"), end_think=magistral.id("[/THINK]")
        )
    )
    grammars.compile(FINITE)
    text = json.dumps({"name": 'Zoë, die "Große"', "age": 42, "tags": ["x", "ü"]}, ensure_ascii=False)
    schema = PERSON | {"properties": PERSON["properties"] | {"name": {"type": "string"}}}
    began = time.perf_counter()
    guide = grammars.compile(json_grammar(schema)).follow(OpenAt.START)
    started = time.perf_counter() - began
    seconds, sizes = [], []
    for id_ in (magistral.id("[THINK]"), magistral.id("[/THINK]"), *magistral.encode_text(text), 2):
        began = time.perf_counter()
        mask = guide.allowed()
        seconds.append(time.perf_counter() - began)
        assert mask[id_ // 8] >> id_ % 8 & 1, magistral.token_name(id_)
        sizes.append(int.from_bytes(mask, "little").bit_count())
        guide.push(id_)
    assert (sizes[-1], guide.error) == (1, None), "only the end is left"
    assert max(sizes) > 100_000, "in a thought, and in a string"
    assert started < 0.05, started
    assert sorted(seconds)[len(seconds) // 2] < 0.001, seconds
