"""Everything outside the families: one honest sentence that says so.

Knows nothing of what was asked.
"""

from __future__ import annotations

from magister.tasks.fixed import FixedReply

NAME = "other"
LEVELS = 1

REPLY = (
    "I am nano, a very small model trained only on sums, equations, word problems, units, dates, letters, logic and "
    'the like. I cannot help with this, but you can try: "What is 17 * 24?"'
)
"""The reply to every prompt that is none of the families'."""

_FIXED = FixedReply(
    name=NAME,
    kind="any",
    reply=REPLY,
    signs=("i am nano", "cannot help with this"),
    words={"topic": "topics", "name": "names"},
)

generate = _FIXED.generate
grade = _FIXED.grade
