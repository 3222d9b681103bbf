"""Magister over HTTP: `magister serve` in this process's group, asked by many connections at once.

The client is as thin as it can be, and its work counts as the server's.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.workers.serve import Subject, Timed, serve


class Http:
    """The server that is asked."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """As for `magister`: a name or a folder, and fields of `Placement`."""
        command = [
            str(Path(sys.executable).with_name("magister")),
            "serve",
            "--model",
            settings["model"],
            "--port",
            "0",
        ]
        for name, value in settings.get("placement", {}).items():
            command += [f"--{name}", str(value)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        atexit.register(process.kill)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit("magister serve did not start")
        self._name = line.split()[0]
        self._address = urlsplit(next(word for word in line.split() if word.startswith("http://")))
        self.facts = {"version": metadata.version("magister"), **settings.get("placement", {})}

    def generate(self, prompts: list[list[int]], tokens: int, n: int) -> Timed:
        """See `Subject.generate`."""
        return asyncio.run(self._all(prompts, tokens, n))

    async def _all(self, prompts: list[list[int]], tokens: int, n: int) -> Timed:
        began = time.perf_counter()
        firsts = await asyncio.gather(*(self._one(ids, tokens, n) for ids in prompts))
        return Timed(min(firsts) - began, time.perf_counter() - began)

    async def _one(self, ids: list[int], tokens: int, n: int) -> float:
        """When the first token came."""
        body = json.dumps(
            {
                "model": self._name,
                "prompt": ids,
                "max_tokens": tokens,
                "n": n,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        first, last = 0.0, b""
        while data := await reader.read(65536):
            if not first and b"data: " in data:
                first = time.perf_counter()
            last = (last + data)[-4096:]
        writer.close()
        told = re.search(rb'"completion_tokens":\s*(\d+)', last)
        assert told is not None, last
        assert int(told[1]) == tokens * n, (told[0], tokens * n)
        return first


def make(settings: dict[str, Any]) -> Subject:
    """The system as `serve` wants it."""
    return Http(settings)


if __name__ == "__main__":
    serve(make)
