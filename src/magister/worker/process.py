"""A child process that cannot outlive its parent, and that an event loop can wait for.

Its standard input is a pipe that nobody writes into: when the parent is gone, however that came, the pipe ends, and the
child is expected to end with it. Knows nothing of what the process does.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence

_LINES = 20
"""Of what a process said, kept for whoever asks why it ended."""


class Process:
    """A running process. Must be made inside a running event loop, and waited for."""

    def __init__(self, command: Sequence[str], tell: Callable[[str], None] | None = None) -> None:
        """`tell` is given each line that it prints, on the loop. OSError where there is no such program."""
        self._loop = asyncio.get_running_loop()
        self._tell = tell
        self._lines: deque[str] = deque(maxlen=_LINES)
        # A group of its own keeps Ctrl-C for the parent, which knows how to end in order; the same session, where
        # systems wake a stopped process and hang up on it when it is orphaned, if with exceptions.
        self._child = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        self._exited: asyncio.Future[int] = self._loop.create_future()
        # A thread rather than asyncio's child watchers: those differ between loops, and some need the main thread.
        threading.Thread(target=self._follow, name="magister-process", daemon=True).start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    @property
    def last_line(self) -> str:
        """The last thing it said; empty for nothing."""
        return self._lines[-1] if self._lines else ""

    @property
    def exited(self) -> asyncio.Future[int]:
        """Done when it is over, with its exit code; below 0 for the signal that ended it."""
        return self._exited

    async def stop(self, seconds: float) -> int:
        """Asks it to end, kills it if it has not after `seconds`; returns its exit code."""
        if not self._exited.done():
            self._child.terminate()
            await asyncio.wait([self._exited], timeout=seconds)
        return await self.kill()

    async def kill(self) -> int:
        """Ends it at once, stopped or not; returns its exit code."""
        if not self._exited.done():
            self._child.kill()
        return await asyncio.shield(self._exited)

    def _follow(self) -> None:
        """In a thread: hands on what it prints and waits for its end."""
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            for raw in child.stdout:
                line = raw.decode("utf-8", errors="replace").rstrip()
                if line:
                    self._loop.call_soon_threadsafe(self._hear, line)
            code = child.wait()
            self._loop.call_soon_threadsafe(self._end, code)
        except RuntimeError:
            # The loop was closed: nobody is left to tell, and the pipe's end will end the process.
            return
        finally:
            child.stdin.close()
            child.stdout.close()

    def _hear(self, line: str) -> None:
        self._lines.append(line)
        if self._tell is not None:
            self._tell(line)

    def _end(self, code: int) -> None:
        if not self._exited.done():
            self._exited.set_result(code)


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    return f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"
