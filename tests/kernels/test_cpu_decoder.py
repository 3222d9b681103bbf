"""The laws of the compiled decoder: the same bits however the work is cut, memory that comes back, faults that stay."""

import ctypes
import gc
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.kernels import decoder_world as world
from tests.kernels.libraries import ROOT, builder, library
from torch import Tensor

from magister.kernels.quantized import Format, Quantized
from magister.model.cache import KVFormat
from magister.model.compiled import CompiledCache, CompiledDecoder, Step
from magister.model.config import DecoderConfig

Given = dict[str, Tensor | Quantized]
GROUPS = [{"n_kv_heads": 4}, {}, {"n_kv_heads": 1}, {"n_heads": 6, "n_kv_heads": 1}]


def given(shape: DecoderConfig, kind: str) -> Given:
    """Weights of a random network in one format."""
    model = world.network(shape)
    if kind in ("int4", "int8"):
        return world.quantize_all(model, lambda name, weight: world.quantized(weight, Format(kind)))[0]
    return {name: weight.to(getattr(torch, kind)) for name, weight in world.weights(model).items()}


def steps_beside(decoder: CompiledDecoder, cache: CompiledCache, tokens: list[int], cuts: list[int]) -> Tensor:
    """`world.run`, with other sequences in every step: a prefill, a decode and a guess of four tokens."""
    blocks, others = world.table(len(tokens), cache.block_size), world.ids(400, seed=9)
    first = len(blocks)
    parts = []
    for index, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(tokens)], strict=True)):
        spans, tables, ids = [(start, stop)], [blocks], tokens[start:stop]
        for length in (1, 4, 37)[: index % 4]:
            spans.insert(0, (0, length))
            tables.insert(0, world.table(length, cache.block_size, first + 50 * len(spans)))
            ids = others[index : index + length] + ids
        wanted = range(len(ids) - (stop - start), len(ids))
        parts.append(decoder.forward(cache, Step(ids, spans, tables, wanted)).clone())
    return torch.cat(parts)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("kv", list(KVFormat))
def test_bits_do_not_depend_on_chunks_neighbours_or_threads(kind: str, kv: KVFormat) -> None:
    shape = world.config(dim=64)
    weights, tokens = given(shape, kind), world.ids(70)
    whole = world.run_fresh(world.compiled(shape, weights), tokens, kv=kv)
    for threads in (1, 2, 3):
        decoder = world.compiled(shape, weights, threads)
        for cuts in (list(range(1, 70)), [1, 2, 35, 36, 37, 69], [33]):
            assert torch.equal(world.run_fresh(decoder, tokens, cuts, kv), whole)
            assert torch.equal(steps_beside(decoder, decoder.cache(300, 16, kv), tokens, cuts), whole)


@pytest.mark.parametrize("changes", GROUPS, ids=str)
@pytest.mark.parametrize("kv", list(KVFormat))
@pytest.mark.parametrize("block_size", [5, 16, 48])
def test_bits_do_not_depend_on_how_heads_share_keys(changes: dict[str, Any], kv: KVFormat, block_size: int) -> None:
    shape = world.config(n_layers=1, **changes)
    weights, tokens = given(shape, "float32"), world.ids(90)
    decoder = world.compiled(shape, weights)
    whole = world.run_fresh(decoder, tokens, kv=kv, block_size=block_size)
    for cuts in (list(range(1, 90)), [13, 14, 64, 67]):
        assert torch.equal(world.run_fresh(decoder, tokens, cuts, kv, block_size), whole)


@pytest.mark.parametrize("kv", list(KVFormat))
def test_a_long_context_has_the_bits_of_its_chunked_twin(kv: KVFormat) -> None:
    shape = world.config(n_layers=1, dim=32, hidden_dim=32, n_heads=2, n_kv_heads=1)
    weights, tokens = given(shape, "float32"), world.ids(8192)
    rows = [511, 512, 513, 4095, 8190, 8191]
    found = []
    for threads, cuts in ((1, [8191]), (1, [1000, 1001, 5003, 8190, 8191]), (3, [3000, 8180, 8191])):
        decoder = world.compiled(shape, weights, threads)
        found.append(world.run_fresh(decoder, tokens, cuts, kv)[rows])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    if kv is KVFormat.FP32:
        assert world.off(found[0], world.definition(world.network(shape), tokens)[rows]) < 1e-4


