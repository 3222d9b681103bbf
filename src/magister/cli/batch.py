"""`magister batch`: a file of requests answered by a model here, in any dialect, going on where it stopped.

One request a line, in OpenAI's batch format: `custom_id`, `url` (a path of the server), `body`. Answers are written as
they come. Asks the server's app itself; there is no socket. Imports none of that before the files and the model are
known to be right: it takes seconds.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from magister.cli.flags import ModelOptions
from magister.cli.places import find
from magister.cli.progress import bar_of

if TYPE_CHECKING:
    from magister.server.app import Site

_ATTEMPTS = 3
"""At one request, with nobody beside it, where the engine failed while it was there."""
_FAILED = 502
"""Status of a request that the engine had when it failed."""
_NOT_NOW = frozenset({503, 529})
"""Statuses of one that it had not: it starts again, or is full."""
_OURS = 500
"""Statuses from here on are no fault of the request."""
_BEGINS = b'{"id":"batch_req_'
"""What every answer in a file begins with, as `_answer` writes it."""
_LOOK_SECONDS = 1.0
"""Between two looks at whether it is back; that it is gone may take half of it to be known."""


class Line(msgspec.Struct, frozen=True):
    """One request."""

    custom_id: str
    body: msgspec.Raw
    url: str = "/v1/chat/completions"
    method: str = "POST"


class _Response(msgspec.Struct, frozen=True):
    status_code: int


class _Answered(msgspec.Struct, frozen=True):
    custom_id: str
    response: _Response


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """What a person asked for."""

    source: Path
    target: Path
    model: ModelOptions
    concurrency: int = 32


def run(options: BatchOptions) -> int:
    """Answer what has no answer yet; returns the exit code: 1 where a request was answered with an error."""
    with ExitStack() as held:
        try:
            find(options.model.model)
            lines = list(read(options.source))
            out = held.enter_context(taken(options.source, options.target))
            done = answered(options.target)
        except (ValueError, OSError) as error:
            print(f"magister batch: {error}", file=sys.stderr)
            return 2
        return _go_on(options, lines, done, out)


def _go_on(options: BatchOptions, lines: list[Line], done: set[str], out: FileIO) -> int:
    waiting = [line for line in lines if line.custom_id not in done]
    try:
        failed = asyncio.run(_run(options, waiting, out)) if waiting else 0
    except ValueError as error:
        print(f"magister batch: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:
        print(f"magister batch: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {options.target}", file=sys.stderr)
        return 130
    print(f"{len(waiting)} answered now, {len(lines) - len(waiting)} before, {failed} of them with an error")
    return 1 if failed else 0


def read(source: Path) -> Iterator[Line]:
    """The requests of a file. ValueError that names the line that is none."""
    seen: dict[str, int] = {}
    # Some editors begin a file with a mark of its encoding.
    for number, text in enumerate(source.read_bytes().removeprefix(BOM_UTF8).splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = msgspec.json.decode(text, type=Line)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{source}: line {number}: {error}") from None
        if line.method != "POST" or not line.url.startswith("/"):
            raise ValueError(f"{source}: line {number}: must be a POST to a path, got {line.method} {line.url}")
        if line.custom_id in seen:
            raise ValueError(
                f"{source}: line {number}: custom_id {line.custom_id!r} is that of line {seen[line.custom_id]}"
            )
        seen[line.custom_id] = number
        yield line


def taken(source: Path, target: Path) -> FileIO:
    """The file of answers, to be written at its end by this process alone. ValueError where it cannot be that."""
    if not target.parent.is_dir():
        raise ValueError(f"{target}: there is no folder {target.parent}")
    if target.exists():
        if not target.is_file():
            raise ValueError(f"{target}: answers go to a file, which is read again to go on")
        if target.samefile(source):
            raise ValueError(f"{target}: answers would go to the file of requests")
    out = target.open("ab", buffering=0)
    try:
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        out.close()
        raise ValueError(f"{target}: another batch is writing it") from None
    return out


def answered(target: Path) -> set[str]:
    """Whose answers are in a file; that something failed is no answer, and is asked again. A last line that was cut off
    is taken away from the file, so that it is written again. ValueError for a file that is none of a batch, which stays
    as it is.
    """
    data = target.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    cut = data[len(whole) :]
    found: dict[str, bool] = {}
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            line = msgspec.json.decode(text, type=_Answered)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{target}: line {number} is no answer of a batch: {error}") from None
        found[line.custom_id] = line.response.status_code < _OURS
    if cut and not (cut.startswith(_BEGINS) or _BEGINS.startswith(cut)):
        raise ValueError(f"{target}: its last line, without an end, is no answer of a batch")
    if cut:
        with target.open("r+b") as file:
            file.truncate(len(whole))
    return {custom_id for custom_id, final in found.items() if final}


async def _run(options: BatchOptions, waiting: list[Line], out: FileIO) -> int:
    from magister.cli.serving import opened
    from magister.server.access import Access
    from magister.server.settings import Settings

    # Nobody else asks, so nothing is turned away for being too much at a time.
    settings = Settings(in_flight=options.concurrency + 1, signing_key=os.urandom(32))
    gate = asyncio.Semaphore(options.concurrency)
    failed = 0
    async with opened(options.model, settings, Access(hosts=None)) as site:
        with bar_of() as bar:
            task = bar.add_task("answering", total=len(waiting))

            suspects: list[Line] = []

            async def one(line: Line, alone: bool = False) -> None:
                nonlocal failed
                async with gate:
                    status, headers, body = await _patiently(site, line, _ATTEMPTS if alone else 1)
                if status == _FAILED and not alone:
                    # It failed on this one or on one beside it: which of them, is seen when each is asked alone.
                    suspects.append(line)
                    return
                failed += status != 200
                _write(out, _answer(line, status, headers, body))
                bar.advance(task)

            try:
                async with asyncio.TaskGroup() as group:
                    for line in waiting:
                        group.create_task(one(line))
            except ExceptionGroup as errors:
                # The first is why the others were given up, a full disk for example.
                raise errors.exceptions[0] from None
            for line in suspects:
                await one(line, alone=True)
    return failed


async def _patiently(site: Site, line: Line, attempts: int) -> tuple[int, dict[str, str], bytes]:
    """One answer; again, where the engine failed meanwhile, that often at most, or would not take it yet. Raises
    `RuntimeError` where the engine does not come back: what it did not answer is left for the next run.
    """
    while True:
        status, headers, body = await ask(site, line.url, bytes(line.body))
        attempts -= status == _FAILED
        if not attempts or (status != _FAILED and status not in _NOT_NOW):
            return status, headers, body
        ready = False
        while not ready:
            await asyncio.sleep(_LOOK_SECONDS)
            # The one model there is.
            (condition,) = site.look().values()
            ready = condition.ready
            if condition.state == "failed":
                raise RuntimeError(f"the engine failed: {condition.facts.get('reason', '')}")


def _write(out: FileIO, data: bytes) -> None:
    """All of it. OSError, with the file's name, where it does not fit; what did is a line that was cut off."""
    try:
        while data:
            data = data[out.write(data) :]
    except OSError as error:
        raise OSError(f"{out.name}: {error.strerror}") from None


