"""`magister serve`: a listening socket, the rules of access, and the app behind them."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn
import uvloop

from magister.cli.flags import ModelOptions
from magister.cli.http import configured
from magister.cli.serving import DRAIN_SECONDS, opened
from magister.server.access import LOOPBACK, Access, Keys
from magister.server.guests import ORIGIN
from magister.server.keyfile import read as read_keys
from magister.server.settings import Settings
from magister.wire.dialect import Card

_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What a person asked for."""

    model: ModelOptions
    host: str = "127.0.0.1"
    port: int = 8080
    keys: Path | None = None
    origins: tuple[str, ...] = ()
    host_names: tuple[str, ...] = ()
    settings: Settings
    log_requests: bool = False


def run(options: ServeOptions) -> int:
    """Serve until told to stop; returns the exit code."""
    _hold_standard_streams()
    if options.log_requests:
        _log_requests()
    try:
        access = _access(options)
        with (
            _listen(options.host, options.port) as listener,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop,
        ):
            return loop.run(_until_told(options, access, listener))
    except ValueError as error:
        print(f"magister serve: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:
        print(f"magister serve: {error}", file=sys.stderr)
        return 1


def _log_requests() -> None:
    """Lines of requests to standard error, and of nothing else: what libraries have to say is not asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("magister.access")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


async def _until_told(options: ServeOptions, access: Access, listener: socket.socket) -> int:
    """Serves until SIGTERM or Ctrl-C; returns the exit code: 0, or 130 for the latter."""
    loop, code, servers = asyncio.get_running_loop(), 0, list[uvicorn.Server]()
    serving = loop.create_task(_serve(options, access, listener, servers))

    def told(number: signal.Signals) -> None:
        nonlocal code
        code = 130 if number is signal.SIGINT else 0
        # Uvicorn hears signals itself while it serves, and repeats them when it has ended in order: not to be hurried.
        for server in servers:
            server.should_exit = True
        if not servers:
            serving.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    with suppress(asyncio.CancelledError):
        await serving
    return code


async def _serve(options: ServeOptions, access: Access, listener: socket.socket, servers: list[uvicorn.Server]) -> None:
    """Adds the server to `servers` once there is one to be told to stop."""
    began = time.perf_counter()
    async with opened(options.model, options.settings, access) as site:
        (condition,) = site.look().values()
        seconds = time.perf_counter() - began
        config = configured(site, timeout_graceful_shutdown=int(DRAIN_SECONDS))
        servers.append(server := uvicorn.Server(config))
        _tell(options, site.house.models.cards[0], listener, f"ready in {seconds:.1f} s, {condition.facts['kernels']}")
        await server.serve(sockets=[listener])
        if server.force_exit:
            for task in server.server_state.tasks:
                task.cancel()


def _hold_standard_streams() -> None:
    """Gives the three standard streams something where whoever started this process closed them: the next files and
    sockets would get their numbers, and what is printed would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free.
            os.open(os.devnull, os.O_RDWR)


def _access(options: ServeOptions) -> Access:
    for origin in options.origins:
        if not ORIGIN.fullmatch(origin) or origin != origin.lower():
            raise ValueError(f"--origin {origin}: browsers say no such origin; they say https://example.org or null")
    for name in options.host_names:
        if not _HOST_NAME.fullmatch(name):
            raise ValueError(f"--host-name {name}: must be a name alone, such as magister.local, without port or path")
    local = _is_loopback(options.host)
    names = {name.casefold() for name in options.host_names}
    if local:
        names.add(f"[{options.host}]" if ":" in options.host else options.host)
    hosts = None if not local and not names else frozenset({*LOOPBACK, *names})
    return Access(keys=_keys(options), origins=frozenset(options.origins), hosts=hosts)


def _keys(options: ServeOptions) -> Keys | None:
    keys = read_keys(options.keys) if options.keys is not None else None
    if keys is None and not _is_loopback(options.host):
        raise ValueError(
            f"--host {options.host}: without keys a server listens on this machine only; make one with "
            "`magister keys add NAME --keys FILE` and start with `--keys FILE`"
        )
    return keys


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """The listening socket; a port in use is found here and not after the weights are read."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(f"{host}:{port}: {error.strerror or error}") from None
    return listener


def _tell(options: ServeOptions, card: Card, listener: socket.socket, how: str) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    key = "" if options.keys is None else " -H 'Authorization: Bearer KEY'"
    said = (
        f"{card.name} answers at {url} ({how}, {card.context:,} tokens of context)\n"
        f"  chat page   {url}/\n"
        f"  OpenAI      {url}/v1            Mistral {url}\n"
        f"  Anthropic   {url}               Google  {url}\n"
        f"  Puter       {url}/puter/v2/     API     {url}/docs\n"
        f"  curl {url}/v1/chat/completions{key} -H 'content-type: application/json' \\\n"
        f'    -d \'{{"model":"{card.name}","messages":[{{"role":"user","content":"What is 17 * 24?"}}]}}\''
    )
    try:
        print(said, flush=True)
    except OSError as error:
        # Whoever read it has gone, or its disk is full: no reason not to serve. What is left of it is said to nobody.
        with suppress(OSError):
            print(f"magister serve: serving, but standard output: {error.strerror}", file=sys.stderr)
        with open(os.devnull, "wb") as nobody:
            os.dup2(nobody.fileno(), sys.stdout.fileno())
