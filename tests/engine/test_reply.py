"""Tokens become chunks: one version each, a stop string whole in the last, timings at the end."""

import asyncio

from tests.engine.world import FIRST, VOCABULARY

from magister.engine.mailbox import Mailbox
from magister.engine.reply import Reply, Request
from magister.engine.sampler import Drawn
from magister.types import Chunk, FinishReason, Prompt, Sampling

A, B, C, D = range(FIRST, FIRST + 4)


def _reply(sampling: Sampling) -> Reply:
    async def make() -> Mailbox:
        return Mailbox()

    request = Request(prompt=Prompt((D,)), sampling=sampling, seed=0, mailbox=asyncio.run(make()), arrived=10.0)
    reply = Reply(request, 0, 0, VOCABULARY, 50)
    reply.start(11.0)
    return reply


def _push(reply: Reply, *tokens: tuple[int, int]) -> list[tuple[int, tuple[int, ...]]]:
    chunks: list[Chunk] = []
    for time, (id_, version) in enumerate(tokens):
        chunks += reply.push(Drawn(id_, False, None), version, 13.0 + time)
    return [(chunk.version, chunk.ids) for chunk in chunks]


def test_held_tokens_keep_the_version_that_computed_them() -> None:
    reply = _reply(Sampling(stop=("abcd",)))
    assert _push(reply, (A, 1), (B, 1), (C, 2)) == []
    assert _push(reply, (A, 3)) == [(1, (A, B)), (2, (C,))]
    assert _push(reply, (VOCABULARY.end, 4)) == [(3, (A,)), (4, (VOCABULARY.end,))]


def test_a_stop_string_of_two_versions_is_whole_in_the_last_chunk() -> None:
    reply = _reply(Sampling(stop=("abc",)))
    assert _push(reply, (D, 0), (A, 1), (B, 1)) == [(0, (D,))]
    (last,) = reply.push(Drawn(C, False, None), 2, 20.0)
    assert (last.ids, last.version, last.trim, last.stop) == ((A, B, C), 2, 3, "abc")


def test_a_stop_string_leaves_older_tokens_before_it_to_their_version() -> None:
    reply = _reply(Sampling(stop=("aaab", "ab")))
    assert _push(reply, (A, 1), (A, 1)) == []
    chunks = reply.push(Drawn(B, False, None), 2, 20.0)
    assert [(chunk.version, chunk.ids, chunk.trim) for chunk in chunks] == [(1, (A,), 0), (2, (A, B), 2)]


def test_a_row_without_a_token_ends_the_reply_with_what_was_held() -> None:
    reply = _reply(Sampling(stop=("ab",)))
    assert _push(reply, (A, 0)) == []
    (last,) = reply.push(None, 0, 20.0)
    assert (last.ids, last.finish) == ((A,), FinishReason.ERROR)
    assert last.error


def test_timings_are_the_gaps_between_arrival_start_first_and_last_token() -> None:
    reply = _reply(Sampling(max_tokens=3))
    assert len(_push(reply, (A, 0), (B, 0))) == 2
    (last,) = reply.push(Drawn(C, False, None), 0, 17.5)
    assert last.timings is not None
    assert (last.timings.queued, last.timings.prefill, last.timings.decode) == (1.0, 2.0, 4.5)
