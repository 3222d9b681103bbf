"""`magister serve` as an operator has it: what it says, what it refuses, how it ends, its keys and its log."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cli import checkpoints
from tests.server.operated import (
    MAGISTER,
    Operated,
    alive,
    begun,
    call,
    chat,
    eventually,
    leave,
    long_completion,
    opened,
    operated,
)

from magister.chat import LocalChat
from magister.cli import machine, serving
from magister.cli.flags import ModelOptions
from magister.cli.serve import ServeOptions, run
from magister.cli.serving import signing_key
from magister.model.config import ModelConfig
from magister.server.access import Access
from magister.server.settings import Settings
from magister.text.tokenizer import MAGISTRAL_VOCABULARY
from magister.worker.supervisor import Supervisor

SECRET_WORD, ANSWERED = (
    "xylophone",
    re.compile(r"[0-9a-f]{32} (\S+) (\S+) (\S+) (\d+) [\d.]+s prompt=\d+ completion=\d+"),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where these servers keep what they keep."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def keys(home: Path) -> Path:
    return home / "keys.json"


@pytest.fixture(scope="module")
def key(keys: Path) -> str:
    """A key, as `magister keys add` says it."""
    return magister("keys", "add", "ada", "--keys", str(keys)).stdout.strip()


@pytest.fixture(scope="module")
def server(home: Path, keys: Path, key: str) -> Iterator[Operated]:
    """With keys, a log, and a name that nano answers for."""
    flags = ["--keys", str(keys), "--log-requests", "--answer", "magistral-small-2509=nano"]
    with operated(*flags, env=at(home)) as running:
        yield running


def at(home: Path) -> dict[str, str]:
    return {"XDG_DATA_HOME": str(home)}


def magister(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAGISTER, *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})}
    )


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def children(pid: int) -> list[int]:
    """Of a process, and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *children(child)]
    return found


def test_what_it_says_can_be_pasted(server: Operated, key: str) -> None:
    assert eventually(lambda: "What is" in server.said[-1], 5)
    said = "".join(server.said)
    assert server.said[0].startswith(f"nano answers at {server.url} (ready in ")
    pasted = said[said.index("curl") :].replace("KEY", key)
    answer = subprocess.run(["sh", "-c", pasted], capture_output=True, text=True, check=True, timeout=30)
    assert json.loads(answer.stdout)["choices"][0]["message"]["content"]
    status, health = server.health()
    assert (status, health["state"], health["restarts"]) == (200, "ready", 0)


def test_keys_from_beginning_to_end(server: Operated, keys: Path, key: str) -> None:
    assert key.startswith("sk-magister-")
    assert key not in keys.read_text()
    assert keys.stat().st_mode & 0o777 == 0o600
    path = "/v1/chat/completions"
    assert call(server.url, "POST", path, chat(max_tokens=1))[0] == 401
    assert call(server.url, "POST", path, chat(max_tokens=1), bearer("sk-magister-no"))[0] == 401
    assert call(server.url, "POST", path, chat(max_tokens=1), bearer(key))[0] == 200
    assert call(server.url, "POST", "/v1/messages", chat(max_tokens=1), {"x-api-key": key})[0] == 200
    magister("keys", "add", "bob", "--keys", str(keys))
    assert magister("keys", "list", "--keys", str(keys)).stdout.split() == ["ada", "bob"]
    assert magister("keys", "remove", "bob", "--keys", str(keys)).returncode == 0
    assert magister("keys", "list", "--keys", str(keys)).stdout.split() == ["ada"]
    gone = magister("keys", "remove", "bob", "--keys", str(keys))
    assert (gone.returncode, gone.stderr.count("\n")) == (2, 1)


def test_the_log_has_lines_and_no_text(server: Operated, key: str) -> None:
    before = len(server.said)
    asked = chat(f"Say {SECRET_WORD}.", user="customer-7", max_tokens=20) | {"model": "magistral-small-2509"}
    status, headers, body = call(server.url, "POST", "/v1/chat/completions", asked, bearer(key))
    assert (status, headers["x-magister-model"]) == (200, "nano; asked=magistral-small-2509")
    answer = json.loads(body)["choices"][0]["message"]["content"] or ""
    time.sleep(0.2)
    lines = server.said[before:]
    (line,) = (line for line in lines if "customer-7" in line)
    found = ANSWERED.search(line)
    assert found is not None, line
    assert found.groups() == ("ada", "openai_chat", "nano", "200")
    assert SECRET_WORD not in "".join(server.said)
    assert len(answer) < 8 or answer not in "".join(lines)


