"""A token model in another process, behind a local socket: its frames, its client, and who keeps it alive.

The engine's end of the socket is `magister.engine.serve`. Imports no torch.
"""

from magister.worker.client import WorkerClient
from magister.worker.frames import Hello, Load, Pong
from magister.worker.supervisor import Patience, State, Status, Supervisor

__all__ = ["Hello", "Load", "Patience", "Pong", "State", "Status", "Supervisor", "WorkerClient"]
