"""Tokens through the server: text to ids and back, and plain completions of a real engine over a random network."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.server.direct import Said, send
from tests.server.running import running, site
from tests.server.served import counted
from tests.server.test_exchange import wait_for
from tests.server.tiny import LIMITS, tiny, words

from magister.engine.engine import Engine
from magister.server.app import Site
from magister.types import ChatRequest
from magister.wire import openai_completions as wire
from magister.wire.openai_completions import Piece

TOKENIZER = words()
BOS = TOKENIZER.id("<s>")
ASK = {"model": "mock", "prompt": "hello", "max_tokens": 12, "seed": 1, "temperature": 1.0}


@pytest.fixture(scope="module")
def app() -> Iterator[Site]:
    with tiny(TOKENIZER) as model:
        yield site(**model)


def ask(app: Site, path: str, body: Any) -> Said:
    return asyncio.run(send(app, "POST", path, json.dumps(body).encode()))


def told(app: Site, path: str, body: Any) -> Any:
    said = ask(app, path, body)
    assert said.status == 200, said.body
    return json.loads(said.body)


def error(said: Said) -> Any:
    """What an error tells, in OpenAI's shape."""
    assert (said.status, said.headers["content-type"]) == (400, "application/json"), said.body
    return json.loads(said.body)["error"]


def complete(app: Site, **fields: Any) -> Any:
    return told(app, "/v1/completions", ASK | fields)


def same_numbers(told: Any, other: Any, behind: int) -> None:
    """From there on; plain torch rounds differently in another batch."""
    assert told["token_logprobs"][behind:] == pytest.approx(other["token_logprobs"], abs=1e-4)
    for one, two in zip(told["top_logprobs"][behind:], other["top_logprobs"], strict=True):
        assert one == pytest.approx(two, abs=1e-4)


def ids_of(text: str) -> list[int]:
    return list(TOKENIZER.encode_text(text))


@pytest.mark.parametrize("text", ["", "hello", "Grüße, 世界 🎉\x00\n", "[INST]</s><s>", "\ufffd"])
def test_ids_of_a_text_say_the_text(app: Site, text: str) -> None:
    said = told(app, "/tokenize", {"model": "mock", "prompt": text, "add_special_tokens": False})
    assert said == {"count": len(said["tokens"]), "max_model_len": 1000, "tokens": ids_of(text)}
    assert told(app, "/detokenize", {"model": "mock", "tokens": said["tokens"]}) == {"prompt": text}


def test_what_tokens_say_one_by_one(app: Site) -> None:
    said = told(app, "/tokenize", {"model": "mock", "prompt": "hello", "return_token_strs": True})
    assert said["tokens"] == [BOS, *ids_of("hello")]
    assert said["token_strs"][0] == "<s>"
    assert "".join(said["token_strs"][1:]) == "hello"
    assert told(app, "/detokenize", {"tokens": said["tokens"]}) == {"prompt": "<s>hello"}


@pytest.mark.parametrize("id_", [-1, TOKENIZER.size, 1 << 70])
def test_an_id_that_is_none_is_named(app: Site, id_: int) -> None:
    said = error(ask(app, "/detokenize", {"model": "mock", "tokens": [1, id_]}))
    assert said["param"] == "tokens"
    assert str(id_) in said["message"]
    assert str(TOKENIZER.size - 1) in said["message"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/tokenize", {"model": "mock"}, "prompt"),
        ("/tokenize", {"model": "mock", "prompt": 1}, "prompt"),
        ("/tokenize", {"model": "mock", "prompt": "a", "extra": 1}, "extra"),
        ("/detokenize", {"model": "mock"}, "tokens"),
        ("/detokenize", {"model": "mock", "tokens": ["a"]}, "tokens[0]"),
    ],
)
def test_fields_are_named(app: Site, path: str, body: Any, field: str) -> None:
    assert error(ask(app, path, body))["param"] == field


def test_a_model_whose_tokenizer_is_elsewhere_counts_nothing() -> None:
    there = site()
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]}), ("/v1/completions", ASK),
    ]  # fmt: skip
    for path, body in bodies:
        said = error(ask(there, path, {"model": "mock", **body}))
        assert (said["param"], "mock" in said["message"]) == ("model", True)


