"""What holds for every test: an interrupt can be sent, a terminal can hang up, and a busy machine fails no law.

A shell that starts a job in the background has it ignore SIGINT, and `nohup` SIGHUP; so would every process the tests
start.
"""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings


def pytest_configure() -> None:
    """No example of a law has a time limit: half a second of a busy machine is no fault of what is tested."""
    settings.register_profile("unhurried", deadline=None)
    settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """SIGINT interrupts and SIGHUP ends, whoever started the tests."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
