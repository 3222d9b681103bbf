"""The container of a GGUF file: its metadata, where its tensors lie, and how one is written. No meaning of any of it.

A file is: magic, version, two counts, the key-value pairs, one record a tensor, and the tensors' bytes, each at a
multiple of the alignment. Everything is little-endian. Source: ggml's docs/gguf.md. Long lists (a vocabulary) are
counted and not read. Tensors are read one at a time by ordinary reads, never mapped, so that memory stays what is
asked for.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from magister.model.disk import flush

Value = str | bool | int | float | Sequence[str] | Sequence[int]
"""What a key can be set to: an int is written as uint32, a float as float32, whole numbers in a list as int32."""

SUFFIX = ".gguf"

_MAGIC, _VERSIONS, _ALIGNMENT = b"GGUF", (2, 3), 32
_BOOL, _STRING, _LIST = 7, 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", _BOOL: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_PIECE = 16 << 20
_SHORT = 4096
"""A list of numbers up to this long is read."""


class Kind(NamedTuple):
    """One way to hold a tensor's numbers: rows are cut into blocks."""

    name: str
    inputs: int = 0
    """Numbers of a block; 0 for a kind whose size is not known here."""
    bytes: int = 0
    """Of a block."""


KINDS: Mapping[int, Kind] = {
    0: Kind("F32", 1, 4),
    1: Kind("F16", 1, 2),
    2: Kind("Q4_0", 32, 18),
    3: Kind("Q4_1", 32, 20),
    6: Kind("Q5_0", 32, 22),
    7: Kind("Q5_1", 32, 24),
    8: Kind("Q8_0", 32, 34),
    10: Kind("Q2_K", 256, 84),
    11: Kind("Q3_K", 256, 110),
    12: Kind("Q4_K", 256, 144),
    13: Kind("Q5_K", 256, 176),
    14: Kind("Q6_K", 256, 210),
    16: Kind("IQ2_XXS"),
    17: Kind("IQ2_XS"),
    18: Kind("IQ3_XXS"),
    19: Kind("IQ1_S"),
    20: Kind("IQ4_NL"),
    21: Kind("IQ3_S"),
    22: Kind("IQ2_S"),
    23: Kind("IQ4_XS"),
    29: Kind("IQ1_M"),
    30: Kind("BF16", 1, 2),
    34: Kind("TQ1_0"),
    35: Kind("TQ2_0"),
    39: Kind("MXFP4"),
}
"""Number in the file -> kind; those that files of this family are found in."""


class Counted(NamedTuple):
    """A list that was not read."""

    length: int


class Record(NamedTuple):
    """Where one tensor lies."""

    path: Path
    name: str
    kind: str
    """A name of `KINDS`, or "type N" for one that is not there."""
    shape: tuple[int, ...]
    """Rows first, as torch has it; the file has it the other way round."""
    start: int
    """First byte in the file."""
    bytes: int


class Container(NamedTuple):
    """What a GGUF file says."""

    metadata: dict[str, Any]
    """Numbers, booleans, texts, lists of up to 4096 numbers, and `Counted` for other lists."""
    tensors: dict[str, Record]


