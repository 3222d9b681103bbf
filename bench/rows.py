"""Ways to measure: one system against another, against the memory, or alone.

Systems are started for a row and ended with it. A peer that does not install, start or survive gives a reason in the
place of figures. Knows neither the rows there are (`table`), nor files of results, nor the page.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench import environments, machine, weights
from bench.environments import Unavailable
from bench.measure import Rate, Sample, Side, Target, alternate, decode, prefill, prompts
from bench.places import Places
from bench.process import Pins, Question, Worker

TRIAL = 1000
"""Number of the first question that only chooses between options."""


@dataclass(frozen=True)
class Bench:
    """One run."""

    places: Places
    pins: Pins
    repetitions: int = 5
    quick: bool = False
    """A smoke run: as little as shows that everything fits together."""


class Outcome(NamedTuple):
    """What a row found."""

    ours: Side
    peer: Side | None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    unit: str
    target: Target
    run: Callable[[Bench], Outcome]
    opt_in: bool = False
    """Whether it takes so long that it must be asked for."""


Start = Callable[[Bench], Worker]
Ask = Callable[[int], Question]
"""The number of a repetition -> what is asked in it."""


def ours(model: Callable[[Bench], Path], *, pinned: bool = True, **placement: Any) -> Start:
    """Magister with a checkpoint, loaded as the commands load it; `placement` are fields of `Placement`. Not `pinned`,
    it chooses its own number of threads, on the same cores."""

    def start(bench: Bench) -> Worker:
        threads = {"threads": bench.pins.threads} if pinned else {}
        settings = {"model": str(model(bench)), "placement": placement | threads}
        return Worker(environments.magister(), "magister", settings, bench.pins, bench.places.logs / "magister.log")

    return start


def over_http(model: Callable[[Bench], Path], **placement: Any) -> Start:
    """The same behind `magister serve`, which has all cores of the machine: two processes are the point of it."""

    def start(bench: Bench) -> Worker:
        settings = {"model": str(model(bench)), "placement": placement | {"threads": bench.pins.threads}}
        pins = Pins(tuple(machine.usable_cores()), bench.pins.threads)
        return Worker(environments.magister(), "http", settings, pins, bench.places.logs / "http.log")

    return start


def llama_cpp(model: Callable[[Bench], Path], context: int, *, threads: int | None = None) -> Start:
    """llama.cpp with a GGUF, on so many threads, or as many as all."""

    def start(bench: Bench) -> Worker:
        python = environments.llama_cpp(bench.places, weights.probe_gguf(bench.places))
        settings = {"model": str(model(bench)), "context": context}
        return Worker(python, "llama_cpp", settings, _pins(bench, threads), bench.places.logs / "llama-cpp.log")

    return start


def transformers(model: Callable[[Bench], Path], dtype: str, *, threads: int | None = None) -> Start:
    """transformers with a folder in its layout. A smoke run takes the one beside Magister."""

    def start(bench: Bench) -> Worker:
        python = environments.magister() if bench.quick else environments.transformers(bench.places)
        settings = {"model": str(model(bench)), "dtype": dtype}
        return Worker(python, "transformers", settings, _pins(bench, threads), bench.places.logs / "transformers.log")

    return start


def fastest(options: Callable[[int], Sequence[Start]], ask: Ask, rate: Rate) -> Start:
    """Whichever way to run a peer is fastest here, found by asking each twice: those that `options` gives for one
    thread, and for as many as all. A smoke run takes the first."""

    def start(bench: Bench) -> Worker:
        best: Worker | None = None
        highest = 0.0
        found_here = [option for threads in sorted({1, bench.pins.threads}) for option in options(threads)]
        for option in found_here[:1] if bench.quick else found_here:
            worker = option(bench)
            try:
                # Before any repetition that counts: those are numbered from 0.
                found = max(rate(ask(number), worker.ask(ask(number))).value for number in (TRIAL, TRIAL + 1))
            except Unavailable:
                if best is not None:
                    best.close()
                raise
            if best is not None:
                (best if found > highest else worker).close()
            if found > highest:
                best, highest = worker, found
        assert best is not None
        return best

    return start


def vllm(model: Callable[[Bench], Path], running: int, dtype: str) -> Start:
    """vLLM with a folder in transformers' layout, its engine in the one process: another one only costs it here."""

    def start(bench: Bench) -> Worker:
        environment = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, bench.pins.cores[: bench.pins.threads])),
            "VLLM_CACHE_ROOT": str(bench.places.base / "vllm-cache"),
            "HF_HUB_OFFLINE": "1",
        }
        settings = {"model": str(model(bench)), "context": 1024, "running": running, "dtype": dtype}
        python, log = environments.vllm(bench.places), bench.places.logs / "vllm.log"
        return Worker(python, "vllm", settings, bench.pins, log, environment)

    return start


