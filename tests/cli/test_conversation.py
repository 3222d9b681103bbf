"""`magister chat` on a terminal: a conversation, a live thought, folded when it ends."""

import os
import pty
import subprocess
import sys
import time


def read_until(terminal: int, mark: bytes, seconds: float = 60) -> bytes:
    seen, deadline = b"", time.monotonic() + seconds
    while mark not in seen and time.monotonic() < deadline:
        try:
            seen += os.read(terminal, 65536)
        except OSError:
            break
    assert mark in seen, seen
    return seen


def test_a_conversation_on_a_terminal() -> None:
    terminal, inside = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", "from magister.cli.main import main; main()", "chat"],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
    ) as process:
        os.close(inside)
        assert b"nano" in read_until(terminal, b"> ")
        os.write(terminal, b"What is 3 + 4?\n")
        first = read_until(terminal, b"> \x1b[0m")
        assert b"\x1b[2m" in first  # dimmed
        assert b"Thought for" in first
        os.write(terminal, b"What is 5 + 4?\n")
        assert b"Thought for" in read_until(terminal, b"> \x1b[0m")
        os.write(terminal, b"\n")
        assert process.wait(timeout=30) == 0
    os.close(terminal)