def _answer(line: Line, status: int, headers: dict[str, str], body: bytes) -> bytes:
    request_id = headers.get("x-request-id", "")
    said = msgspec.Raw(body) if headers.get("content-type") == "application/json" else body.decode("utf-8", "replace")
    response = {"status_code": status, "request_id": request_id, "body": said}
    reply = {"id": f"batch_req_{request_id}", "custom_id": line.custom_id, "response": response, "error": None}
    return msgspec.json.encode(reply) + b"\n"


async def ask(site: Site, url: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """One request to the app: the status it ended with, headers, body."""
    from magister.server.exchange import OUTCOME

    path, _, query = url.partition("?")
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"content-type", b"application/json")],
    }
    sent: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
    never = asyncio.Event()
    status, headers, parts = 0, dict[str, str](), list[bytes]()

    async def receive() -> dict[str, Any]:
        if sent:
            return sent.pop()
        await never.wait()
        raise AssertionError("unreachable")

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.update((name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"])
        else:
            parts.append(message.get("body", b""))

    outcome: list[int] = []
    scope[OUTCOME] = outcome.append
    await site(scope, receive, send)
    # A stream that broke off began with 200. What no exchange answered, a path that is none, has no other.
    return outcome[0] if outcome else status, headers, b"".join(parts)