def test_a_completion(app: Site) -> None:
    said = complete(app, return_token_ids=True)
    (choice,) = said["choices"]
    assert (said["object"], said["model"], said["id"][:5]) == ("text_completion", "mock", "cmpl-")
    assert (choice["index"], choice["logprobs"]) == (0, None)
    assert choice["prompt_token_ids"] == [BOS, *ids_of("hello")]
    shown = [id_ for id_ in choice["token_ids"] if not TOKENIZER.is_special(id_)]
    assert choice["text"] == b"".join(map(TOKENIZER.token_bytes, shown)).decode("utf-8", "replace")
    usage = said["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (1 + len(ids_of("hello")), len(choice["token_ids"]))
    ended = choice["token_ids"][-1] == TOKENIZER.id("</s>")
    assert (choice["finish_reason"] == "stop") == ended
    assert complete(app, return_token_ids=True)["choices"] == said["choices"], "a seed gives the same again"


def test_nobody_says_how_many_and_sixteen_come(app: Site) -> None:
    body = {"model": "mock", "prompt": "hello", "ignore_eos": True}
    said = told(app, "/v1/completions", body)
    assert (said["usage"]["completion_tokens"], said["choices"][0]["finish_reason"]) == (16, "length")


def test_ids_in_are_the_text_in(app: Site) -> None:
    by_text = complete(app)["choices"]
    assert complete(app, prompt=[BOS, *ids_of("hello")])["choices"] == by_text
    assert complete(app, prompt=["hello"])["choices"] == by_text
    assert complete(app, prompt=[[BOS, *ids_of("hello")]])["choices"] == by_text
    assert complete(app, prompt=ids_of("hello"), return_token_ids=True)["choices"][0]["prompt_token_ids"][0] != BOS


def test_prompts_times_n_in_their_order(app: Site) -> None:
    several = complete(app, prompt=["hello", "ab"], n=2, return_token_ids=True)
    choices = several["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [choice["prompt_token_ids"] for choice in choices] == [
        [BOS, *ids_of(prompt)] for prompt in ("hello", "hello", "ab", "ab")
    ]
    usage = several["usage"]
    assert usage["prompt_tokens"] == 2 + len(ids_of("hello")) + len(ids_of("ab")), "a prompt counts once"
    assert usage["completion_tokens"] == sum(len(choice["token_ids"]) for choice in choices)
    alone = complete(app, prompt="ab", n=2, return_token_ids=True)["choices"]
    assert [choice["token_ids"] for choice in choices[2:]] == [choice["token_ids"] for choice in alone]


@pytest.mark.parametrize("special", [False, True])
def test_echo_puts_the_prompt_before_it(app: Site, special: bool) -> None:
    fields = {"return_token_ids": True, "logprobs": 2, "skip_special_tokens": not special}
    (plain,) = complete(app, **fields)["choices"]
    (echoed,) = complete(app, echo=True, **fields)["choices"]
    before = "<s>hello" if special else "hello"
    assert echoed["text"] == before + plain["text"]
    assert echoed["prompt_token_ids"] == plain["prompt_token_ids"]
    offsets, tokens = echoed["logprobs"]["text_offset"], echoed["logprobs"]["tokens"]
    assert offsets[:3] == [0, len("<s>") * special, len("<s>") * special + len(tokens[1])]
    prompt = plain["prompt_token_ids"]
    assert echoed["token_ids"] == [*prompt, *plain["token_ids"]]
    first = len(prompt)
    for name in ("token_logprobs", "top_logprobs"):
        assert echoed["logprobs"][name][0] is None, "nothing comes before the first"
        assert None not in echoed["logprobs"][name][1:]
    assert echoed["logprobs"]["tokens"][first:] == plain["logprobs"]["tokens"]
    same_numbers(echoed["logprobs"], plain["logprobs"], first)


def test_a_prompt_is_scored_alone_and_as_it_was_said(app: Site) -> None:
    (said,) = complete(app, logprobs=2, max_tokens=9, temperature=0, return_token_ids=True)["choices"]
    prompt = [*said["prompt_token_ids"], *said["token_ids"]]
    scored = complete(app, prompt=prompt, logprobs=2, max_tokens=0, n=2, echo=True, return_token_ids=True)
    for choice in scored["choices"]:
        assert (choice["token_ids"], choice["finish_reason"]) == (prompt, "length")
        behind = len(said["prompt_token_ids"])
        same_numbers(choice["logprobs"], said["logprobs"], behind)
    assert scored["usage"]["completion_tokens"] == 0
    streamed = ask(app, "/v1/completions", ASK | {"max_tokens": 0, "echo": True, "logprobs": 2, "stream": True})
    assert b'"token_logprobs":[null,' in streamed.body


def test_logprobs(app: Site) -> None:
    (choice,) = complete(app, logprobs=3, temperature=0, return_token_ids=True)["choices"]
    said = choice["logprobs"]
    size = len(choice["token_ids"])
    assert [len(said[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == [size] * 4
    for token, logprob, top in zip(said["tokens"], said["token_logprobs"], said["top_logprobs"], strict=True):
        assert logprob <= 0
        assert 1 <= len(top) <= 3, "tokens that say the same share a key"
        assert top[token] == pytest.approx(logprob), "the likeliest was taken"
        assert top[token] == max(other for name, other in top.items() if not name.startswith("<SPECIAL"))
    (none,) = complete(app, logprobs=0)["choices"]
    assert all(top in (None, {}) for top in none["logprobs"]["top_logprobs"])
    assert complete(app)["choices"][0]["logprobs"] is None


def test_a_stop_string_ends_it_and_is_not_said(app: Site) -> None:
    (free,) = complete(app, ignore_eos=True)["choices"]
    stop = next(one for one in free["text"] if one.isascii() and one.isalnum())
    (stopped,) = complete(app, ignore_eos=True, stop=[stop, "nowhere"])["choices"]
    assert stopped["text"] == free["text"].partition(stop)[0]
    assert stopped["finish_reason"] == "stop"


def test_logit_bias_decides(app: Site) -> None:
    (only,) = ids_of("a")
    (choice,) = complete(app, logit_bias={str(only): 100}, presence_penalty=0)["choices"]
    assert set(choice["text"]) == {"a"}


def joined(pieces: list[Piece]) -> Piece:
    """A choice's pieces as one."""
    return Piece(
        choice=pieces[0].choice,
        text="".join(one.text for one in pieces),
        ids=sum((one.ids for one in pieces), ()),
        tokens=sum((one.tokens for one in pieces), ()),
        logprobs=sum((one.logprobs for one in pieces), ()),
        top=sum((one.top for one in pieces), ()),
        prompt_ids=pieces[0].prompt_ids,
        finish=pieces[-1].finish,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"echo": True, "logprobs": 2, "return_token_ids": True},
        {"prompt": ["hello", "ab"], "n": 2, "return_token_ids": True},
        {"stop": ["e", "a"], "logprobs": 1},
    ],
)
def test_a_stream_is_its_whole_reply(app: Site, fields: dict[str, Any]) -> None:
    whole = ask(app, "/v1/completions", ASK | fields)
    streamed = ask(app, "/v1/completions", ASK | fields | {"stream": True, "stream_options": {"include_usage": True}})
    assert (whole.status, streamed.status) == (200, 200)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    reader = wire.read_events()
    read = [*reader.feed(streamed.body), *reader.end()]
    pieces = [one for one in read if isinstance(one, Piece)]
    choices, cost = wire.read_reply(whole.body)
    numbers = sorted({one.choice for one in pieces})
    assert [joined([one for one in pieces if one.choice == number]) for number in numbers] == choices
    (told_cost,) = (one for one in read if not isinstance(one, Piece))
    assert (told_cost.prompt_tokens, told_cost.completion_tokens) == (cost.prompt_tokens, cost.completion_tokens)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": [TOKENIZER.size]}, "prompt"),
        ({"prompt": [[1], [TOKENIZER.size + 5]], "n": 2}, "prompt[1]"),
        ({"prompt": [TOKENIZER.size], "echo": True}, "prompt"),
        ({"prompt": "a" * 1000}, "prompt"),
        ({"prompt": ["a", "a" * 1000]}, "prompt[1]"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_is_a_400(app: Site, fields: dict[str, Any], field: str, stream: bool) -> None:
    said = error(ask(app, "/v1/completions", ASK | fields | {"stream": stream}))
    assert said["param"] == field
    assert (said["code"] == "context_length_exceeded") == ("a" * 1000 in fields.get("prompt", ()))


def test_an_empty_text_is_its_beginning(app: Site) -> None:
    (choice,) = complete(app, prompt="", return_token_ids=True)["choices"]
    assert choice["prompt_token_ids"] == [BOS]


def test_the_context_ends_what_no_limit_does(app: Site) -> None:
    said = complete(app, max_tokens=100_000, ignore_eos=True)
    assert said["usage"]["total_tokens"] == LIMITS.context
    assert said["choices"][0]["finish_reason"] == "length"


def test_a_client_that_leaves_ends_the_work(app: Site) -> None:
    model = app.house.models.resolve("mock").served.tokens
    assert isinstance(model, Engine)
    with running(app) as base:
        parts = urlsplit(base)
        before = counted(base, "magister_disconnects_total")
        for stream in (True, False):
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
            body = ASK | {"n": 8, "max_tokens": 150, "ignore_eos": True, "stream": stream}
            connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
            wait_for(lambda: model.load().running > 0)
            if stream:
                connection.getresponse().read(1)
            connection.close()
            assert connection.sock is None
            wait_for(lambda: model.load().running == 0)
            assert model.load().free_blocks == LIMITS.blocks
        assert counted(base, "magister_disconnects_total") == before + 2, "neither was answered to its end"


@pytest.mark.parametrize(
    ("path", "field", "body"),
    [
        ("/v1/completions", "prompt", lambda text: ASK | {"prompt": text}),
        ("/v1/completions", "prompt[1]", lambda text: ASK | {"prompt": ["a", text]}),
        (
            "/v1/chat/completions",
            "messages",
            lambda text: {"model": "mock", "messages": [{"role": "user", "content": text}]},
        ),
        ("/v1/responses", "input", lambda text: {"model": "mock", "input": text}),
    ],
)
def test_what_cannot_fit_is_not_split_to_find_out(path: str, field: str, body: Any) -> None:
    longest = max(map(len, TOKENIZER.vocabulary))
    with tiny(TOKENIZER) as model:
        texts = Held()
        app = site(**{**model, "text": texts, "longest": longest})
        text = "a" * (longest * LIMITS.context * 10)
        told = error(ask(app, path, body(text)))
        assert (told["code"], told["param"]) == ("context_length_exceeded", field)
        assert f"{len(text) // longest} tokens or more" in told["message"]
        assert texts.asked == 0


class Held:
    """A tokenizer that is done when others had their turn, or never."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.asked = 0

    def encode(self, text: str, specials: bool) -> tuple[int, ...]:
        self.asked += 1
        assert self.free.wait(5), "nobody had a turn"
        return (BOS, *TOKENIZER.encode_text(text[:10]))

    def token_bytes(self, ids: Sequence[int]) -> tuple[bytes, ...]:
        return tuple(TOKENIZER.token_bytes(id_) for id_ in ids)

    def plain(self, ids: Sequence[int], specials: bool) -> bytes:
        return b"".join(self.token_bytes(ids))

    def count(self, request: ChatRequest) -> int:
        self.encode("a", False)
        return 1


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/v1/messages/count_tokens"])
def test_a_long_text_is_split_while_others_have_their_turn(path: str) -> None:
    text = "word " * 10_000
    body: dict[str, Any] = {"model": "mock", "prompt": text}
    if path.endswith("count_tokens"):
        body = {"model": "mock", "messages": [{"role": "user", "content": text}]}

    async def run(app: Site, texts: Held) -> Said:
        asyncio.get_running_loop().call_later(0.05, texts.free.set)
        return await send(app, "POST", path, json.dumps(body).encode())

    with tiny(TOKENIZER) as model:
        texts = Held()
        said = asyncio.run(run(site(**{**model, "text": texts}), texts))
        assert (said.status, texts.asked) == (200, 1), said.body
