"""`magister batch`: a file in several dialects, killed and gone on with, and what is wrong with files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.server.operated import MAGISTER, alive, chat, eventually
from tests.server.running import site, with_limits

from magister.cli.batch import BatchOptions, answered, read, run, taken
from magister.cli.flags import ModelOptions
from magister.server.access import Access
from magister.server.app import Site
from magister.types import Busy, ChatRequest, Event, Finish, FinishReason, TextDelta, Upstream, Usage

Row = dict[str, Any]


def row(name: str, url: str, body: Row) -> Row:
    return {"custom_id": name, "method": "POST", "url": url, "body": body}


def short(name: str) -> Row:
    return row(name, "/v1/chat/completions", chat("Hello.", max_tokens=3))


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def answers(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def batch(source: Path, target: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAGISTER, "batch", str(source), str(target), *flags], capture_output=True, text=True, timeout=90
    )


def test_a_file_in_several_dialects(tmp_path: Path) -> None:
    asked = chat(max_tokens=20)
    google = {"contents": [{"role": "user", "parts": [{"text": "What is 17 * 24?"}]}]}
    rows = [
        row("chat", "/v1/chat/completions", asked),
        row("anthropic", "/v1/messages", asked),
        row("google", "/v1beta/models/nano:generateContent", google),
        row("responses", "/v1/responses", {"model": "nano", "input": "What is 17 * 24?"}),
        row("plain", "/v1/completions", {"model": "nano", "prompt": "17*24=", "max_tokens": 5}),
        row("stream", "/v1/chat/completions", {**asked, "stream": True}),
        row("wrong", "/v1/chat/completions", {**asked, "temperature": 9}),
        row("nowhere", "/v1/nothing", {}),
    ]
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    done = batch(source, target)
    assert done.returncode == 1, done.stderr
    assert done.stdout == "8 answered now, 0 before, 2 of them with an error\n"
    assert done.stderr == ""
    said = {one["custom_id"]: one["response"] for one in answers(target)}
    assert {name: one["status_code"] for name, one in said.items()} == {
        **dict.fromkeys(("chat", "anthropic", "google", "responses", "plain", "stream"), 200),
        "wrong": 400, "nowhere": 404,
    }  # fmt: skip
    assert said["chat"]["body"]["object"] == "chat.completion"
    assert said["anthropic"]["body"]["type"] == "message"
    assert "408" in said["google"]["body"]["candidates"][0]["content"]["parts"][-1]["text"]
    assert said["stream"]["body"].endswith("data: [DONE]\n\n")
    assert "temperature" in said["wrong"]["body"]["error"]["message"]
    # All of it is there, so nothing is asked and no engine is started.
    began = time.monotonic()
    again = batch(source, target)
    assert (again.returncode, again.stdout) == (0, "0 answered now, 8 before, 0 of them with an error\n")
    assert time.monotonic() - began < 10


def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    rows = [row(f"r{at}", "/v1/completions", long(at)) for at in range(60)]
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    with subprocess.Popen(
        [*MAGISTER, "batch", str(source), str(target), "--concurrency", "4"], stdout=subprocess.DEVNULL
    ) as first:
        assert eventually(lambda: target.exists() and target.read_bytes().count(b"\n") >= 3, 60)
        (engine,) = map(int, Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split())
        first.send_signal(signal.SIGKILL)
    assert eventually(lambda: not alive(engine), 10)
    whole = target.read_bytes()
    before = whole.count(b"\n")
    assert 3 <= before < 60
    # A line that was cut off, as a kill in the middle of a write or a full disk leaves it.
    target.write_bytes(whole[: whole.rfind(b"\n", 0, -1) + 40])
    done = batch(source, target)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{61 - before} answered now, {before - 1} before, 0 of them with an error\n"
    assert Counter(one["custom_id"] for one in answers(target)) == Counter(f"r{at}" for at in range(60))


def test_an_engine_that_dies_is_waited_for(tmp_path: Path) -> None:
    """Its failure is nobody's answer; and nobody else writes to the file meanwhile."""
    rows = [row(f"r{at}", "/v1/completions", long(at)) for at in range(40)]
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    with subprocess.Popen(
        [*MAGISTER, "batch", str(source), str(target), "--concurrency", "4"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert eventually(lambda: target.exists() and target.read_bytes().count(b"\n") >= 3, 60)
        (engine,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        os.kill(engine, signal.SIGKILL)
        with pytest.raises(ValueError, match="another batch is writing it"):
            taken(source, target)
        said = process.communicate(timeout=60)[0]
    assert (process.returncode, said) == (0, "40 answered now, 0 before, 0 of them with an error\n")
    assert Counter(one["custom_id"] for one in answers(target)) == Counter(f"r{at}" for at in range(40))


def long(seed: int) -> Row:
    return {"model": "nano", "prompt": f"Count {seed}: 1, 2,", "max_tokens": 150, "ignore_eos": True, "seed": seed}


class Fragile:
    """Dies, with all that it is asked then, of `poison`; is full when it is asked `first`."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.dead = asyncio.Event()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        text, dead = request.messages[-1].text, self.dead
        self.asked[text] += 1
        if text == "first" and self.asked[text] == 1:
            raise Busy("full", 1.0)
        yield TextDelta(text="half an ans")
        if text == "poison":
            await asyncio.sleep(0.05)
            self.dead.set()
            self.dead = asyncio.Event()
        try:
            await asyncio.wait_for(dead.wait(), 0.1)
        except TimeoutError:
            yield TextDelta(text="wer")
            yield Usage()
            yield Finish(reason=FinishReason.END)
        else:
            raise Upstream("the engine stopped: killed")


def test_who_kills_the_engine_is_found_out_and_its_neighbours_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamed or not; and a later run asks once more what has no answer but that something failed."""
    names = ["first", "poison", *[f"good {at}" for at in range(6)]]
    rows = [
        row(name, "/v1/chat/completions", {**chat(name), "model": "mock", "stream": at % 2 == 1})
        for at, name in enumerate(names)
    ]
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    fragile = Fragile()

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[Site]:
        fragile.dead = asyncio.Event()
        yield site(fragile, settings=with_limits(in_flight=9), access=Access(hosts=None))

    monkeypatch.setattr("magister.cli.serving.opened", opened)
    monkeypatch.setattr("magister.cli.batch._LOOK_SECONDS", 0.02)
    options = BatchOptions(source=source, target=target, model=ModelOptions())
    for runs in (1, 2):
        assert run(options) == 1
        said = [(one["custom_id"], one["response"]["status_code"]) for one in answers(target)]
        good = {name: 200 for name in names if name != "poison"}
        assert Counter(said) == Counter(good.items()) + Counter({("poison", 502): runs})
        # Beside others once, alone three times.
        assert fragile.asked["poison"] == 4 * runs
    assert fragile.asked["first"] > 1, "to be turned away is no answer"


def test_the_last_answer_counts_and_a_failure_is_none(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    given = [("a", 200), ("b", 400), ("c", 502), ("d", 500), ("d", 200), ("e", 503)]
    rows = [{"custom_id": name, "response": {"status_code": status, "body": {}}} for name, status in given]
    assert answered(write(target, rows)) == {"a", "b", "d"}


def test_requests_are_not_taken_for_answers(tmp_path: Path) -> None:
    source, link = write(tmp_path / "in.jsonl", [short("a")]), tmp_path / "link.jsonl"
    link.symlink_to(source)
    for same in (source, link):
        with pytest.raises(ValueError, match="the file of requests"):
            taken(source, same)
    with pytest.raises(ValueError, match="line 1 is no answer"):
        answered(source)


@pytest.mark.parametrize("text", ['{"a":1}', "a thesis\nof many years", '{"id":"batch_no'])
def test_a_file_that_is_no_batchs_stays_as_it_is(text: str, tmp_path: Path) -> None:
    target = tmp_path / "notes.json"
    target.write_text(text)
    with pytest.raises(ValueError, match=r"no answer of a batch"):
        answered(target)
    assert target.read_text() == text


def test_a_file_from_another_editor(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + json.dumps(short("a")).encode() + b"\r\n\r\n")
    assert [line.custom_id for line in read(source)] == ["a"]


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    rows = [row(f"r{at}", "/v1/completions", long(at)) for at in range(200)]
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    with subprocess.Popen(
        [*MAGISTER, "batch", str(source), str(target), "--concurrency", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert eventually(lambda: target.exists() and b"\n" in target.read_bytes(), 60)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert (said, errors) == ("", f"stopped; the same command goes on from {target}\n")
    assert answers(target)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"custom_id": "a", "body": {}}\n{"custom_id": "a", "body": {}}\n', "line 2: custom_id 'a' is that of line 1"),
        ('{"custom_id": "a", "body": {}}\n\nnonsense\n', "line 3: "),
        ('{"body": {}}\n', "line 1: "),
        ('{"custom_id": "a", "method": "GET", "body": {}}\n', "line 1: must be a POST"),
    ],
)
def test_bad_files_of_requests_are_one_line(text: str, says: str, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(text)
    one_line(batch(source, tmp_path / "out.jsonl"), 2, says)
    assert not (tmp_path / "out.jsonl").exists()


def test_bad_places_are_one_line(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [short("a"), short("b")])
    one_line(batch(tmp_path / "absent.jsonl", tmp_path / "out.jsonl"), 2, "absent.jsonl")
    no_answers = tmp_path / "other.jsonl"
    no_answers.write_text('{"other": 1}\n')
    one_line(batch(source, no_answers), 2, "line 1 is no answer")
    one_line(batch(source, tmp_path / "out.jsonl", "--model", "absent"), 2, "absent")
    one_line(batch(source, tmp_path / "nowhere" / "out.jsonl"), 2, "nowhere")
    # Reading what is there would never end.
    one_line(batch(source, Path("/dev/zero")), 2, "answers go to a file")


def test_a_full_disk_is_one_line_and_no_loss(tmp_path: Path) -> None:
    """A limit on the size of files is a disk that is full, for whoever writes."""
    source, target = write(tmp_path / "in.jsonl", [short(f"r{at}") for at in range(40)]), tmp_path / "out.jsonl"
    limited = ["sh", "-c", 'ulimit -f 10; exec "$@"', "sh", *MAGISTER, "batch", str(source), str(target)]
    full = subprocess.run(limited, capture_output=True, text=True, timeout=60)
    one_line(full, 1, f"{target}: File too large")
    assert 0 < len(target.read_bytes()) <= 10 * 1024
    done = batch(source, target)
    assert done.returncode == 0, done.stderr
    assert Counter(one["custom_id"] for one in answers(target)) == Counter(f"r{at}" for at in range(40))


def one_line(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    assert done.stderr.startswith("magister batch: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert says in done.stderr
    assert done.returncode == code
    assert done.stdout == ""
