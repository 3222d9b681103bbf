"""Tokens become chunks: one version each, a stop string whole in the last, timings at the end."""

import asyncio

from tests.engine.world import FIRST, VOCABULARY

from magister.engine.limits import Limits
from magister.engine.mailbox import Mailbox
from magister.engine.reply import Reply, Request
from magister.engine.sampler import Drawn
from magister.types import Chunk, FinishReason, Prompt, Sampling

A, B, C, D = range(FIRST, FIRST + 4)


def _reply(sampling: Sampling, speculation: int = 0) -> Reply:
    async def make() -> Mailbox:
        return Mailbox()

    request = Request(prompt=Prompt((D,)), sampling=sampling, seed=0, outlet=asyncio.run(make()), arrived=10.0)
    reply = Reply(request, 0, 0, VOCABULARY, Limits(context=50, blocks=4, speculation=speculation, row_cost=0.05), None)
    reply.started = 11.0
    return reply


def _say(reply: Reply, drawn: Drawn | None, version: int, now: float) -> list[Chunk]:
    if reply.first is None:
        reply.first = now
    reply.take([drawn], (), version)
    return reply.chunks(version, now)


def _push(reply: Reply, *tokens: tuple[int, int]) -> list[tuple[int, tuple[int, ...]]]:
    chunks: list[Chunk] = []
    for time, (id_, version) in enumerate(tokens):
        chunks += _say(reply, Drawn(id_), version, 13.0 + time)
    return [(chunk.version, chunk.ids) for chunk in chunks]


def test_held_tokens_keep_the_version_that_computed_them() -> None:
    reply = _reply(Sampling(stop=("abcd",)))
    assert _push(reply, (A, 1), (B, 1), (C, 2)) == []
    assert _push(reply, (A, 3)) == [(1, (A, B)), (2, (C,))]
    assert _push(reply, (VOCABULARY.end, 4)) == [(3, (A,)), (4, (VOCABULARY.end,))]


def test_a_stop_string_of_two_versions_is_whole_in_the_last_chunk() -> None:
    reply = _reply(Sampling(stop=("abc",)))
    assert _push(reply, (D, 0), (A, 1), (B, 1)) == [(0, (D,))]
    (last,) = _say(reply, Drawn(C), 2, 20.0)
    assert (last.ids, last.version, last.trim, last.stop) == ((A, B, C), 2, 3, "abc")


def test_a_stop_string_leaves_older_tokens_before_it_to_their_version() -> None:
    reply = _reply(Sampling(stop=("aaab", "ab")))
    assert _push(reply, (A, 1), (A, 1)) == []
    chunks = _say(reply, Drawn(B), 2, 20.0)
    assert [(chunk.version, chunk.ids, chunk.trim) for chunk in chunks] == [(1, (A,), 0), (2, (A, B), 2)]


def test_a_row_without_a_token_ends_the_reply_with_what_was_held() -> None:
    reply = _reply(Sampling(stop=("ab",)))
    assert _push(reply, (A, 0)) == []
    (last,) = _say(reply, None, 0, 20.0)
    assert (last.ids, last.finish) == ((A,), FinishReason.ERROR)
    assert last.error


def test_timings_are_the_gaps_between_arrival_start_first_and_last_token() -> None:
    reply = _reply(Sampling(max_tokens=3))
    assert len(_push(reply, (A, 0), (B, 0))) == 2
    (last,) = _say(reply, Drawn(C), 0, 17.5)
    assert last.timings is not None
    assert (last.timings.queued, last.timings.prefill, last.timings.decode) == (1.0, 2.0, 4.5)


def test_tokens_not_sent_yet_leave_together() -> None:
    reply = _reply(Sampling())
    for id_, version in ((A, 1), (B, 1), (C, 2)):
        reply.take([Drawn(id_)], (), version)
    assert [(chunk.version, chunk.ids) for chunk in reply.chunks(2, 12.0)] == [(1, (A, B)), (2, (C,))]
    assert reply.chunks(2, 13.0) == []


def test_guesses_stand_while_they_are_what_was_drawn() -> None:
    for drawn, right, said in (
        ((A, B, C), 2, (A, B, C)),
        ((A, C, C), 1, (A, C)),
        ((D, B, C), 0, (D,)),
        ((A, VOCABULARY.end, C), 1, (A, VOCABULARY.end)),
    ):
        reply = _reply(Sampling(), speculation=2)
        reply.first = 12.0
        outcomes: list[Drawn | None] = [Drawn(id_) for id_ in drawn]
        assert reply.take(outcomes, (A, B), 0) == right
        assert sum((chunk.ids for chunk in reply.chunks(0, 13.0)), ()) == said
        assert tuple(reply.sequence.ids[1:]) == said


def test_rows_behind_guesses_are_drawn_under_what_holds_if_they_are_right() -> None:
    think = VOCABULARY.think
    assert think is not None
    sampling = Sampling(temperature=1.0, frequency_penalty=1.0, thinking_tokens=1)
    reply, told = _reply(sampling, speculation=3), _reply(sampling)
    rows = reply.rows((think, A, A))
    for row, id_ in zip(rows, (think, A, A, B), strict=True):
        (alone,) = told.rows()
        assert (row.uniform, row.counts, row.forced, row.banned) == (
            alone.uniform,
            alone.counts,
            alone.forced,
            alone.banned,
        )
        told.take([Drawn(id_)], (), 0)
    assert rows[2].forced == VOCABULARY.end_think
    assert reply.rows()[0].counts == {}


def test_no_guess_reaches_the_end_of_the_reply_or_a_token_never_said() -> None:
    reply = _reply(Sampling(max_tokens=6), speculation=8)
    for id_ in (A, B, A, B):
        reply.take([Drawn(id_)], (), 0)
    assert reply.guess(1, frozenset()) == (A,), "one more is drawn behind it, and then the reply is full"
    reply = _reply(Sampling(), speculation=3)
    for id_ in (A, B, C, A, B):
        reply.take([Drawn(id_)], (), 0)
    assert reply.guess(1, frozenset()) == (C, A, B)
    assert reply.guess(1, frozenset({A})) == (C,)
    assert reply.guess(10_000, frozenset()) == (), "a full step has no room for guesses"
