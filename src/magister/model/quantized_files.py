"""A quantised checkpoint on disk: `params.json`, numbered safetensors parts, and the index `quantized.json`.

`Writer` makes one, tensor by tensor, and goes on where it was stopped; `tensors` reads one. The layout is described in
docs/quantization.md. Knows no other layout, and of the network its names and shapes only.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from magister.kernels.dispatch import moved
from magister.kernels.quantized import Format, Quantized
from magister.model import atomic, expected
from magister.model.config import ModelConfig
from magister.model.config_files import params_json
from magister.model.network import build, native_parameters
from magister.model.quantize import METHOD, Plan, Rule, quantize

INDEX = "quantized.json"
"""Says what is in a quantised folder, and whether it is finished."""

COMPANIONS = ("tekken.json", "magister.json", "SYSTEM_PROMPT.txt", "training.json", "generation_config.json")
"""Files beside the weights that say how a checkpoint is spoken to and where it comes from."""

PART_BYTES = 256 << 20
"""A part is closed before it grows past this; one tensor larger than that is a part of its own."""

_LAYOUT, _VERSION = "magister-quantized", 1
_FIELDS = {
    "complete": bool,
    "magister": str,
    "method": str,
    "plan": dict,
    "source": dict,
    "tensors": dict,
    "parts": dict,
}


class Writer:
    """Makes a quantised folder; opened on an unfinished one of the same plan and source, goes on with it.

    Killed at any moment, it leaves a folder that this goes on with and that no loader takes for whole. Given the same
    tensors in the same order, with parts closed at the same places, the folder's bytes are the same however often it
    was stopped.
    """

    def __init__(
        self,
        folder: Path | str,
        config: ModelConfig,
        plan: Plan,
        source: str,
        *,
        workers: int = 1,
        part_bytes: int = PART_BYTES,
    ) -> None:
        """`source` names what is quantised, for people and so that two sources never mix: a folder's name, or a
        repository and its revision. `workers` is how many threads quantise one matrix: with more than one, torch's own
        threads are best set to one.

        ValueError for a plan that does not fit the shape, for a folder that holds anything else, and for one that was
        begun otherwise or has since lost what it had.
        """
        plan.check(config)
        self._workers = workers
        self._part_bytes = part_bytes
        self._folder = Path(folder)
        self._config = config
        self._plan = plan
        self._shapes = {name: parameter.shape for name, parameter in native_parameters(build(config))}
        self._pending: dict[str, Tensor | Quantized] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        self._index = self._open(source)
        self._earlier = dict(self._index["parts"])
        self._check_earlier(_check_size)

    @property
    def done(self) -> frozenset[str]:
        """Native names that are safely on disk. What was added since the last part was closed is not."""
        return frozenset(self._index["tensors"])

    @property
    def missing(self) -> tuple[str, ...]:
        """Native names that have not been added yet, in the network's order."""
        return tuple(name for name in self._shapes if name not in self._index["tensors"] and name not in self._pending)

    @property
    def finished(self) -> bool:
        """Whether the folder is whole; it then takes no more tensors."""
        return bool(self._index["complete"])

    def add(self, name: str, tensor: Tensor | Quantized) -> None:
        """Takes one tensor under its native name, rows of queries and keys in native order; quantises it where the plan
        says so, unless it is quantised already.

        A name that was added before is compared with what was added then, and not computed again. ValueError for a
        name or a shape that the network has not, for a type that is not read back, and for a tensor that is not the one
        added before. OSError where the
        disk is full, with the bytes that were needed; what was done stays done.
        """
        shape = self._shapes.get(name)
        if shape is None:
            raise ValueError(f"{name}: the network has no such tensor")
        expected.check(name, tensor, shape)
        digest = _digest(tensor)
        before = self._index["tensors"].get(name) or self._entries.get(name)
        if before is not None:
            if before["source"] != digest:
                raise ValueError(f"{name} is not the tensor that {self._folder} was begun with; empty the folder")
            return
        assert not self.finished, "a whole folder has every name"
        rule = self._plan.rule(name)
        value: Tensor | Quantized = tensor
        if rule is not None and isinstance(tensor, Tensor):
            value = self._quantized(name, tensor, rule)
        if self._pending and _size(self._pending.values()) + _size([value]) > self._part_bytes:
            self.close_part()
        self._entries[name] = {"part": "", "source": digest, **_described(value)}
        if _size([value]) >= self._part_bytes:
            self._pending[name] = value
            self.close_part()
        else:
            # What waits must not be a mapped file, nor change in the caller's hands.
            self._pending[name] = value if value is not tensor else _copy(value)

    def close_part(self) -> None:
        """Puts on disk what was added so far: after this, all of it is `done`. Call it before deleting a source."""
        if not self._pending:
            return
        part = f"quantized-{len(self._index['parts']) + 1:05}.safetensors"
        size, digest = atomic.write_safetensors(self._folder / part, _flat(self._pending))
        for entry in self._entries.values():
            entry["part"] = part
        self._write_index(
            tensors=self._index["tensors"] | self._entries,
            parts=self._index["parts"] | {part: {"bytes": size, "sha256": digest}},
        )
        self._pending, self._entries = {}, {}

    def finish(self, companions: Iterable[Path] = ()) -> None:
        """Closes the last part, copies `companions` in, and marks the folder as whole.

        ValueError if tensors are missing, or parts that an earlier run wrote are damaged.
        """
        if self.finished:
            return
        if self.missing:
            raise ValueError(f"{self._folder}: {expected.listed('tensors missing', self.missing)}")
        self.close_part()
        # Once, and not at each opening: all parts of a 24B model are 14 GB to read, and a run may be stopped often.
        self._check_earlier(verify)
        for companion in companions:
            copy, size = partial(shutil.copyfile, companion), companion.stat().st_size
            atomic.replace(atomic.File(self._folder / companion.name, copy, size))
        lines = "".join(f"{name} {entry['source']}\n" for name, entry in sorted(self._index["tensors"].items()))
        source = self._index["source"] | {"sha256": hashlib.sha256(lines.encode()).hexdigest()}
        self._write_index(complete=True, source=source)

    def _quantized(self, name: str, tensor: Tensor, rule: Rule) -> Quantized:
        try:
            return quantize(tensor, rule, self._workers)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def _check_earlier(self, check: Callable[[Path, int, str], None]) -> None:
        """ValueError where a part that an earlier run wrote does not pass `check`: its tensors are `done` and will not
        be given again."""
        for part, facts in self._earlier.items():
            try:
                check(self._folder / part, facts["bytes"], facts["sha256"])
            except ValueError as error:
                raise ValueError(f"{error}; empty {self._folder} and begin again") from error

    def _open(self, source: str) -> dict[str, Any]:
        begun = {
            "layout": _LAYOUT,
            "version": _VERSION,
            "complete": False,
            "magister": metadata.version("magister"),
            "method": METHOD,
            "plan": self._plan.described(),
            "source": {"name": source},
            "tensors": {},
            "parts": {},
        }
        if not (self._folder / INDEX).is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            # What a kill leaves while the first index is written.
            strays = set(self._folder.glob(f".{INDEX}.*.tmp"))
            if set(self._folder.iterdir()) - strays:
                raise ValueError(f"{self._folder} is not empty and was not begun by quantising; name another folder")
            for stray in strays:
                stray.unlink()
            atomic.write_json(self._folder / INDEX, begun)
            atomic.write_json(self._folder / "params.json", params_json(self._config))
            return begun
        found = _read_json(self._folder / INDEX)
        for field in ("magister", "method", "plan", "source"):
            was, now = found[field], begun[field]
            if field == "source":
                was, now = was["name"], source
            if was != now and not (field == "magister" and found["complete"]):
                raise ValueError(f"{self._folder} was begun with {field} {was}, now it is {now}; empty the folder")
        for stray in self._folder.glob(".*.tmp"):
            stray.unlink()
        if not found["complete"]:
            # The first run may have been stopped right after the index.
            atomic.write_json(self._folder / "params.json", params_json(self._config))
        return found

    def _write_index(self, **changes: Any) -> None:
        self._index = self._index | changes
        atomic.write_json(self._folder / INDEX, self._index)


