import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