def test_rows_are_wanted_or_not_without_a_change_of_bits() -> None:
    shape = world.config()
    decoder = world.compiled(shape, given(shape, "float32"))
    tokens = world.ids(1300)
    whole = world.run_fresh(decoder, tokens)
    blocks = world.table(1300, 16)
    cache = decoder.cache(len(blocks), 16, KVFormat.FP32)
    for rows in ([], [1299], [0, 511, 512, 513, 1024, 1299], [700]):
        got = decoder.forward(cache, Step(tokens, [(0, 1300)], [blocks], rows))
        assert torch.equal(got, whole[rows])


@pytest.mark.parametrize("kv", list(KVFormat))
@pytest.mark.parametrize("threads", [1, 2])
def test_a_broken_sequence_leaves_the_others_alone(kv: KVFormat, threads: int) -> None:
    shape = world.config()
    weights = given(shape, "float32")
    embeddings = weights["tok_embeddings.weight"]
    assert isinstance(embeddings, Tensor)
    embeddings = weights["tok_embeddings.weight"] = embeddings.clone()
    embeddings[7] = torch.nan
    decoder = world.compiled(shape, weights, threads)
    good = [token for token in world.ids(40) if token != 7]
    alone = world.run_fresh(decoder, good, kv=kv)
    cache = decoder.cache(20, 16, kv)
    ids, spans = [*good, 1, 2, 7, 3], [(0, len(good)), (0, 4)]
    got = decoder.forward(cache, Step(ids, spans, [[0, 1, 2], [3]], range(len(ids)))).clone()
    assert torch.equal(got[: len(good)], alone)
    assert got[-2:].isnan().all()
    # What came before the fault, in its own sequence, is as it was too.
    assert torch.equal(got[-4:-2], world.run_fresh(decoder, [1, 2], kv=kv))
    # And a later sequence may have the block in which it happened.
    later = decoder.forward(cache, Step(good, [(0, len(good))], [[3, 4, 5]], range(len(good))))
    assert torch.equal(later, alone)


def test_shared_blocks_are_read_by_all() -> None:
    shape = world.config()
    decoder = world.compiled(shape, given(shape, "float32"))
    cache = decoder.cache(8, 16, KVFormat.BF16)
    prompt, tails = world.ids(32), [world.ids(9, seed=seed) for seed in (1, 2, 3)]
    decoder.forward(cache, Step(prompt, [(0, 32)], [[6, 2]], []))
    step = Step([*tails[0], *tails[1], *tails[2]], [(32, 41)] * 3, [[6, 2, 0], [6, 2, 3], [6, 2, 7]], range(27))
    together = decoder.forward(cache, step).clone()
    for index, tail in enumerate(tails):
        alone = world.run_fresh(decoder, prompt + tail, kv=KVFormat.BF16)[32:]
        assert torch.equal(together[9 * index : 9 * index + 9], alone)


@pytest.fixture
def resident() -> Callable[[], int]:
    """Bytes of memory that this process holds, after what nobody refers to has gone."""
    trim = ctypes.CDLL(None).malloc_trim if os.path.exists("/proc/self/status") else None
    if trim is None:
        pytest.skip("no /proc")

    def measure() -> int:
        gc.collect()
        trim(0)
        text = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0]) * 1024

    return measure


def test_memory_is_flat_and_comes_back(resident: Callable[[], int]) -> None:
    shape = world.config(dim=256, hidden_dim=4096, vocab_size=8192)
    weights = given(shape, "bfloat16")
    size = sum(weight.nbytes if isinstance(weight, Tensor) else weight.bytes for weight in weights.values())
    decoder = world.compiled(shape, weights)
    cache = decoder.cache(64, 16, KVFormat.FP32)
    step = Step(world.ids(600), [(0, 600)], [list(range(64))], [599])
    decoder.forward(cache, step)
    held = resident()
    for _ in range(5):
        for name, weight in weights.items():
            decoder.put(name, weight)
        decoder.forward(cache, step)
    assert abs(resident() - held) < size / 4
    decoder.close()
    cache.close()
    assert resident() < held - size


def test_a_cache_takes_memory_as_it_is_written(resident: Callable[[], int]) -> None:
    shape = world.config()
    decoder = world.compiled(shape, given(shape, "float32"))
    before = resident()
    cache = decoder.cache(1 << 20, 16, KVFormat.FP32)
    assert cache.bytes >= 2 * 2 * 2 * 16 * 4 * 16 << 20
    assert resident() < before + (1 << 20)
    decoder.forward(cache, Step([1], [(0, 1)], [[12345]], [0]))
    # At most a huge page for each layer and head.
    assert resident() < before + (16 << 20)
    cache.close()


