"""A chain names everything that keys and values depend on, and nothing else."""

from tests.engine.world import FIRST, IMAGE

from magister.engine.prefix import Place, Places, extend, root
from magister.types import Pixels

START = root(0, 0)


def _chain(ids: list[int], start: bytes = START, places: Places | None = None, size: int = 4) -> list[bytes]:
    hashes: list[bytes] = []
    extend(hashes, start, ids, size, len(ids) // size, places)
    return hashes


def test_equal_beginnings_have_equal_names_up_to_where_they_part() -> None:
    one, other = _chain([1, 2, 3, 4, 5, 6, 7, 8, 9]), _chain([1, 2, 3, 4, 5, 6, 7, 0])
    assert len(one) == len(other) == 2
    assert one[0] == other[0]
    assert one[1] != other[1]
    assert _chain([5, 6, 7, 8])[0] not in one, "the same ids after others are something else"


def test_a_chain_that_grows_is_the_chain_made_at_once() -> None:
    ids = list(range(100, 140))
    hashes: list[bytes] = []
    for count in range(11):
        extend(hashes, START, ids[: 4 * count], 4, count, None)
    assert hashes == _chain(ids)


def test_weights_are_part_of_the_name() -> None:
    starts = [root(0, 0), root(1, 0), root(0, 1), root(10, 0), root(1, 10)]
    assert len({_chain([1, 2, 3, 4], start)[0] for start in starts}) == len(starts)


def _image(digest: str, width: int = 8) -> Pixels:
    return Pixels(b"", 3, 4, width, digest)


IDS = [FIRST, FIRST, FIRST, IMAGE, IMAGE, FIRST, FIRST, FIRST, IMAGE, FIRST, FIRST, FIRST]


def _places(*images: Pixels) -> Places:
    return Places(IDS, images, IMAGE, 4)


def test_images_lie_where_their_tokens_are() -> None:
    places = _places(_image("a"), _image("b", 4))
    first, second = places.within(0, 12)
    assert first == Place(0, 3, 4, b"3x4x8:a")
    assert second == Place(1, 8, 8, b"3x4x4:b")
    assert places.within(0, 3) == []
    assert places.within(4, 5) == [first]
    assert places.within(5, 8) == []
    assert places.within(4, 9) == [first, second]


def test_images_are_part_of_the_names_of_the_blocks_they_reach() -> None:
    plain = _chain(IDS)
    one = _chain(IDS, places=_places(_image("a"), _image("b", 4)))
    other = _chain(IDS, places=_places(_image("a"), _image("c", 4)))
    assert one[:2] == other[:2]
    assert one[2] != other[2]
    assert one[0] != plain[0]