def test_sigterm_lets_a_stream_end_and_leaves_nobody(server: Operated, key: str, home: Path) -> None:
    """The last of the module's server; what it signed holds at the next one, which ends by Ctrl-C."""
    path, body = "/v1/messages", chat("What is 17 * 24?", max_tokens=900, thinking={"type": "adaptive"})
    said = json.loads(call(server.url, "POST", path, body, bearer(key))[2])
    thought = next(block for block in said["content"] if block["type"] == "thinking")
    engine, everybody = server.engine, children(server.process.pid)
    assert engine in everybody
    folder = server.socket.parent

    async def under_way() -> bytes:
        path, body = long_completion(900)
        reader, writer = await opened(server.url, path + f"?key={key}", body)
        told = await begun(reader)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.15)
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset, as the system likes
            await opened(server.url, path, body)
        told += await reader.read()
        await leave(writer)
        return told

    told = asyncio.run(under_way())
    assert told.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert b'"finish_reason":"length"' in told
    assert b'"error"' not in told
    assert server.end() == 0
    assert not [pid for pid in everybody if alive(pid)]
    assert not folder.exists()
    assert "Traceback" not in "".join(server.said)

    signing = home / "magister" / "signing-key"
    assert (signing.stat().st_mode & 0o777, signing.stat().st_size) == (0o600, 32)
    before = signing.read_bytes()
    with operated(env=at(home)) as again:
        assert signing.read_bytes() == before
        assert server_accepts(again, body, thought)
        everybody = children(again.process.pid)
        again.process.send_signal(signal.SIGINT)
        assert again.end() == 130
        assert not [pid for pid in everybody if alive(pid)]
        assert "Traceback" not in "".join(again.said)


def server_accepts(server: Operated, body: dict[str, object], thought: dict[str, str]) -> bool:
    """Whether a thought that was signed before goes into the prompt as one."""
    messages = [
        {"role": "user", "content": "What is 17 * 24?"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "408"}]},
        {"role": "user", "content": "Sure?"},
    ]
    status, _, _ = call(server.url, "POST", "/v1/messages", {**body, "messages": messages, "max_tokens": 700})
    return status == 200


