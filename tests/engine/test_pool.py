"""Blocks are lent once each, side by side where there is room."""

import random

import pytest

from magister.engine.pool import BlockPool


def test_a_sequence_grows_in_place_while_there_is_room() -> None:
    pool = BlockPool(8, 16)
    a = pool.allocate(2)
    b = pool.allocate(1)
    c = pool.allocate(1)
    a += pool.allocate(1, after=a[-1])
    assert (a, b, c) == ([0, 1, 2], [5], [3])
    b += pool.allocate(3, after=b[-1])
    assert b == [5, 6, 7, 4]
    pool.audit([a, b, c])


def test_a_long_run_starts_early_enough_to_be_whole() -> None:
    pool = BlockPool(8, 16)
    pool.allocate(1)
    assert pool.allocate(6) == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(("tokens", "blocks"), [(1, 1), (16, 1), (17, 2), (160, 10)])
def test_blocks_for(tokens: int, blocks: int) -> None:
    assert BlockPool(1, 16).blocks_for(tokens) == blocks


def test_audit_finds_what_is_lost_doubled_or_free() -> None:
    pool = BlockPool(4, 1)
    held = pool.allocate(2)
    for tables in ([], [held[:1]], [held, held], [[*held, 3]]):
        with pytest.raises(AssertionError):
            pool.audit(tables)
    with pytest.raises(AssertionError, match="freed twice"):
        pool.free([3])
    pool.audit([held])


def test_any_order_of_lending_and_giving_back_audits_clean() -> None:
    chance = random.Random(0)
    pool = BlockPool(37, 4)
    tables: list[list[int]] = []
    for _ in range(2000):
        if tables and chance.random() < 0.3:
            pool.free(tables.pop(chance.randrange(len(tables))))
        elif tables and chance.random() < 0.6 and pool.available:
            table = chance.choice(tables)
            table += pool.allocate(1, after=table[-1])
        elif count := chance.randrange(min(6, pool.available + 1)):
            tables.append(pool.allocate(count))
        pool.audit(tables)
