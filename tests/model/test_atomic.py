"""Files appear whole or not at all, several of them together."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from magister.model import atomic
from magister.model.atomic import File


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_move_when_all_are_made(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / ".b").write_text("what a run left that was killed, longer than what comes")

    def write_b(new: Path) -> None:
        assert (tmp_path / "a").read_text() == "old"
        new.write_text("new b")

    first = File(tmp_path / "a", lambda new: new.write_text("new a"))
    atomic.replace(first, File(tmp_path / "b", write_b, new=tmp_path / ".b"))
    assert contents(tmp_path) == {"a": "new a", "b": "new b"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no"), OSError(errno.EACCES, "no")])
def test_what_fails_leaves_nothing_and_changes_nothing(error: BaseException, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old a")
    (tmp_path / "b").write_text("old b")

    def fail(new: Path) -> None:
        new.write_text("half")
        raise error

    with pytest.raises(type(error)) as raised:
        atomic.replace(File(tmp_path / "a", lambda new: new.write_text("new")), File(tmp_path / "b", fail))
    assert raised.value is error
    assert contents(tmp_path) == {"a": "old a", "b": "old b"}


@pytest.mark.parametrize(("size", "said"), [(12_345, "12,345"), (None, "more")])
def test_where_there_is_no_room_it_is_said_in_numbers(size: int | None, said: str, tmp_path: Path) -> None:
    def fail(new: Path) -> None:
        new.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    words = rf"b needs {said} bytes, [\d,]+ are free \(No space left on device\); what was done before is kept"
    with pytest.raises(OSError, match=words):
        atomic.replace(File(tmp_path / "b", fail, size))
    assert contents(tmp_path) == {}
