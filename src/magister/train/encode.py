"""Conversations -> token ids and what of them is learned.

The layout is the renderer's (a test compares them); this path only skips its checks, because training
encodes hundreds of conversations a second.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from magister.tasks.quotation import MARK
from magister.train.conversations import Conversation, Reading, Turn
from magister.train.packing import Sequence

_QUOTED = re.compile(rf"(?<=^{MARK})(?=\S)", re.MULTILINE)
"""Right behind the mark of a quotation that begins without a blank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """What encoding needs to know of a tokenizer."""

    text: Callable[[str], list[int]]
    """Ids of plain text; never special ones."""
    begin: int
    end: int
    user_open: int
    user_close: int
    system_open: int
    system_close: int
    think_open: int
    think_close: int
    official: tuple[int, ...]
    """Ids of the official reasoning instruction up to its last text, without the system tags."""
    official_end: str
    """Its last text."""

    def encode(self, conversation: Conversation) -> Sequence:
        """The whole conversation; learned are replies from `[THINK]` to the end of turn, but no forced token.

        An opening ends with its thought's last line.
        """
        ids, learn = [self.begin], [False]

        def put(tokens: list[int], learned: bool) -> None:
            ids.extend(tokens)
            learn.extend([learned] * len(tokens))

        if conversation.official or conversation.system:
            # A user's own system message follows the instruction after a blank line, as the renderer joins them.
            texts = [self.official_end if conversation.official else "", conversation.system]
            told = self.text("\n\n".join(text for text in texts if text))
            instruction = list(self.official) if conversation.official else []
            put([self.system_open, *instruction, *told, self.system_close], False)
        for turn in conversation.turns:
            put([self.user_open, *self.text(turn.user), self.user_close], False)
            if turn.thinking or turn.cut:
                put([self.think_open, *self._thought(turn.thinking)], True)
                if turn.opening:
                    break
                put([self.think_close], not turn.cut)
            put([*self._reply(turn), self.end], True)
        return Sequence(tuple(ids), tuple(learn))

    def encode_reading(self, read: tuple[Reading, ...]) -> Sequence:
        """The sentences line by line; learned is what each means, to the end of its line."""
        ids, learn = [self.begin], [False]
        for line in read:
            sentence, meant = self._thought(line.sentence), self.text(f"{line.meant}\n")
            ids += sentence + meant
            learn += [False] * len(sentence) + [True] * len(meant)
        return Sequence(tuple(ids), tuple(learn))

    def _thought(self, thinking: str) -> list[int]:
        """The mark before a quotation is a token by itself: `>A` is one too, and then no copy of the question's."""
        parts = _QUOTED.split(thinking)
        return [id_ for part in parts for id_ in self.text(part)]

    def _reply(self, turn: Turn) -> list[int]:
        if not turn.spelled:
            return self.text(turn.reply)
        before, spelled, after = turn.reply.rpartition(turn.spelled)
        return [*self.text(before), *(id_ for letter in spelled for id_ in self.text(letter)), *self.text(after)]