def test_a_signal_while_it_starts_leaves_nobody(home: Path) -> None:
    with subprocess.Popen([*MAGISTER, "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as one:
        deadline = time.monotonic() + 20
        while not (started := children(one.pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        one.terminate()
        said = one.communicate(timeout=20)[0]
    assert started
    assert (one.returncode, said) == (0, b"")
    assert not [pid for pid in started if alive(pid)]


def broken(folder: Path) -> list[str]:
    found = checkpoints.native(folder / "broken", checkpoints.TEXT)
    weights = found / "consolidated.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return ["--model", str(found)]


def too_large(folder: Path) -> list[str]:
    config = checkpoints.deep(machine.memory().available, 4)
    return ["--model", str(checkpoints.empty(folder / "large", config))]


def in_use(folder: Path) -> list[str]:
    held = socket.create_server(("127.0.0.1", 0))
    HELD.append(held)
    return ["--port", str(held.getsockname()[1])]


HELD: list[socket.socket] = []


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (in_use, 1, "in use"),
        (["--host", "0.0.0.0"], 2, "magister keys add"),
        (["--answer", "nonsense"], 2, "NAME=MODEL"),
        (["--answer", "a=absent"], 2, "absent"),
        (["--model", "absent"], 2, "absent"),
        (["--keys", "/nowhere/keys.json"], 2, "keys.json"),
        (broken, 2, "consolidated"),
        (too_large, 2, "bytes"),
    ],
)
def test_refusals_are_one_line(flags: object, code: int, says: str, tmp_path: Path) -> None:
    words = flags(tmp_path) if callable(flags) else flags
    assert isinstance(words, list)
    port = [] if "--port" in words else ["--port", "0"]
    done = magister("serve", *port, *words)
    for held in HELD:
        held.close()
    HELD.clear()
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("magister serve: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert says in done.stderr
    assert done.stdout == ""


def test_an_absent_model_is_told_before_the_server_is_imported() -> None:
    code = (
        "import sys\nfrom magister.cli.main import app\ntry:\n    app(['serve', '--model', 'absent'])\n"
        "except SystemExit as ended:\n    sys.exit((ended.code, 'magister.server' in sys.modules) != (2, False))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "magister serve: model: 'absent' is neither a folder nor one of nano\n"
    assert done.returncode == 0


def free_port(host: str) -> int:
    with socket.create_server((host, 0)) as found:
        return int(found.getsockname()[1])


def answers(url: str) -> bool:
    try:
        return call(url, "GET", "/health")[0] == 200
    except OSError:
        return False


HOMELESS = {**{name: value for name, value in os.environ.items() if name != "XDG_DATA_HOME"}, "HOME": "/proc/nowhere"}


def test_nobody_listens_to_it_and_it_has_no_home() -> None:
    """As `magister serve | head -1` leaves it, and a container without a home."""
    port = free_port("127.0.0.1")
    with subprocess.Popen(
        [*MAGISTER, "serve", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=HOMELESS,
    ) as one:
        assert one.stdout is not None
        one.stdout.close()
        assert eventually(lambda: answers(f"http://127.0.0.1:{port}"), 30)
        one.terminate()
        assert one.stderr is not None
        told = one.stderr.read().splitlines()
        assert one.wait(20) == 0
    assert len(told) == 2, told
    assert told[0].startswith("magister serve: the signing key cannot be kept, so ")
    assert told[1] == "magister serve: serving, but standard output: Broken pipe"


def test_without_standard_streams_at_another_address_of_this_machine(home: Path) -> None:
    port = free_port("127.0.0.2")
    words = [*MAGISTER, "serve", "--host", "127.0.0.2", "--port", str(port)]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words]
    with subprocess.Popen(closed, env={**os.environ, **at(home)}) as one:
        assert eventually(lambda: answers(f"http://127.0.0.2:{port}"), 30)
        status, _, told = call(f"http://127.0.0.2:{port}", "POST", "/v1/chat/completions", chat("Hello.", max_tokens=3))
        assert (status, json.loads(told)["usage"]["completion_tokens"]) == (200, 3)
        one.terminate()
        assert one.wait(20) == 0


def options(**fields: Any) -> ServeOptions:
    return ServeOptions(model=ModelOptions(model="absent"), port=0, settings=Settings(), **fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"origins": ("https://example.org/",)}, "--origin https://example.org/: "),
        ({"origins": ("https://Example.org",)}, "--origin https://Example.org: "),
        ({"origins": ("*",)}, "--origin *: "),
        ({"host_names": ("magister.local:8080",)}, "--host-name magister.local:8080: "),
        ({"host_names": ("",)}, "--host-name : "),
        ({"host": "nowhere.invalid"}, "magister keys add"),
        ({"keys": Path("/nowhere/keys.json")}, "`magister keys add NAME --keys /nowhere/keys.json` makes one"),
    ],
)
def test_what_would_never_match_is_refused(
    fields: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(options(**fields)) == 2
    said = capsys.readouterr().err
    assert said.startswith("magister serve: ")
    assert (says in said, said.count("\n")) == (True, 1), said


def test_keys_that_others_may_write_are_none(keys: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert key
    keys.chmod(0o666)
    try:
        assert run(options(keys=keys)) == 2
        assert "(mode 666)" in capsys.readouterr().err
    finally:
        keys.chmod(0o600)


def test_the_signing_key_is_one_however_many_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: signing_key(), range(32)))
    assert len(found) == 1
    kept = tmp_path / "magister" / "signing-key"
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    assert kept.stat().st_mode & 0o777 == 0o600
    # Where pulled models are kept is another matter.
    monkeypatch.setenv("MAGISTER_MODELS", str(tmp_path / "elsewhere" / "models"))
    assert signing_key() in found
    kept.chmod(0o640)
    with pytest.raises(ValueError, match=r"signing-key: others may read or write it \(mode 640"):
        signing_key()
    kept.chmod(0o600)
    kept.write_bytes(b"short")
    with pytest.raises(ValueError, match="signing-key: has 5 bytes, a signing key has 32"):
        signing_key()


def test_limits_of_images_are_those_that_were_given_and_the_engine_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(image_bytes=50 << 20, images=40, signing_key=bytes(32))

    async def main() -> None:
        async with serving.opened(ModelOptions(), settings, Access(hosts=None)) as site:
            (served,) = site.house.models.served
            assert isinstance(served.chat, LocalChat)
            limits = served.chat.renderer.limits
            assert (limits.bytes, limits.count) == (50 << 20, 40)
            supervisor = served.tokens
            assert isinstance(supervisor, Supervisor)
            assert supervisor._process is not None
            supervisor._process._hear("terminate called")

    asyncio.run(main())
    assert capfd.readouterr().err == "engine: terminate called\n"


def test_a_temporary_folder_that_is_too_deep_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    model = ModelOptions(model="nano")
    assert run(ServeOptions(model=model, port=0, settings=Settings(signing_key=b"k" * 32))) == 2
    assert "set a shorter one" in capsys.readouterr().err


@pytest.mark.parametrize("config", [checkpoints.TEXT, checkpoints.WITH_VISION], ids=["text", "vision"])
def test_without_a_tekken_file_a_network_is_said_to_see_where_it_does(tmp_path: Path, config: ModelConfig) -> None:
    decoder = replace(config.decoder, vocab_size=MAGISTRAL_VOCABULARY)
    folder = checkpoints.native(tmp_path / "plain", replace(config, decoder=decoder))
    (folder / "tekken.json").unlink()
    with operated("--model", str(folder)) as running:
        _, _, body = call(running.url, "GET", "/mistral/v1/models")
    assert json.loads(body)["data"][0]["capabilities"]["vision"] is (config.vision is not None)
