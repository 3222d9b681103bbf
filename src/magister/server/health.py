"""How the models behind a server are. Is told by whoever runs them; knows no engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Condition:
    """How one model is, right now."""

    state: str
    """`ready`, `starting`, `restarting`, `failed` or `draining`."""
    restarts: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is known: kernels, process, load."""

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return self.state == "ready"


Look = Callable[[], Mapping[str, Condition]]
"""Models by name, and how each is."""


def report(conditions: Mapping[str, Condition]) -> dict[str, Any]:
    """What `/health` says."""
    return {
        "status": "ok" if all(one.ready for one in conditions.values()) else "unavailable",
        "models": {
            name: {"state": one.state, "restarts": one.restarts, **one.facts} for name, one in conditions.items()
        },
    }
