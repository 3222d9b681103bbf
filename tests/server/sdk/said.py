"""What every SDK is asked to do, and the one shape in which it tells how that went.

Drivers in Python and in Node fill the same record, so one set of tests holds for all of them.
"""

from __future__ import annotations

from typing import Any, TypedDict

QUESTION = "What is 7 + 5?"
LONG = "Use 2, 3, 7, 11 and 13 to make 517"
"""A search without an end for nano: long enough to be interrupted, which a test looks at."""
FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"right": {"type": "boolean"}, "kind": {"type": "string", "enum": ["sum", "product"]}},
    "required": ["right", "kind"],
    "additionalProperties": False,
}
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"unit": {"type": "string", "enum": ["C", "F"]}},
    "required": ["unit"],
    "additionalProperties": False,
}
WEATHER, CLOCK = "weather", "clock"
"""Two tools with the same parameters."""


class Answered(TypedDict):
    """One reply."""

    thinking: str
    text: str


class Streamed(Answered):
    """One reply that came in pieces."""

    pieces: int


class Turns(TypedDict):
    """A second turn's prompt, in tokens."""

    replayed: int
    """Of the prompt with the first turn as the SDK gave it."""
    bare: int
    """Of the prompt with the first turn's thoughts left out."""


class Called(TypedDict):
    """Tools: one call required, one of a certain name, and the answer to a result."""

    name: str
    arguments: Any
    named: str
    after: str
    prompt: int
    """Tokens of the prompt with the call and its result in it."""


class Wrong(TypedDict):
    """An error, in the SDK's own class."""

    kind: str
    status: int
    message: str


class Said(TypedDict):
    """All of it. Each driver ends with a stream that it closes in the middle."""

    plain: Answered
    streamed: Streamed
    turns: Turns
    called: Called
    formed: str
    missing: Wrong
    wrong: Wrong
    """Of a temperature of 9."""
