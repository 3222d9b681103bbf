"""The name of a block's contents: a hash of everything that its keys and values depend on.

Each full block's hash is of the hash before it, the block's ids, and the digests of images whose places lie in it; the
first is of the version of the weights. So equal hashes mean equal beginnings, computed by equal weights. 128 bits of
BLAKE2b: nobody meets or makes two beginnings with one hash. Knows no blocks.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from magister.types import Pixels

_BYTES = 16


def root(version: int, epoch: int) -> bytes:
    """What a chain begins with: changes with every publication, even one that reuses a version's number."""
    return blake2b(f"{version} {epoch}".encode(), digest_size=_BYTES).digest()


class Place(NamedTuple):
    """Where one image of a prompt lies."""

    image: int
    """Which of the prompt's images."""
    first: int
    """Position of its first token."""
    last: int
    """Position of its last token."""
    name: bytes
    """Equal for equal images."""


class Places:
    """Which images lie where in a prompt."""

    def __init__(self, ids: Sequence[int], images: Sequence[Pixels], image_token: int, token_pixels: int) -> None:
        """`image_token` stands in `ids` once for every square of `token_pixels` of the images, in order."""
        self._places: list[Place] = []
        positions = (position for position, id_ in enumerate(ids) if id_ == image_token)
        for index, image in enumerate(images):
            count = (image.height // token_pixels) * (image.width // token_pixels)
            mine = [next(positions) for _ in range(count)]
            name = f"{image.channels}x{image.height}x{image.width}:{image.digest}"
            self._places.append(Place(index, mine[0], mine[-1], name.encode()))

    def within(self, start: int, stop: int) -> list[Place]:
        """Images with tokens in [start, stop), in order."""
        return [place for place in self._places if place.first < stop and place.last >= start]


def extend(
    hashes: list[bytes], start: bytes, ids: Sequence[int], block_size: int, count: int, places: Places | None
) -> None:
    """Lengthens a chain that begins after `start` to the first `count` full blocks of `ids`."""
    before = hashes[-1] if hashes else start
    for block in range(len(hashes), count):
        first, last = block * block_size, (block + 1) * block_size
        state = blake2b(before, digest_size=_BYTES)
        state.update(array("q", ids[first:last]).tobytes())
        if places is not None:
            for place in places.within(first, last):
                state.update(place.name)
        before = state.digest()
        hashes.append(before)
