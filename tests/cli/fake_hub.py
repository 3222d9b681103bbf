"""A hub on this machine, as huggingface-hub asks one: listings, files by range, errors by code. It cuts and counts."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories, each a few commits of files."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        """Repository -> commit -> path -> content; the last commit is the main branch."""
        self.gets: Counter[str] = Counter()
        """Whole or partial downloads begun, by path."""
        self.sent: Counter[str] = Counter()
        """Bytes of content sent, by path."""
        self.ranges: list[str] = []
        """Range headers that came."""
        self.cuts: dict[str, list[int]] = {}
        """Path -> after how many bytes to drop the connection, one number a download."""
        self.holds: dict[str, tuple[int, threading.Event]] = {}
        """Path -> after how many bytes to stand still for good, and what to set then."""
        self.refuse: tuple[int, str] | None = None
        """Status and error code with which everything is answered."""
        self.damage: set[str] = set()
        """Paths whose first byte comes changed."""
        self.address = ""

    def add(self, repository: str, folder: Path) -> str:
        """A commit with what is in `folder`; returns its name."""
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        digest = hashlib.sha1(b"".join(name.encode() + content for name, content in files.items())).hexdigest()
        self.commits.setdefault(repository, {})[digest] = files
        return digest

    def find(self, repository: str, revision: str) -> str | None:
        commits = self.commits[repository]
        return list(commits)[-1] if revision == "main" else revision if revision in commits else None


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def git_blob(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def _answer(self, body: bool) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if self.hub.refuse is not None:
            self._error(*self.hub.refuse)
            return
        listing = parts[:2] == ["api", "models"]
        repository = "/".join(parts[2:4] if listing else parts[:2])
        if repository not in self.hub.commits:
            self._error(404, "RepoNotFound")
            return
        revision = (parts[5] if len(parts) > 5 else "main") if listing else parts[3]
        commit = self.hub.find(repository, revision)
        if commit is None:
            self._error(404, "RevisionNotFound")
        elif listing:
            self._list(repository, commit)
        elif (name := "/".join(parts[4:])) not in self.hub.commits[repository][commit]:
            self._error(404, "EntryNotFound")
        else:
            self._file(name, self.hub.commits[repository][commit][name], commit, body)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _list(self, repository: str, commit: str) -> None:
        siblings = []
        for name, content in self.hub.commits[repository][commit].items():
            entry: dict[str, Any] = {
                "rfilename": name,
                "size": len(content),
                "blobId": git_blob(content),
            }
            if name.endswith(".safetensors"):
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        text = json.dumps({"id": repository, "sha": commit, "siblings": siblings}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _file(self, name: str, content: bytes, commit: str, body: bool) -> None:
        wanted = self.headers.get("Range", "")
        first = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        if not body:
            return
        self.hub.gets[name] += 1
        if wanted:
            self.hub.ranges.append(wanted)
        if name in self.hub.damage:
            content = bytes([content[0] ^ 1]) + content[1:]
        stop = len(content)
        if self.hub.cuts.get(name):
            stop = min(stop, first + self.hub.cuts[name].pop(0))
        if name in self.hub.holds:
            some, reached = self.hub.holds.pop(name)
            self.wfile.write(content[first : first + some])
            self.wfile.flush()
            reached.set()
            self.rfile.read(1)  # until the other side is gone
            self.close_connection = True
            return
        self.wfile.write(content[first:stop])
        self.hub.sent[name] += stop - first
        if stop < len(content):
            self.wfile.flush()
            self.close_connection = True
