"""The thinking cap as a caller sees it: closed by force, said so, and with room left for an answer."""

from typing import Any

import pytest
from tests.engine.world import END, END_THINK, FIRST, LIMITS, THINK, ask, reciting

from magister.types import OpenAt

GREEDY: dict[str, Any] = {"temperature": 0.0}


class TestThinkingCap:
    """A world that opens a thought and never stops thinking: prompt, [THINK], x, x, x, ..., and after it `y`."""

    FOLLOWS = {FIRST: THINK, THINK: FIRST + 1, FIRST + 1: FIRST + 1, END_THINK: FIRST + 2}
    X, Y = FIRST + 1, FIRST + 2

    @pytest.mark.parametrize("cap", [1, 4])
    def test_the_thought_is_closed_by_force(self, cap: int) -> None:
        with reciting(b"x", b"y", follows=self.FOLLOWS) as engine:
            reply = ask(engine, [FIRST], thinking_tokens=cap, logprobs=True, **GREEDY)
        assert reply.ids == (THINK, *[self.X] * cap, END_THINK, self.Y, END)
        assert reply.forced == [False] * (cap + 1) + [True, False, False]
        closing = cap + 1
        assert reply.sampled_logprobs[closing] == 0.0
        assert reply.logprobs[closing] < -1

    def test_zero_forbids_a_thought(self) -> None:
        with reciting(b"x", b"y", follows=self.FOLLOWS) as engine:
            reply = ask(engine, [FIRST], thinking_tokens=0, max_tokens=5, **GREEDY)
        assert THINK not in reply.ids
        assert not any(reply.forced)

    def test_an_open_thought_is_capped_too(self) -> None:
        with reciting(b"x", b"y", follows=self.FOLLOWS) as engine:
            for cap in (0, 3):
                reply = ask(engine, [FIRST, THINK], open_at=OpenAt.THOUGHT, thinking_tokens=cap, **GREEDY)
                assert reply.ids == (*[self.X] * cap, END_THINK, self.Y, END)
                assert reply.forced.index(True) == cap

    def test_without_a_cap_it_goes_on(self) -> None:
        with reciting(b"x", b"y", follows=self.FOLLOWS) as engine:
            assert ask(engine, [FIRST], max_tokens=50, **GREEDY).ids == (THINK, *[self.X] * 49)


def test_a_thought_leaves_room_for_an_answer() -> None:
    follows = {FIRST: THINK, THINK: FIRST + 1, FIRST + 1: FIRST + 1, END_THINK: FIRST + 2, FIRST + 2: FIRST + 2}
    with reciting(b"x", b"y", follows=follows) as engine:
        for room in (8, 20):
            reply = ask(engine, [FIRST], thinking_tokens=1000, max_tokens=room, **GREEDY)
            assert len(reply.ids) == room
            assert reply.ids.index(END_THINK) == room - room // 4 - 1
            assert reply.forced.index(True) == reply.ids.index(END_THINK)
        reply = ask(engine, [FIRST], thinking_tokens=1000, **GREEDY)
        assert len(reply.ids) - 1 - reply.ids.index(END_THINK) == (LIMITS.context - 1) // 4
