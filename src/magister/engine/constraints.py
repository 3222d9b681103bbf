"""What a sequence must say, must not say, and must not say any more: the thinking cap and the stop strings.

Each is a small automaton fed one token at a time. They see ids and bytes, never text, logits or callers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

_RESERVE_SHARE = 4
_RESERVE = 512
_KEPT = 64
"""Stop strings whose tables are kept: all choices of a request have the same, and so do many requests."""


def reserve(room: int) -> int:
    """Tokens kept for the answer behind a capped thought in a reply of at most `room`: a quarter of it, at most 512."""
    return min(room // _RESERVE_SHARE, _RESERVE)


class Thought:
    """Follows thoughts by their two tokens and holds them to a cap.

    The cap counts the tokens between the two tags over the whole reply, without the tags: once it is spent, an open
    thought is closed by force and no further one may open. A cap of 0 forbids thoughts, and closes at once the one that
    the prompt ends in. Where the reply itself would end first, the cap is spent early enough to leave `reserve(room)`
    tokens behind the closing tag.
    """

    def __init__(self, opening: int, closing: int, cap: int, room: int, inside: bool) -> None:
        """`inside`: the prompt ends in an open thought. `room`: tokens of the reply at most."""
        self.opening = opening
        self.closing = closing
        self.inside = inside
        self._left = cap
        self._room = room - reserve(room)

    @property
    def forced(self) -> int | None:
        """The id that must come next, if one must."""
        return self.closing if self.inside and (self._left == 0 or self._room <= 1) else None

    @property
    def banned(self) -> int | None:
        """An id that must not come next, if there is one."""
        # A thought of no tokens takes two tags.
        return self.opening if not self.inside and (self._left == 0 or self._room <= 2) else None

    def push(self, id_: int) -> None:
        """Follows one generated token."""
        self._room -= 1
        if not self.inside:
            self.inside = id_ == self.opening
        elif id_ == self.closing:
            self.inside = False
        else:
            self._left -= 1

    def copy(self) -> Thought:
        """One that goes its own way from here."""
        twin = Thought(self.opening, self.closing, self._left, 0, self.inside)
        twin._room = self._room
        return twin


class Found(NamedTuple):
    """A stop string has been completed."""

    stop: str
    """Which one."""
    trim: int
    """Bytes from its first to the end of the token that completed it."""


class StopStrings:
    """Finds the first stop string in a stream of bytes, however it is cut into tokens.

    First is the one that ends first; of two that end together, the longer. One Knuth-Morris-Pratt automaton a string
    (1977): its state is the length of the longest prefix of the string that the stream now ends with, so the largest
    state is also how many bytes must be held back.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        """None of `stops` may be empty; each must be encodable."""
        self._stops = sorted(stops, key=lambda stop: len(stop.encode()), reverse=True)
        self._needles = [stop.encode() for stop in self._stops]
        self._falls = [_failure(needle) for needle in self._needles]
        self._states = [0] * len(self._stops)

    @property
    def held(self) -> int:
        """Bytes at the end of the stream that may yet turn out to begin a stop string."""
        return max(self._states, default=0)

    def push(self, piece: bytes) -> Found | None:
        """Follows one token's bytes. A token without bytes breaks the text: no stop string reaches across it."""
        if not piece:
            self._states = [0] * len(self._stops)
        for offset, byte in enumerate(piece):
            for index, needle in enumerate(self._needles):
                state = _advance(needle, self._falls[index], self._states[index], byte)
                if state == len(needle):
                    return Found(self._stops[index], len(needle) + len(piece) - offset - 1)
                self._states[index] = state
        return None


def _advance(needle: bytes, fall: Sequence[int], state: int, byte: int) -> int:
    while state and needle[state] != byte:
        state = fall[state]
    return state + 1 if needle[state] == byte else 0


@lru_cache(maxsize=_KEPT)
def _failure(needle: bytes) -> tuple[int, ...]:
    """For each prefix length, how long its longest proper prefix is that is also its suffix: `abab` gives 0 0 0 1 2."""
    fall = [0, 0]
    for byte in needle[1:]:
        fall.append(_advance(needle, fall, fall[-1], byte))
    return tuple(fall)
