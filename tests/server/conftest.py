"""Real servers for the tests of the published SDKs: one with nano, one with a model that has eyes; each once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server.served import served


@pytest.fixture(scope="session")
def nano() -> Iterator[str]:
    """The URL of `magister serve`, started as docs/clients.md says."""
    with served("--answer", "magistral-small-2509=nano", "--origin", "null") as url:
        yield url


@pytest.fixture(scope="session")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server whose model is small, random and takes images."""
    from tests.cli import checkpoints

    folder: Path = checkpoints.native(tmp_path_factory.mktemp("seeing") / "eyes", checkpoints.WITH_VISION)
    with served("--model", str(folder), "--name", "eyes") as url:
        yield url
