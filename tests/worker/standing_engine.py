"""An engine process whose steps stand still on token 9, and fail from token 10 on; everything else of it goes on."""

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
    lost = False

    def forward(self, ids_or_x: Tensor, positions_t: Tensor, attend: Attend) -> Tensor:
        if (ids_or_x == 9).any():
            time.sleep(100)
        # As after an error that a GPU's context keeps: whatever is asked of it next fails too.
        self.lost = self.lost or bool((ids_or_x == 10).any())
        if self.lost:
            raise RuntimeError("the device was lost")
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
