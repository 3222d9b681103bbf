"""Magister: an open, self-hosted implementation of the Magistral reasoning system.

import magister

model = magister.load("nano")
print(model.chat("What is 17 * 24?").answer)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from magister.cli.face import LocalModel
    from magister.cli.flags import Flags

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(model: str = "nano", **how: Unpack[Flags]) -> LocalModel:
    """A model by name (`nano`) or by the path of a checkpoint folder, ready to chat.

    `how`: device, dtype, context, kv, kernels, threads, speculation, as `magister chat` has them; see `cli.face.load`.
    """
    # Here and not above: importing the torch-free rooms must not import torch.
    from magister.cli import face

    return face.load(model, **how)
