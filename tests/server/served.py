"""`magister serve` in a process of its own, and what it tells of itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

_MAGISTER = "from magister.cli.main import main; main()"


@contextmanager
def served(*flags: str) -> Iterator[str]:
    """The base URL of a server until the block ends; it is told to stop as an operator would tell it."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MAGISTER, "serve", "--port", "0", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    said = [process.stdout.readline()]
    found = re.search(r"http://\S+", said[0])
    # The pipe is read on, so that a server with much to say never waits for a reader.
    rest = threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True)
    rest.start()
    try:
        assert found is not None, said
        yield found[0]
    finally:
        process.terminate()
        code = process.wait(40)
        rest.join(5)
        process.stdout.close()
    assert code == 0, said


def counted(base: str, name: str) -> float:
    """One of the numbers of /metrics."""
    with urlopen(f"{base}/metrics") as answer:
        found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def at_rest(base: str) -> bool:
    """Whether the server comes to answer nobody, within two seconds."""
    end = time.monotonic() + 2
    while counted(base, "magister_requests_in_flight") and time.monotonic() < end:
        time.sleep(0.02)
    return counted(base, "magister_requests_in_flight") == 0


def ask(base: str, path: str, body: Any) -> Any:
    """What a path answers to some JSON."""
    sent = Request(base + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urlopen(sent) as answer:
        return json.load(answer)
