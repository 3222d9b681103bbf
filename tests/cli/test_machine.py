"""What is said of a machine, from the files that a system shows: here trees of such files, and this machine's own."""

from __future__ import annotations

import os
from pathlib import Path

from magister.cli import machine, measure

GIB = 1 << 30
MEMINFO = """\
MemTotal:       33554432 kB
MemFree:         1048576 kB
MemAvailable:   16777216 kB
SwapFree:        2097152 kB
"""


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_memory_of_the_machine(tmp_path: Path) -> None:
    found = machine.memory(tree(tmp_path, {"proc/meminfo": MEMINFO}))
    assert found == machine.Memory(32 * GIB, 16 * GIB, None, 2 * GIB)


def test_the_limit_of_a_group_counts_where_it_is_less(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/service/one"
    root = tree(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/service/one\n",
            f"{group}/memory.max": "max\n",
            f"{group}/memory.current": f"{GIB}\n",
            "sys/fs/cgroup/service/memory.max": f"{8 * GIB}\n",
            "sys/fs/cgroup/service/memory.current": f"{3 * GIB}\n",
            "sys/fs/cgroup/service/memory.stat": f"anon 1\ninactive_file {GIB}\n",
        },
    )
    found = machine.memory(root)
    # 8 of which 3 are taken, one of them pages of files that can be given up.
    assert found == machine.Memory(8 * GIB, 6 * GIB, str(root / "sys/fs/cgroup/service"), 2 * GIB)


def test_groups_of_version_1(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "5:cpu,cpuacct:/box\n4:memory:/box\n0::/\n",
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{4 * GIB}\n",
            "sys/fs/cgroup/memory/box/memory.usage_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
        },
    )
    assert machine.memory(root).available == 3 * GIB
    assert machine.usable_cores(root) == 1


def test_a_quota_of_half_a_core_is_one_core(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}
    assert machine.usable_cores(tree(tmp_path, files)) == 1
    assert machine.usable_cores(tree(tmp_path / "free", {"proc/self/cgroup": "0::/\n"})) >= 1


def test_a_container_that_sees_the_hosts_path_counts_its_own_mount(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/system.slice/box.scope\n",
        "sys/fs/cgroup/memory.max": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory.current": "0\n",
    }
    assert machine.memory(tree(tmp_path, files)).available == 2 * GIB


def test_processor_and_cache(tmp_path: Path) -> None:
    cache = "sys/devices/system/cpu/cpu0/cache"
    files = {
        "proc/cpuinfo": "processor : 0\nmodel name : A CPU\n",
        f"{cache}/index0/size": "32K\n",
        f"{cache}/index3/size": "16M\n",
    }
    found = machine.processor(tree(tmp_path, files))
    assert (found.model, found.cache) == ("A CPU", 16 << 20)


def test_this_machine_is_one() -> None:
    found, memory = machine.processor(), machine.memory()
    assert found.model
    assert 1 <= found.usable <= found.cores == os.cpu_count()
    assert 0 < memory.available <= memory.total
    assert machine.free_disk(Path("not/there/at/all")) > 0
    assert 1e8 < measure.read_bandwidth(1, 64 << 20) < 1e12
