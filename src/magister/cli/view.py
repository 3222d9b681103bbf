"""How an answer looks while it comes: the thought dimmed, then folded to one line, then the answer.

On a terminal the thought is shown live in the lines below and erased when it ends. Elsewhere only
the answer goes to standard output, and the folded line to standard error.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text as Line

from magister.types import Annotation, Event, Finish, FinishReason, TextDelta, ThinkingDelta, Usage

REFRESH = 12
"""Redraws a second of the live thought."""


class View:
    """Shows one answer; a context manager."""

    def __init__(self, *, shown: bool, thoughts: bool) -> None:
        """`shown` False shows nothing at all (for JSON); `thoughts` False shows the folded line only."""
        self._console = Console(highlight=False)
        self._terminal = sys.stdout.isatty()
        self._shown = shown
        self._thoughts = thoughts and shown and self._terminal
        self._thought: list[str] = []
        self._tail = ""
        self._tokens = 0
        self._began: float | None = None
        self._live: Live | None = None
        self._folded = False
        self._wrote = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            # Interrupted inside a thought: what there is stays on the screen.
            self._live.transient = False
            self._live.update(Line("".join(self._thought), style="dim"), refresh=True)
            self._live.stop()
            self._live = None
        if self._wrote:
            sys.stdout.write("\n")
            sys.stdout.flush()

    def show(self, event: Event) -> None:
        """Take one event."""
        if not self._shown or event.choice != 0:
            return
        match event:
            case ThinkingDelta():
                self._think(event.text)
            case TextDelta():
                self._fold()
                self._write(event.text)
            case Annotation(kind="thought"):
                self._tokens = event.data["tokens"]
                self._fold()
            case Usage():
                self._tokens = event.thinking_tokens
            case Finish(reason=FinishReason.LENGTH):
                self._fold()
                self._note("(cut at the longest answer allowed)")
            case _:
                pass

    def _think(self, text: str) -> None:
        if self._began is None:
            self._began = time.monotonic()
        if not self._thoughts:
            return
        self._thought.append(text)
        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=REFRESH, transient=True)
            self._live.start()
        height = max(3, self._console.height - 3)
        # Only the end is kept at hand: a thought of 100,000 tokens must not be joined anew for each of them.
        self._tail = "\n".join((self._tail + text).split("\n")[-height:])
        self._live.update(Line(self._tail, style="dim"))

    def _fold(self) -> None:
        if self._folded or self._began is None:
            return
        self._folded = True
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._note(f"Thought for {time.monotonic() - self._began:.1f} s, {self._tokens} tokens")

    def _note(self, text: str) -> None:
        if self._terminal:
            self._console.print(f"[dim]{text}[/dim]")
        else:
            print(text, file=sys.stderr)

    def _write(self, text: str) -> None:
        self._wrote = True
        sys.stdout.write(text)
        sys.stdout.flush()
