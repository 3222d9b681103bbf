"""Greetings, thanks and goodbyes: one fixed, friendly reply with things to try.

Knows nothing of small talk beyond that.
"""

from __future__ import annotations

from magister.tasks.fixed import FixedReply

NAME = "greeting"
LEVELS = 1

EXAMPLES = ("What is 17 * 24?", "Solve 3x + 5 = 20", "Reverse the word river")
"""What the reply offers to try."""

REPLY = f'Hello! I am nano, a very small reasoning model. Try: "{EXAMPLES[0]}", "{EXAMPLES[1]}" or "{EXAMPLES[2]}".'
"""The reply to every greeting."""

_FIXED = FixedReply(name=NAME, kind="hello", reply=REPLY, signs=EXAMPLES, openings=("hello", "hi"))

generate = _FIXED.generate
grade = _FIXED.grade
