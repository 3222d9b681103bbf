"""Server-sent events: frames out, frames in, however the bytes are cut. Knows no dialect."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

_ENCODE = msgspec.json.Encoder().encode

COMMENT = b": keepalive\n\n"
"""A frame that clients skip (but for Google's Python client, which fails on it)."""
DONE = b"data: [DONE]\n\n"


def frame(value: Any, event: str = "") -> bytes:
    """One frame of a JSON value, with its event's name where it has one."""
    if event:
        return b"event: %b\ndata: %b\n\n" % (event.encode(), _ENCODE(value))
    return b"data: %b\n\n" % _ENCODE(value)


class Frame(NamedTuple):
    """One frame that was read."""

    event: str
    """Empty where it has no name."""
    data: bytes


class FrameReader:
    """Bytes in, whole frames out. Comments and empty frames are skipped."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete."""
        # A lone CR may be the first half of CRLF, so it waits.
        whole = self._rest + data
        held = b"\r" if whole.endswith(b"\r") else b""
        text = whole[: len(whole) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, last = text.split(b"\n\n")
        self._rest = last + held
        return [frame for frame in map(_frame, blocks) if frame is not None]

    def end(self) -> list[Frame]:
        """A last frame that no blank line followed."""
        frame = _frame(self._rest.replace(b"\r", b"\n"))
        self._rest = b""
        return [] if frame is None else [frame]


def _frame(block: bytes) -> Frame | None:
    event, data = "", []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            event = value.decode("utf-8", "replace")
        elif name == b"data":
            data.append(value)
    return Frame(event, b"\n".join(data)) if data else None
