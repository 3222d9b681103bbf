"""Blocks are lent once each, side by side where there is room."""

import random
import time

import pytest

from magister.engine.pool import BlockPool


def test_a_sequence_grows_in_place_while_there_is_room() -> None:
    pool = BlockPool(8, 16)
    a = pool.allocate(2)
    b = pool.allocate(1)
    c = pool.allocate(1)
    a += pool.allocate(1, after=a[-1])
    assert (a, b, c) == ([0, 1, 2], [4], [6])
    b += pool.allocate(3, after=b[-1])
    assert b == [4, 5, 3, 7]
    pool.audit([a, b, c])


def test_a_long_run_stays_whole() -> None:
    pool = BlockPool(8, 16)
    pool.allocate(1)
    assert pool.allocate(6) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("tokens", "blocks"), [(1, 1), (16, 1), (17, 2), (160, 10)])
def test_blocks_for(tokens: int, blocks: int) -> None:
    assert BlockPool(1, 16).blocks_for(tokens) == blocks


def test_audit_finds_what_is_lost_doubled_or_free() -> None:
    pool = BlockPool(4, 1)
    held = pool.allocate(2)
    for tables in ([], [held[:1]], [held, held], [[*held, 3]], [held, held[:1]]):
        with pytest.raises(AssertionError):
            pool.audit(tables)
    with pytest.raises(AssertionError, match="freed twice"):
        pool.free([3])
    pool.audit([held])


def test_a_block_that_is_shared_has_as_many_holders() -> None:
    pool = BlockPool(4, 1)
    held = pool.allocate(2)
    pool.register(held[0], b"one")
    pool.share(held[0])
    pool.audit([held, held[:1]])
    pool.free(held)
    assert (pool.find(b"one"), pool.idle, pool.available) == (held[0], 0, 3)
    pool.free(held[:1])
    assert (pool.find(b"one"), pool.idle, pool.available) == (held[0], 1, 4)
    pool.audit()


def test_freed_blocks_can_be_found_until_they_are_needed_the_oldest_goes_first() -> None:
    pool = BlockPool(4, 1)
    for name in (b"a", b"b", b"c"):
        (block,) = pool.allocate(1)
        pool.register(block, name)
        pool.free([block])
    found = pool.find(b"a")
    assert found is not None
    pool.share(found)
    pool.free([found])
    pool.allocate(2)
    assert [pool.find(name) is not None for name in (b"a", b"b", b"c")] == [True, False, True]
    pool.allocate(2)
    assert (pool.idle, pool.find(b"a"), pool.find(b"c")) == (0, None, None)


def test_of_one_sequence_the_end_is_forgotten_first() -> None:
    pool = BlockPool(3, 1)
    held = pool.allocate(3)
    for block, name in zip(held, (b"a", b"b", b"c"), strict=True):
        pool.register(block, name)
    pool.free(held)
    pool.allocate(1)
    assert [pool.find(name) is not None for name in (b"a", b"b", b"c")] == [True, True, False]


def test_what_is_not_kept_or_forgotten_is_not_found() -> None:
    pool = BlockPool(4, 1)
    for keep, forget in ((False, False), (True, True)):
        held = pool.allocate(2)
        pool.register(held[0], b"a")
        pool.free(held, keep=keep)
        if forget:
            pool.forget()
        assert (pool.find(b"a"), pool.idle, pool.available) == (None, 0, 4)
        pool.audit()
    held = pool.allocate(2)
    pool.register(held[0], b"a")
    pool.forget()
    assert pool.find(b"a") is None
    pool.free(held)
    assert pool.idle == 0
    pool.audit()


def test_of_two_blocks_with_the_same_contents_the_first_is_found() -> None:
    pool = BlockPool(4, 1)
    first, second = pool.allocate(2)
    pool.register(first, b"a")
    pool.register(second, b"a")
    pool.free([first, second])
    assert (pool.find(b"a"), pool.idle, pool.available) == (first, 1, 4)
    pool.audit()


def test_what_lies_apart_is_found_in_one_look() -> None:
    """A look for each block, as was taken once, takes half a minute."""
    pool = BlockPool(1 << 16, 16)
    held = pool.allocate(1 << 16)
    pool.free(held[::2])
    began = time.thread_time()
    table = pool.allocate(1 << 14)
    assert time.thread_time() - began < 2
    pool.audit([held[1::2], table])


def test_of_what_lies_apart_the_longest_pieces_are_taken() -> None:
    pool = BlockPool(16, 16)
    held = pool.allocate(16)
    pool.free([0, 2, 3, 5, 6, 7, 9])
    assert pool.allocate(6) == [5, 6, 7, 2, 3, 0]
    pool.audit([[block for block in held if block != 9]])


def test_any_order_of_lending_and_giving_back_audits_clean() -> None:
    chance = random.Random(0)
    pool = BlockPool(37, 4)
    tables: list[list[int]] = []
    for turn in range(2000):
        if tables and chance.random() < 0.3:
            pool.free(tables.pop(chance.randrange(len(tables))), keep=chance.random() < 0.9)
        elif tables and chance.random() < 0.2:
            pool.register(chance.choice(chance.choice(tables)), b"%d" % chance.randrange(40))
        elif (found := pool.find(b"%d" % chance.randrange(40))) is not None:
            pool.share(found)
            tables.append([found])
        elif turn % 500 == 499:
            pool.forget()
        elif tables and chance.random() < 0.6 and pool.available:
            table = chance.choice(tables)
            table += pool.allocate(1, after=table[-1])
        elif count := chance.randrange(min(6, pool.available + 1)):
            tables.append(pool.allocate(count))
        pool.audit(tables)