def against(peer_name: str, ours_start: Start, peer_start: Start, ask: Ask, rate: Rate) -> Callable[[Bench], Outcome]:
    """A row of two systems that are asked the same in turn."""

    def run(bench: Bench) -> Outcome:
        with ExitStack() as stack:
            a = stack.enter_context(ours_start(bench))
            try:
                b = stack.enter_context(peer_start(bench))
                rounds = alternate(
                    [lambda i: rate(ask(i), a.ask(ask(i))), lambda i: rate(ask(i), b.ask(ask(i)))], bench.repetitions
                )
            except Unavailable as reason:
                alone = alternate([lambda i: rate(ask(i), a.ask(ask(i)))], bench.repetitions)
                return Outcome(_side(a, [x for (x,) in alone]), Side(peer_name, refused=str(reason)))
            first, second = zip(*rounds, strict=True)
            return Outcome(_side(a, first), Side(peer_name, second, b.facts))

    return run


def against_products(start: Start, ask: Ask, operations: float) -> Callable[[Bench], Outcome]:
    """A row of prefill against what the processor's products of bytes alone could deliver, measured in turn with it;
    `operations`: of a token."""

    def most(bench: Bench) -> float:
        return machine.byte_products(bench.places, bench.pins) * bench.pins.threads

    def said(ours: float, limit: float, needed: float) -> str:
        return f"{ours * needed / 1e9:.0f} of {limit * needed / 1e9:.0f} Gop/s"

    return _against_limit(start, ask, prefill, "AVX2's products of bytes alone", most, lambda bench: operations, said)


def against_memory(start: Start, ask: Ask, bytes_per_token: Callable[[Bench], float]) -> Callable[[Bench], Outcome]:
    """A row of decoding against what the memory could deliver, measured in turn with it by the same threads."""

    def most(bench: Bench) -> float:
        return machine.read_bandwidth(bench.places, bench.pins)

    def said(ours: float, limit: float, needed: float) -> str:
        return f"{needed / 1e9:.2f} GB a token at {limit * needed / 1e9:.1f} GB/s"

    return _against_limit(start, ask, decode, "read bandwidth", most, bytes_per_token, said)


def _against_limit(
    start: Start,
    ask: Ask,
    rate: Rate,
    name: str,
    most: Callable[[Bench], float],
    per_token: Callable[[Bench], float],
    said: Callable[[float, float, float], str],
) -> Callable[[Bench], Outcome]:
    """A row against `most`, what the machine does a second of what a token needs `per_token`. The note is what `said`
    makes of our median rate, the limit's, and the need."""

    def run(bench: Bench) -> Outcome:
        with start(bench) as worker:
            needed = per_token(bench)
            rounds = alternate(
                [lambda i: rate(ask(i), worker.ask(ask(i))), lambda i: Sample(most(bench) / needed)], bench.repetitions
            )
            first, second = zip(*rounds, strict=True)
            ours, limit = _side(worker, first), Side(name, second)
            return Outcome(ours, limit, said(ours.median, limit.median, needed))

    return run


def first_token(bench: Bench) -> Outcome:
    """Seconds from the start of `magister chat` to the first byte of its answer."""
    command = [str(environments.magister().with_name("magister")), "chat", "What is 17 + 25?"]

    def once(number: int) -> Sample:
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            byte = process.stdout.read(1)
            seconds = time.perf_counter() - start
            process.kill()
        if not byte:
            raise Unavailable("magister chat said nothing")
        return Sample(seconds)

    return Outcome(Side("magister", [sample for (sample,) in alternate([once], bench.repetitions)]), None)


def shared_prompt(bench: Bench) -> Outcome:
    """Prompt tokens that went through the network for 8 samples of one prompt of 1,000."""
    length, n = 1000, 8
    with ours(lambda b: weights.small(b.places), context=2048)(bench) as worker:

        def once(number: int) -> Sample:
            answer = worker.ask(Question(prompts(number, 1, length), 1, n))
            return Sample(answer.extra["computed"])

        rounds = alternate([once], bench.repetitions)
        return Outcome(_side(worker, [sample for (sample,) in rounds]), None)


def peak_memory(model: Callable[[Bench], Path], **placement: Any) -> Callable[[Bench], Outcome]:
    """A row of the most memory held, in GiB, after loading and some tokens; once, since it does not scatter."""

    def run(bench: Bench) -> Outcome:
        with ours(model, **placement)(bench) as worker:
            answer = worker.ask(Question(prompts(0, 1, 128), 8))
            return Outcome(_side(worker, [Sample(answer.peak_bytes / 2**30)]), None)

    return run


def _pins(bench: Bench, threads: int | None) -> Pins:
    return bench.pins if threads is None else bench.pins._replace(threads=threads)


def _side(worker: Worker, samples: Any) -> Side:
    return Side("magister", list(samples), worker.facts)
