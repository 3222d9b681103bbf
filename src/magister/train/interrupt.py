"""Ctrl-C that lets a step end before training stops. Knows nothing of what a step is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def first_interrupt() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (SIGINT) sets instead of interrupting; a second one interrupts at once.

    Outside the main thread, and where SIGINT is ignored, nothing changes and nothing sets the event.
    """
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        asked.set()
        # Whatever was there before might only take note as well.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
