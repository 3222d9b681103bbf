"""Guesses at a sequence's next tokens from the sequence itself, and whether they are worth making.

Reasoning repeats itself: what followed the last few tokens the last time they were said is a fair guess at what follows
now (prompt lookup decoding: Saxena, 2023). A step computes the guesses together with the token before them and draws
from each row as it would have without them; a guess stands while it is what was drawn. So the reply is the same, and
only the number of steps changes (compare Leviathan et al., 2023, whose drafts come from a second model).

Knows ids and outcomes, no logits and no blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 3
"""Tokens of context that a guess is first looked up by..."""
SHORTEST = 2
"""...and last."""

_HOPE = 0.6
"""The chance that a guess is right, as believed before any was made."""
_PACE = 0.03
"""How much the last guess counts towards that chance."""
_PATIENCE = 64
"""Steps without a guess after which the chance is believed to be `_HOPE` again."""


class NGrams:
    """Where each run of a few ids in a growing list was last followed by something."""

    def __init__(self, ids: Sequence[int]) -> None:
        """`ids` may grow at its end, and must not change otherwise."""
        self._ids = ids
        self._read = 0
        self._after: dict[tuple[int, ...], int] = {}

    def follow(self, count: int) -> tuple[int, ...]:
        """What came after the last ids when they were last said, up to `count` ids; nothing if they never were.

        Where that reaches the end of the list, it goes on with itself: after 1 2 3 1 2 3 1 2 the guess is 3 1 2 3 ...
        """
        self._index()
        ids = self._ids
        for length in range(min(LONGEST, len(ids)), SHORTEST - 1, -1):
            start = self._after.get(tuple(ids[-length:]))
            if start is not None:
                guess = list(ids[start : start + count])
                while len(guess) < count:
                    guess.append(guess[len(guess) - (len(ids) - start)])
                return tuple(guess)
        return ()

    def _index(self) -> None:
        ids, after = self._ids, self._after
        # The very last run has nothing after it yet.
        for end in range(max(self._read, SHORTEST), len(ids)):
            for length in range(SHORTEST, min(LONGEST, end) + 1):
                after[tuple(ids[end - length : end])] = end
        self._read = len(ids)


class Confidence:
    """How many guesses to make, by how often they were right and by what a row costs."""

    def __init__(self, most: int, row_cost: float) -> None:
        """At most `most`; `row_cost` as in `Limits`."""
        self.chance = _HOPE
        """Believed of each guess, given that those before it are right."""
        self._most = most
        self._row_cost = row_cost
        self._idle = 0

    def guesses(self, streams: int) -> int:
        """How many guesses give the most tokens for the time of a step in which `streams` sequences decode.

        A step costs 1 + c (streams - 1 + guesses) and gives each stream a token, guesses chance^1 + chance^2 + ...
        more. Another one pays while it adds more, at its price c, than the step gives on average.
        """
        price = self._row_cost
        tokens, cost, gain, count = float(streams), 1 + price * (streams - 1), self.chance, 0
        while count < self._most and gain * cost > price * tokens:
            tokens, cost, gain, count = tokens + gain, cost + price, gain * self.chance, count + 1
        if count == 0:
            self._idle += 1
            if self._idle >= _PATIENCE:
                self._idle, self.chance = 0, _HOPE
        return count

    def learn(self, made: int, right: int) -> None:
        """Takes the outcome of a step: of `made` guesses the first `right` were."""
        for outcome in [1.0] * right + [0.0] * (right < made):
            self.chance += _PACE * (outcome - self.chance)