def is_quantized(folder: Path) -> bool:
    """Whether a folder is laid out so, finished or not."""
    return (folder / INDEX).is_file()


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a finished folder. ValueError for an unfinished one, or one of another version."""
    index = _read_json(folder / INDEX)
    if not index["complete"]:
        raise ValueError(
            f"{folder} is unfinished: {len(index['tensors'])} tensors of it are there; "
            "run the command that made it again, and it goes on"
        )
    return index


def tensors(folder: Path) -> Iterator[tuple[str, Tensor | Quantized]]:
    """Every tensor of a finished folder under its native name, one at a time, in the order they were added.

    Each part's checksum is verified before anything of it is given. Tensors may be the file itself, mapped. ValueError
    for a part that is absent, cut short or changed, naming it.
    """
    index = read_index(folder)
    parts = list(index["parts"].items())
    with ThreadPoolExecutor(1) as thread:

        def begin(part: str, facts: dict[str, Any]) -> Future[None]:
            return thread.submit(verify, folder / part, facts["bytes"], facts["sha256"])

        # The next part is verified, and thereby read from disk, while this one is used.
        following = begin(*parts[0]) if parts else None
        for number, (part, _) in enumerate(parts):
            assert following is not None
            following.result()
            following = begin(*parts[number + 1]) if number + 1 < len(parts) else None
            for name, entry in index["tensors"].items():
                if entry["part"] == part:
                    yield name, _read(folder / part, name, entry)


def verify(path: Path, size: int, sha256: str) -> None:
    """ValueError unless the file has this size and this digest; names both digests. Reads all of it."""
    _check_size(path, size, sha256)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ValueError(f"{path} is corrupt: its sha256 is {found}, must be {sha256}")


def _check_size(path: Path, size: int, _sha256: str) -> None:
    """`verify` without reading."""
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    if path.stat().st_size != size:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, must have {size:,}: it was cut short or changed")


def _read(path: Path, name: str, entry: dict[str, Any]) -> Tensor | Quantized:
    try:
        # Opened anew for each tensor: a file is mapped while open, and pages read from it count as ours.
        with safe_open(path, framework="pt", device="cpu") as opened:
            if "format" not in entry:
                plain: Tensor = opened.get_tensor(name)
                return plain
            return Quantized(
                Format(entry["format"]),
                opened.get_tensor(f"{name}.values"),
                opened.get_tensor(f"{name}.scales"),
                entry["group"],
                opened.get_tensor(f"{name}.mins") if entry["minimum"] else None,
            )
    except SafetensorError as error:
        raise ValueError(f"{path} does not hold {name} as {INDEX} says: {error}") from error


def _described(value: Tensor | Quantized) -> dict[str, Any]:
    if isinstance(value, Tensor):
        return {}
    return {"format": str(value.format), "group": value.group, "minimum": value.mins is not None}


def _copy(value: Tensor | Quantized) -> Tensor | Quantized:
    return moved(value, "cpu", copy=True) if isinstance(value, Quantized) else value.detach().clone()


def _size(values: Iterable[Tensor | Quantized]) -> int:
    return sum(value.bytes if isinstance(value, Quantized) else value.nbytes for value in values)


def _flat(values: dict[str, Tensor | Quantized]) -> dict[str, Tensor]:
    flat: dict[str, Tensor] = {}
    for name, value in values.items():
        if isinstance(value, Tensor):
            flat[name] = value
            continue
        flat |= {f"{name}.values": value.values, f"{name}.scales": value.scales}
        if value.mins is not None:
            flat[f"{name}.mins"] = value.mins
    return flat


def _digest(tensor: Tensor | Quantized) -> str:
    digest = hashlib.sha256()
    for part in _flat({"": tensor}).values():
        digest.update(str(part.dtype).encode())
        for piece in atomic.memory(part):
            digest.update(piece)
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict) or found.get("layout") != _LAYOUT:
        raise ValueError(f"{path} is no index of a quantised checkpoint")
    if found.get("version") != _VERSION:
        raise ValueError(f"{path} is of version {found.get('version')}, this Magister reads version {_VERSION}")
    for field, kind in _FIELDS.items():
        if not isinstance(found.get(field), kind):
            raise ValueError(f"{path}: {field} is missing or no {kind.__name__}")
    return found
