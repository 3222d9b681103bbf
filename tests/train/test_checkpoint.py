import errno
import os
from pathlib import Path

import pytest
import torch

from magister.train import checkpoint


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, {"step": 3, "x": torch.arange(4)})
    state = checkpoint.load(tmp_path)
    assert state is not None
    assert state["step"] == 3
    assert torch.equal(state["x"], torch.arange(4))


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, {"step": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, {"step": 2})
    monkeypatch.undo()
    assert checkpoint.load(tmp_path) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NAME]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_disk_is_an_os_error(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {"step": 1})
    (tmp_path / f"{checkpoint.NAME}.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="could not write checkpoint"):
        checkpoint.save(tmp_path, {"step": 2, "x": torch.zeros(1 << 20)})
    assert checkpoint.load(tmp_path) == {"step": 1}
