"""`magister chat` on a terminal: a conversation, a live thought, folded when it ends."""

import os
import pty
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tests.cli import checkpoints

import magister
from magister.cli import chat
from magister.cli.chat import ChatOptions, _converse, _newest
from magister.cli.face import LocalModel
from magister.types import Choice, Image, Message, Reply, SystemPrompt, assistant, system, user


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


OPTIONS = ChatOptions(
    prompt=None, model="", images=(), system=None, replace_system=False, temperature=None, top_p=None, seed=None,
    max_tokens=None, hide_thinking=False, json=False, placement={},
)  # fmt: skip


def test_a_question_that_failed_has_shown_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what others wrote into a card or an error is no markup."""
    folder = checkpoints.native(tmp_path / "model", checkpoints.WITH_VISION)
    (folder / "magister.json").write_text('{"description": "sees [/b] all"}')
    (tmp_path / "a.png").write_bytes(b"a picture")
    lines, asked = iter(["too long", "short", "once more", ""]), list[Sequence[Message]]()

    def answer(model: LocalModel, messages: Sequence[Message], options: ChatOptions) -> tuple[Reply, int]:
        asked.append(messages)
        if len(asked) == 1:
            raise ValueError("prompt: [/b] is too long")
        return Reply(choices=(Choice(message=assistant("yes")),)), 0

    monkeypatch.setattr(chat, "_answer", answer)
    monkeypatch.setattr(chat, "_newest", lambda model, opening, turns, *_: turns)
    monkeypatch.setattr(Console, "input", lambda *_: next(lines))
    with magister.load(str(folder)) as model:
        assert _converse(model, replace(OPTIONS, images=(tmp_path / "a.png",))) == 0
    shown = [sum(isinstance(part, Image) for part in messages[-1].parts) for messages in asked]
    assert shown == [1, 1, 0]


def test_an_instruction_that_was_replaced_takes_no_room(tmp_path: Path) -> None:
    folder = checkpoints.native(tmp_path / "model", checkpoints.TEXT)
    (folder / "magister.json").write_text('{"system_prompt": "' + "Think. " * 40 + '", "context": 256}')
    opening, turns = [system("Be brief.")], ((user("Is it?"), assistant("Yes.")),)
    with magister.load(str(folder)) as model:
        assert _newest(model, opening, turns, user("And now?"), SystemPrompt.ADD) == ()
        assert _newest(model, opening, turns, user("And now?"), SystemPrompt.REPLACE) == turns