def read(path: Path) -> Container:
    """The header of a GGUF file. ValueError, naming the file, for one that is none, or is cut short; OSError."""
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise ValueError(f"{path} is no GGUF file: it does not begin with {_MAGIC.decode()}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            try:
                return _Reader(path, mapped).container()
            except (struct.error, OverflowError, UnicodeDecodeError) as error:
                raise ValueError(f"{path} is not a whole GGUF file: its header is cut short or damaged") from error


def read_tensor(record: Record) -> Tensor:
    """The bytes of one tensor, uint8 [rows, bytes of a row]; a tensor without rows is one row. Not mapped: a copy."""
    rows = record.shape[0] if len(record.shape) > 1 else 1
    room = bytearray(record.bytes)
    with record.path.open("rb", buffering=0) as file:
        file.seek(record.start)
        view, done = memoryview(room), 0
        while done < record.bytes:
            got = file.readinto(view[done:])
            if not got:
                wanted = f"{record.name} ends after {done:,} of {record.bytes:,} bytes"
                raise ValueError(f"{record.path} is cut short: {wanted}")
            done += got
    return torch.frombuffer(room, dtype=torch.uint8).view(rows, -1)


class _Stated(NamedTuple):
    """What a file says of a tensor."""

    name: str
    number: int
    """Of its kind."""
    shape: tuple[int, ...]
    """Rows first."""
    offset: int
    """Bytes from where tensors begin."""


class _Reader:
    """Reads a header front to back."""

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self.path = path
        self.mapped = mapped
        self.at = 4

    def container(self) -> Container:
        version = self._number("<I")
        if version not in _VERSIONS:
            raise ValueError(f"{self.path}: GGUF version {version} is not read; versions {_VERSIONS[0]} and 3 are")
        tensor_count, pair_count = self._number("<Q"), self._number("<Q")
        metadata: dict[str, Any] = {}
        for _ in range(pair_count):
            key = self._text()
            if key in metadata:
                raise ValueError(f"{self.path}: {key} is there twice")
            metadata[key] = self._value(self._number("<I"))
        found = [self._stated() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"{self.path}: general.alignment is {alignment!r}, must be a positive whole number")
        start = -(-self.at // alignment) * alignment
        tensors: dict[str, Record] = {}
        for one in found:
            if one.name in tensors:
                raise ValueError(f"{self.path}: {one.name} is there twice")
            tensors[one.name] = self._placed(start, one)
        return Container(metadata, tensors)

    def _stated(self) -> _Stated:
        name, dims = self._text(), self._number("<I")
        if dims > 4:
            raise ValueError(f"{self.path}: {name} has {dims} dimensions, a GGUF tensor has at most 4")
        shape = tuple(self._number("<Q") for _ in range(dims))[::-1]
        return _Stated(name, self._number("<I"), shape, self._number("<Q"))

    def _placed(self, start: int, stated: _Stated) -> Record:
        """Where a tensor lies, for tensors that begin at byte `start`."""
        name, number, shape, offset = stated
        kind = KINDS.get(number, Kind(f"type {number}"))
        size, count = 0, 1
        for side in shape:
            count *= side
        if kind.inputs:
            if shape and shape[-1] % kind.inputs:
                raise ValueError(
                    f"{self.path}: {name} has rows of {shape[-1]}, {kind.name} asks for a multiple of {kind.inputs}"
                )
            size = count // kind.inputs * kind.bytes
        if start + offset + size > len(self.mapped):
            raise ValueError(
                f"{self.path} is cut short: {name} needs {start + offset + size:,} bytes of file, "
                f"there are {len(self.mapped):,}"
            )
        return Record(self.path, name, kind.name, shape, start + offset, size)

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.mapped, self.at)
        self.at += struct.calcsize(form)
        return value

    def _skip(self, size: int) -> int:
        """Moves on by `size` bytes; returns where it was."""
        was = self.at
        if size > len(self.mapped) - was:
            raise struct.error
        self.at += size
        return was

    def _text(self) -> str:
        size = self._number("<Q")
        was = self._skip(size)
        return self.mapped[was : self.at].decode("utf-8")

    def _value(self, number: int) -> Any:
        if number == _STRING:
            return self._text()
        if number == _LIST:
            return self._list()
        if number not in _SCALARS:
            raise struct.error
        return self._number(_SCALARS[number])

    def _list(self) -> Any:
        number, count = self._number("<I"), self._number("<Q")
        if number in _SCALARS:
            form = _SCALARS[number][1:]
            was = self._skip(count * struct.calcsize(form))
            return (
                list(struct.unpack_from(f"<{count}{form}", self.mapped, was))
                if count <= _SHORT
                else Counted(length=count)
            )
        if number != _STRING:
            raise struct.error
        # Hundreds of thousands of tokens and merges: only their lengths are looked at.
        at, mapped, unpack = self.at, self.mapped, struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + unpack(mapped, at)[0]
        self._skip(at - self.at)
        return Counted(length=count)


class Writer:
    """Writes a GGUF file: the metadata is known at first, tensors come one at a time in any order.

    The header's size does not depend on the tensors' kinds or order, so room is left for it and it is written last. The
    file is made at `path` itself; on an error it stays as it is and is no GGUF file.
    """

    def __init__(self, path: Path, metadata: Mapping[str, Value], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """`shapes` has every tensor that will come, rows first."""
        self._pairs = b"".join(_text(key) + _typed(value) for key, value in metadata.items())
        self._pair_count = len(metadata)
        self._shapes = dict(shapes)
        self._records: dict[str, tuple[int, int]] = {}
        size = 24 + len(self._pairs) + sum(len(_text(name)) + 8 * len(s) + 16 for name, s in shapes.items())
        self._start = -(-size // _ALIGNMENT) * _ALIGNMENT
        self._size = 0
        self._file = path.open("wb")
        self._file.seek(self._start)
        self._path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, kind: str, raw: Tensor) -> None:
        """One tensor's bytes, uint8, in the blocks of `kind`."""
        number = next(number for number, known in KINDS.items() if known.name == kind)
        shape = self._shapes[name]
        count = 1
        for side in shape:
            count *= side
        wanted = count // KINDS[number].inputs * KINDS[number].bytes
        assert raw.dtype == torch.uint8, raw.dtype
        assert raw.numel() == wanted, (name, raw.numel(), wanted)
        assert name not in self._records, name
        padding = -self._size % _ALIGNMENT
        self._file.write(bytes(padding))
        self._records[name] = (number, self._size + padding)
        for piece in torch.split(raw.contiguous().flatten(), _PIECE):
            self._file.write(piece.numpy().data)
        self._size += padding + wanted

    def finish(self) -> None:
        """Writes the header; the file is then whole and on disk. All tensors must have come."""
        assert self._records.keys() == self._shapes.keys(), self._shapes.keys() - self._records.keys()
        self._file.write(bytes(-self._size % _ALIGNMENT))
        records = b"".join(
            _text(name)
            + struct.pack(f"<I{len(self._shapes[name])}Q", len(self._shapes[name]), *reversed(self._shapes[name]))
            + struct.pack("<IQ", number, offset)
            for name, (number, offset) in self._records.items()
        )
        counts = struct.pack("<IQQ", _VERSIONS[-1], len(self._records), self._pair_count)
        header = _MAGIC + counts + self._pairs + records
        assert len(header) <= self._start < len(header) + _ALIGNMENT, (len(header), self._start)
        self._file.seek(0)
        self._file.write(header)
        self._file.close()
        flush(self._path)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return struct.pack("<Q", len(encoded)) + encoded


def _typed(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", _LIST, _STRING, len(value)) + b"".join(map(_text, map(str, value)))
    return struct.pack(f"<IIQ{len(value)}i", _LIST, 5, len(value), *value)
