"""By which names checkpoints go."""

from pathlib import Path

import pytest

from magister.cli.places import called, served_name


def test_a_folder_is_called_by_its_whole_name_and_a_file_without_its_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = tmp_path / "Magistral-Small-1.2", tmp_path / "small-1.2.gguf"
    folder.mkdir()
    file.touch()
    monkeypatch.chdir(folder)
    assert [called(folder), called(Path()), called(file)] == ["Magistral-Small-1.2", "Magistral-Small-1.2", "small-1.2"]
    assert served_name(".", Path(), "what it says") == "Magistral-Small-1.2"
    (folder / "magister.json").touch()
    assert served_name(".", Path(), "what it says") == "what it says"
