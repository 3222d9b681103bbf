import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.counting import MakeCountUp
from tests.train.slow import MakeSlowly

from magister.train.shards import Cursor, ShardSpec, batches

ROOT = Path(__file__).parent.parent.parent

PROGRAM = """
import os
from magister.train.shards import Cursor, ShardSpec, batches
from tests.counting import MakeCountUp

if __name__ == "__main__":
    source = batches(ShardSpec(make=MakeCountUp(), seed=0, size=20, row_length=48, pad=0), 2, Cursor(0, 0))
    next(source)
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    print(*children, flush=True)
    input()
"""


def alive(process: int) -> bool:
    """A zombie has left; that nobody has read its exit code yet is not its affair."""
    status = Path(f"/proc/{process}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_the_maker_of_shards_leaves_when_training_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        text=True,
    ) as process:
        assert process.stdout is not None
        children = [int(child) for child in process.stdout.readline().split()]
        assert children
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [child for child in children if alive(child)]


INTERRUPTED = """
import signal, time
from pathlib import Path
from magister.train.shards import Cursor, ShardSpec, batches
from tests.counting import MakeCountUp

if __name__ == "__main__":
    interrupted = []
    signal.signal(signal.SIGINT, lambda number, frame: interrupted.append(number))
    source = batches(ShardSpec(make=MakeCountUp(), seed=0, size=20, row_length=48, pad=0), 2, Cursor(0, 0))
    print("ready", flush=True)
    for number in range(2000):
        next(source)
        if interrupted and number > 30:
            break
    assert interrupted
    source.close()
    print("done", flush=True)
"""


@pytest.mark.parametrize("wait", [0.0, 0.3, 1.0])
def test_ctrl_c_does_not_reach_the_maker_of_shards(tmp_path: Path, wait: float) -> None:
    program = tmp_path / "program.py"
    program.write_text(INTERRUPTED.replace("range(2000)", "range(10**9)"))
    with subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        said, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    assert said == "done\n"
    assert complaints == ""


def test_closing_does_not_wait_for_a_shard_that_nobody_wants() -> None:
    source = batches(ShardSpec(make=MakeSlowly(quick=30), seed=0, size=30, row_length=48, pad=0), 2, Cursor(0, 0))
    next(source)
    started = time.monotonic()
    source.close()
    assert time.monotonic() - started < 10


def test_a_shard_without_a_full_batch_is_refused_with_its_numbers() -> None:
    source = batches(ShardSpec(make=MakeCountUp(), seed=0, size=3, row_length=48, pad=0), 4, Cursor(0, 0))
    with pytest.raises(ValueError, match="shard 0 of 3 sequences packs into 1 rows, fewer than one batch of 4"):
        next(source)
