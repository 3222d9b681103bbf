"""Progress bars of the commands: on standard error, where that is a terminal, and gone at the end.

Knows nothing of what is counted.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import Progress, ProgressColumn


def bar_of(*columns: ProgressColumn) -> Progress:
    """A bar with these columns, or the usual ones. What a command prints may go to a file: the bar does not."""
    shown = sys.stderr is not None and sys.stderr.isatty()
    # Otherwise rich takes what is printed meanwhile, and says it where the bar is.
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False, disable=not shown)
