"""`magister pull`: a published checkpoint, in few bits or as it is, onto this machine's disk.

In few bits one shard at a time is fetched, quantised and deleted, so that the original never lies on the disk whole.
Stopped at any moment, the same command goes on, from the same commit.
"""

from __future__ import annotations

import fcntl
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from magister.cli.hub import remote, shelf
from magister.cli.hub.remote import Listing
from magister.cli.hub.source import (
    PULLED,
    STATE,
    Source,
    State,
    as_checkpoint,
    bits_of,
    choose,
    disk_needed,
    finished_from,
    pulled,
    read_shape,
)
from magister.cli.machine import SPARE, free_disk, usable_cores
from magister.cli.progress import bar_of
from magister.kernels.quantized import Quantized
from magister.model import atomic, sources
from magister.model.disk import flush
from magister.model.quantize import Plan
from magister.model.quantized_files import Writer, is_quantized

LOCK = "lock"
"""In the folder of a pull under way: held by the process that is at work in it."""


def run(name: str, bits: int, to: Path | None, revision: str | None) -> int:
    """Pull `name`, or go on where an earlier run stopped; returns the exit code. ValueError in one sentence for what
    cannot be had, has no room, or is not what was begun."""
    repository = shelf.repository(name)
    destination = to or shelf.folder() / shelf.name_of(repository, bits)
    if destination.is_symlink():
        # Beside the folder itself, not beside its other name: that may be on another disk.
        destination = destination.resolve()
    staging = destination.absolute().with_name(f".{destination.absolute().name}.pull")
    if (source := finished_from(destination)) is not None:
        _already(destination, source, repository, bits, revision)
        if staging.is_dir():
            # A run that was killed between its last two steps.
            with _alone(staging):
                shutil.rmtree(staging)
        return 0
    if destination.is_mount():
        raise ValueError(f"{destination} is a mount point, which no folder can take the place of; name one in it")
    if destination.exists() and any(destination.iterdir()) and not is_quantized(destination):
        raise ValueError(f"{destination} is not empty and is no model that was pulled; name another folder with --to")
    with _alone(staging):
        state, listing = _begin(staging, destination, repository, bits, revision)
        began = time.monotonic()
        with _progress() as show:
            pull = _pull_quantized if bits < 16 else _pull_whole
            pull(state, listing, choose(listing), destination, show)
        shutil.rmtree(staging)
    said = sum(file.stat().st_size for file in destination.glob("*.safetensors"))
    print(f"{destination}: {said:,} bytes of weights from {repository}@{listing.commit[:12]}", end=" ")
    print(f"in {time.monotonic() - began:.0f} s")
    print(f"magister chat --model {destination.name if to is None else destination}")
    return 0


def _already(destination: Path, source: str, repository: str, bits: int, revision: str | None) -> None:
    """Says that it is there. ValueError where what is there is something else."""
    was, _, commit = source.partition("@")
    if source and was != repository:
        raise ValueError(f"{destination} holds {source}; name another folder with --to")
    if (there := bits_of(destination)) != bits:
        raise ValueError(f"{destination} is in {there} bits, now it is {bits}; name another folder with --to")
    if source and revision is not None and (now := remote.look_up(repository, revision).commit) != commit:
        raise ValueError(f"{destination} holds commit {commit}, {revision} is {now}; name another folder with --to")
    print(f"{destination} is there already{f', whole: {source}' if source else ''}")


def _begin(staging: Path, destination: Path, repository: str, bits: int, revision: str | None) -> tuple[State, Listing]:
    """The state to go on with, or a new one; the commit is settled here for all runs of the command."""
    anew = f"remove {staging} and {destination} to begin anew"
    state = State.read(staging)
    if state is None or not (is_quantized(destination) or _weights(staging)):
        _empty(staging)
        listing = remote.look_up(repository, revision)
        state = State(staging, repository, listing.commit, bits, {})
        state.write()
        return state, listing
    if (state.repository, state.bits) != (repository, bits):
        raise ValueError(
            f"{destination} was begun with {state.repository} in {state.bits} bits, now it is {repository} in {bits}; "
            f"{anew}, or name another folder with --to"
        )
    try:
        listing = remote.look_up(repository, revision or state.commit)
    except remote.NoSuchRevision as error:
        raise ValueError(f"{destination} was begun from commit {state.commit}: {error}; {anew}") from error
    if listing.commit != state.commit:
        raise ValueError(
            f"{destination} was begun from commit {state.commit}, {revision or 'that'} is now {listing.commit}; "
            f"{anew}, or go on with --revision {state.commit}"
        )
    return state, listing


