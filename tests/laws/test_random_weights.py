"""No rule outside the network sees prompt or answer: with random weights nothing is answered."""

import asyncio
import shutil
from pathlib import Path

import pytest

from magister.cli import compose, places
from magister.evals.pass_at_1 import measure, problems
from magister.model.weights import save_native
from magister.tasks import FAMILIES
from magister.train import nano


@pytest.fixture(scope="module")
def random_nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "nano"
    save_native(nano.fresh(1), folder)
    for name in ("tekken.json", "magister.json"):
        shutil.copy(places.find("nano") / name, folder)
    return folder


def test_random_weights_score_chance_in_every_family(random_nano: Path) -> None:
    loaded = compose.load(str(random_nano))
    try:
        for family in FAMILIES:
            asked = problems(family, 4, seed=0, book="held_out")
            report = asyncio.run(measure(loaded.chat, asked, name=family, max_tokens=48))
            # A yes or no would be right half the time; random weights do not even say that.
            assert report.correct == 0, family
    finally:
        loaded.engine.close()
