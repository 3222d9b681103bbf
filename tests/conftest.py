"""What holds for every test: an interrupt can be sent, a terminal can hang up, and a busy machine fails no law.

Processes that test side by side share the cores: PyTorch's threads of one would spin on the cores of the other.

A shell that starts a job in the background has it ignore SIGINT, and `nohup` SIGHUP; so would every process the tests
start.
"""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from magister.cli.machine import usable_cores


def pytest_configure() -> None:
    """No example of a law has a time limit: half a second of a busy machine is no fault of what is tested."""
    settings.register_profile("unhurried", deadline=None)
    settings.load_profile("unhurried")
    if side_by_side := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        # Before PyTorch is there, which reads it once.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // int(side_by_side))))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """SIGINT interrupts and SIGHUP ends, whoever started the tests."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