def _pull_quantized(state: State, listing: Listing, source: Source, destination: Path, show: Show) -> None:
    description = remote.fetch(listing, source.description, state.folder)
    config = read_shape(description, listing.repository)
    plan = Plan(bits=state.bits)
    plan.check(config)
    index = remote.fetch(listing, source.index, state.folder) if source.index in listing.files else None
    _check_disk(destination, state.folder, disk_needed(config, plan, listing, source, index), show)
    beside = [remote.fetch(listing, name, state.folder) for name in source.beside]
    # One of torch's threads for each of ours: the search is many small operations, which one thread does best.
    torch.set_num_threads(1)
    writer = Writer(destination, config, plan, f"{listing.repository}@{listing.commit}", workers=usable_cores())
    for number, shard in enumerate(source.weights, 1):
        where = f"{shard} ({number} of {len(source.weights)})"
        if not state.is_done(shard, writer.done):
            size = listing.files[shard].size
            with show.download(where, size, remote.part_of(state.folder / shard)):
                path = remote.fetch(listing, shard, state.folder)
            with (
                as_checkpoint(state.folder / "shard", source, description, path) as folder,
                show.quantize(where, size) as advance,
            ):
                found = _quantize(writer, folder, advance)
            # Only now, with all of it on disk, may the original go.
            writer.close_part()
            state.done(shard, found)
        (state.folder / shard).unlink(missing_ok=True)
    writer.finish(beside)


def _quantize(writer: Writer, folder: Path, advance: Callable[[int], None]) -> list[str]:
    found = []
    for name, tensor in sources.stream(folder):
        if isinstance(tensor, Quantized):
            raise ValueError(f"{name} is quantised already; pull it as it is, with --bits 16")
        writer.add(name, tensor)
        found.append(name)
        advance(tensor.nbytes)
    return found


def _pull_whole(state: State, listing: Listing, source: Source, destination: Path, show: Show) -> None:
    if is_quantized(destination):
        raise ValueError(f"{destination} was begun in fewer bits; remove it, or name another folder with --to")
    files = state.folder / "files"
    names = dict.fromkeys((*source.beside, *source.others, *source.weights))
    _check_disk(destination, state.folder, sum(listing.files[name].size for name in names), show)
    for number, name in enumerate(names, 1):
        with show.download(
            f"{name} ({number} of {len(names)})", listing.files[name].size, remote.part_of(files / name)
        ):
            remote.fetch(listing, name, files)
    sources.read_config(files)
    atomic.write_json(files / PULLED, pulled(listing, names, files))
    if destination.exists():
        destination.rmdir()
    files.rename(destination)
    flush(destination.parent)


def _check_disk(destination: Path, staging: Path, needed: int, show: Show) -> None:
    """ValueError where what is still to come has no room; what an earlier run left counts as room."""
    there = sum(_size(folder) for folder in (destination, staging) if folder.is_dir())
    wanted, free = max(0, needed - there) + SPARE, free_disk(staging)
    if free < wanted:
        raise ValueError(
            f"{destination}: needs {wanted:,} bytes of disk at the most, {free:,} are free there; make room, name "
            "another place with --to, or fewer bits with --bits 4"
        )
    show.say(f"{destination}: {wanted:,} bytes of disk are needed at the most, {free:,} are free")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in _weights(folder))


def _weights(folder: Path) -> list[Path]:
    """Files of weights in a folder, whole or still coming."""
    ends = (".safetensors", f".safetensors{remote.PART}")
    return [file for file in folder.rglob("*") if file.name.endswith(ends) and not file.is_symlink()]


def _empty(staging: Path) -> None:
    """Takes away what an earlier run left, but the lock."""
    for entry in staging.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


@contextmanager
def _alone(staging: Path) -> Iterator[None]:
    """The folder of a pull under way, for this process alone; it goes where nothing was begun in it. ValueError where
    another process is at work in it."""
    staging.mkdir(parents=True, exist_ok=True)
    with (staging / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another pull is at work in {staging}; wait for it, or stop it") from error
        try:
            yield
        finally:
            if staging.is_dir() and not (staging / STATE).is_file():
                shutil.rmtree(staging)


class Show:
    """What a person sees meanwhile: a bar on a terminal, else a line a file."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def say(self, words: str) -> None:
        """One line that stays."""
        self._progress.console.print(words, highlight=False, soft_wrap=True, markup=False)

    @contextmanager
    def download(self, what: str, size: int, part: Path) -> Iterator[None]:
        """While a file of `size` bytes comes into the file `part`."""
        task = self._progress.add_task(f"fetching {what}", total=size)
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.2):
                if part.exists():
                    self._progress.update(task, completed=part.stat().st_size)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self._progress.remove_task(task)
        if self._progress.disable:
            self.say(f"fetched {what}")

    @contextmanager
    def quantize(self, what: str, size: int) -> Iterator[Callable[[int], None]]:
        """While `size` bytes of weights are quantised; gives what to call with each part of them."""
        task = self._progress.add_task(f"quantising {what}", total=size)
        yield lambda done: self._progress.advance(task, done)
        self._progress.remove_task(task)
        if self._progress.disable:
            self.say(f"quantised {what}")


@contextmanager
def _progress() -> Iterator[Show]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with bar_of(*columns) as progress:
        yield Show(progress)
