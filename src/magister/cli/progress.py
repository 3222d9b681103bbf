"""Progress bars of the commands: on standard error, where that is a terminal, and gone at the end.

Knows nothing of what is counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn


def bar_of(*columns: ProgressColumn) -> Progress:
    """A bar with these columns, or the usual ones. What a command prints may go to a file: the bar does not."""
    shown = sys.stderr is not None and sys.stderr.isatty()
    # Otherwise rich takes what is printed meanwhile, and says it where the bar is.
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False, disable=not shown)


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar over `total` things; gives what to call after each."""
    with bar_of(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
