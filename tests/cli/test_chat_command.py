"""The command as people run it: a process, its output, its exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from magister.kernels import cpu

OTHER = next(isa for isa in cpu.NEEDS if isa not in cpu.supported())
"""Kernels of another machine."""

COMMAND = [sys.executable, "-c", "from magister.cli.main import main; main()"]


def run(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *arguments], input=stdin, capture_output=True, check=False, timeout=120)


def test_a_question_is_answered_as_json() -> None:
    done = run("chat", "What is 3 + 4?", "--json")
    assert done.returncode == 0, done.stderr
    reply = json.loads(done.stdout)
    assert set(reply) == {"model", "thinking", "answer", "finish_reason", "usage", "timings"}
    assert set(reply["usage"]) == {"prompt_tokens", "thinking_tokens", "completion_tokens"}
    assert reply["model"] == "nano"
    assert reply["finish_reason"] == "end"
    assert reply["usage"]["completion_tokens"] > reply["usage"]["thinking_tokens"] > 0


def test_a_thought_that_is_hidden_is_not_in_the_json_either() -> None:
    shown = json.loads(run("chat", "What is 3 + 4?", "--json", "--hide-thinking").stdout)
    assert "thinking" not in shown
    assert "7" in shown["answer"]


def test_standard_input_is_the_question_and_the_answer_goes_to_standard_output() -> None:
    done = run("chat", stdin=b"What is 3 + 4?\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert b"Thought for" in done.stderr
    assert b"Thought for" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["chat", "hi", "--temperature", "-1"], None, b"--temperature"),
        (["chat", "hi", "--top-p", "0"], None, b"--top-p"),
        (["chat", "hi", "--max-tokens", "0"], None, b"--max-tokens"),
        (["chat", ""], None, b"empty"),
        (["chat"], b"", b"empty"),
        (["chat"], b"\xff\xfe", b"UTF-8"),
        (["chat", "hi", "--image", "no-such-file.png"], None, b"no-such-file.png"),
        (["chat", "hi", "--no-such-option"], None, b"no-such-option"),
        (["train", "sft", "no-such-recipe"], None, b"no-such-recipe"),
        (["train", "sft", "nano", "--rows", "0"], None, b"--rows"),
        (["chat", "hi", "--device", "tpu"], None, b"--device"),
        (["chat", "hi", "--dtype", "fp7"], None, b"--dtype"),
        (["chat", "hi", "--kernels", "sse"], None, b"--kernels"),
        (["chat", "hi", "--top-p", "0.5"], None, b"no effect"),
        (["chat", "hi", "--context", "1"], None, b"--context"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what(arguments: list[str], stdin: bytes | None, words: bytes) -> None:
    done = run(*arguments, stdin=stdin)
    assert done.returncode == 2
    assert words in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chat", "hi", "--model", "no-such-model"], b"no-such-model"),
        (["chat", "x " * 5000], b"at most 1023 fit"),
        (["inspect", "/"], b"/"),
        (["chat", "hi", "--kernels", OTHER], f"kernels: isa is {OTHER}, but".encode()),
    ],
)
def test_a_failure_is_exit_code_1_and_says_what(arguments: list[str], words: bytes) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert b"Traceback" not in done.stderr


def test_an_image_for_a_model_without_eyes_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "dot.png"
    Image.new("RGB", (4, 4)).save(picture)
    done = run("chat", "what is this", "--image", str(picture))
    assert done.returncode == 1
    assert b"image" in done.stderr
    assert b"Traceback" not in done.stderr


def test_control_c_prints_what_there_is_and_exits_130() -> None:
    process = subprocess.Popen(
        [*COMMAND, "chat", "What is 3 + 4?", "--temperature", "5", "--seed", "1", "--max-tokens", "2000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    # At temperature 5 nano babbles on; the first byte of its answer says that it is in the middle of one.
    first = process.stdout.read(1)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert len(first + rest) > 1
    assert b"Traceback" not in errors
    assert b"Task was" not in errors


def test_closed_standard_input_is_wrong_usage() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -c "{COMMAND[2]}" chat <&-'], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_the_version_is_the_packages() -> None:
    import magister

    assert run("--version").stdout.decode().strip() == f"magister {magister.__version__}"


def test_garbage_is_collected_once_it_answers() -> None:
    code = """
import gc, sys
from magister.cli.main import app
try:
    app(["chat", "What is 3 + 4?"])
except SystemExit as ended:
    sys.exit(ended.code or not ("torch" in sys.modules and gc.isenabled()))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_inspect_counts_the_24b_without_allocating_it() -> None:
    done = run("inspect", "magistral-small")
    assert done.returncode == 0, done.stderr
    assert b"24,011,361,280" in done.stdout
