"""An engine process whose steps stand still on token 9; everything else of it goes on."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from tests.engine.world import LIMITS, VOCABULARY, random_model
from tests.worker.world import HELLO
from torch import Tensor

from magister.engine.engine import Engine
from magister.engine.serve import serving
from magister.model.decoder import Attend
from magister.model.network import Model


class _Standing(Model):
    def forward(self, ids_or_x: Tensor, positions_t: Tensor, attend: Attend) -> Tensor:
        if (ids_or_x == 9).any():
            time.sleep(100)
        return super().forward(ids_or_x, positions_t, attend)


def command(path: Path) -> list[str]:
    """Starts it, wherever the tests are run from."""
    root = str(Path(__file__).parent.parent.parent)
    code = f"import sys; sys.path[:0] = [{root!r}]; from tests.worker.standing_engine import main; main()"
    return [sys.executable, "-c", code, str(path)]


def main() -> None:
    """Serves until it is killed."""

    async def run() -> None:
        async with serving(Engine(random_model(kind=_Standing), VOCABULARY, LIMITS), HELLO, Path(sys.argv[1])):
            await asyncio.sleep(100)

    asyncio.run(run())