def test_decoders_of_several_threads_come_and_go() -> None:
    shape = world.config()
    weights, tokens = given(shape, "float32"), world.ids(5)
    wanted = world.run_fresh(world.compiled(shape, weights), tokens)
    before = threads_of_this_process()
    for _ in range(20):
        decoder = world.compiled(shape, weights, 4)
        assert torch.equal(world.run_fresh(decoder, tokens), wanted)
        decoder.close()
    assert threads_of_this_process() == before


def test_two_decoders_of_several_threads_run_at_once() -> None:
    shape = world.config()
    weights, tokens = given(shape, "float32"), world.ids(30)
    wanted = world.run_fresh(world.compiled(shape, weights), tokens)
    found: list[Tensor] = []

    def work() -> None:
        decoder = world.compiled(shape, weights, 3)
        found.extend(world.run_fresh(decoder, tokens, list(range(1, 30))) for _ in range(3))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 9
    assert all(torch.equal(logits, wanted) for logits in found)


def test_idle_threads_take_no_time() -> None:
    shape = world.config()
    decoder = world.compiled(shape, given(shape, "float32"), 3)
    world.run_fresh(decoder, world.ids(5))
    time.sleep(0.01)
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.05
    decoder.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_is_told_that_it_has_no_threads() -> None:
    shape = world.config()
    decoder = world.compiled(shape, given(shape, "float32"), 2)
    cache = decoder.cache(1, 16, KVFormat.FP32)
    step = Step([1], [(0, 1)], [[0]], [0])
    decoder.forward(cache, step)
    pid = os.fork()
    if pid == 0:
        try:
            decoder.forward(cache, step)
        except AssertionError as error:
            os._exit(0 if "before a fork" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    decoder.forward(cache, step)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_can_drop_a_decoder_whose_threads_sleep() -> None:
    shape = world.config()
    decoder = world.compiled(shape, given(shape, "float32"), 2)
    world.run_fresh(decoder, world.ids(5))
    time.sleep(0.05)
    pid = os.fork()
    if pid == 0:
        decoder.close()
        os._exit(0)
    for _ in range(1000):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        time.sleep(0.01)
    else:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0
    world.run_fresh(decoder, world.ids(5))
    decoder.close()


def test_libraries_agree_with_one_another() -> None:
    shape = world.config(dim=64)
    weights, tokens = given(shape, "int4"), world.ids(40)
    best = world.run_fresh(world.compiled(shape, weights), tokens)
    generic = world.run_fresh(world.compiled(shape, weights, lib=library("generic")), tokens)
    assert world.divergence(generic, best) < 1e-3


def threads_of_this_process() -> int:
    """As the system counts them."""
    return len(os.listdir("/proc/self/task"))


def check_program(made: Path, compiler: str, objects: Path) -> Path:
    """tests/kernels/decoder_check.cpp with compiled kernels."""
    sources = [
        ROOT / "tests" / "kernels" / "decoder_check.cpp",
        *(objects / f"{part.stem}.o" for part in (ROOT / "csrc").glob("*.cpp")),
    ]
    command = [compiler, "-static", "-std=c++17", "-O1", "-pthread", f"-I{ROOT / 'csrc'}", "-o", str(made)]
    subprocess.run([*command, *map(str, sources)], check=True, timeout=200)
    return made


def test_the_laws_hold_on_neon(tmp_path: Path) -> None:
    cross, emulator = "aarch64-linux-gnu-g++", "qemu-aarch64"
    for tool in (cross, emulator):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    out = library().path.parent / "cross"
    builder().build("neon", out, compiler=cross, machine="aarch64")
    program = check_program(tmp_path / "neon", cross, out / "objects" / "neon")
    neon = subprocess.run([emulator, str(program)], capture_output=True, text=True, check=False, timeout=200)
    assert (neon.returncode, neon.stderr.split()) == (0, ["neon"]), neon.stdout
    compiler = builder().find_compiler()
    assert compiler is not None
    isa = library().isa
    program = check_program(tmp_path / isa, compiler, library().path.parent / "objects" / isa)
    here = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=200)
    assert (here.returncode, here.stderr.split()) == (0, [isa]), here.stdout
    numbers = [torch.tensor([float(line) for line in ran.stdout.split()]) for ran in (neon, here)]
    # An activation that lies between two whole numbers may be rounded either way.
    assert world.off(numbers[0], numbers[1]) < 2e-2
