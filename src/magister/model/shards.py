"""The safetensors files of a checkpoint folder: which belong to it, what is in them, and how one is written, a tensor
at a time.

Knows no names and no layouts but the way files are numbered and indexed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from magister.model.disk import flush
from magister.model.expected import listed

_CODES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_PIECE = 16 << 20
_NUMBER = re.compile(r"-(\d+)-of-(\d+)\.safetensors$")


def contents(folder: Path, stem: str) -> dict[str, Path]:
    """Stored name -> file, for `STEM.safetensors` or `STEM-00001-of-00003.safetensors` and so on, with or without an
    index.

    ValueError for missing or damaged files, and for a tensor that is in two of them.
    """
    found: dict[str, Path] = {}
    for path in _files(folder, stem):
        try:
            with safe_open(path, framework="pt", device="cpu") as opened:
                stored = list(opened.keys())
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
        for name in stored:
            if name in found:
                raise ValueError(f"{name} is in {found[name].name} and in {path.name}")
            found[name] = path
    return found


def read(files: Mapping[str, Path], name: str) -> Tensor:
    """One tensor; it may be the file itself, mapped, for as long as it lives. ValueError for a damaged file."""
    try:
        # Opened anew for each tensor: a file is mapped while open, and pages read from it count as ours.
        with safe_open(files[name], framework="pt", device="cpu") as opened:
            tensor: Tensor = opened.get_tensor(name)
            return tensor
    except SafetensorError as error:
        raise ValueError(f"{files[name]} is not a whole safetensors file: {error}") from error


def _files(folder: Path, stem: str) -> list[Path]:
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        files = [folder / name for name in sorted(_indexed(index))]
        absent = [file.name for file in files if not file.is_file()]
    else:
        files = sorted(folder.glob(f"{stem}*.safetensors"))
        numbers = [match.groups() for file in files if (match := _NUMBER.search(file.name))]
        present = {int(number) for number, _ in numbers}
        claimed = max((int(total) for _, total in numbers), default=0)
        absent = [f"number {n} of {claimed}" for n in range(1, claimed + 1) if n not in present]
    if absent:
        raise ValueError(f"{folder}: {listed('missing shards', absent)}")
    return files


def _indexed(index: Path) -> set[str]:
    """The files that an index names."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{index} is not JSON: {error}") from error
    weight_map = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ValueError(f"{index}: weight_map is missing or no object of file names")
    return set(weight_map.values())


class Writer:
    """Writes one safetensors file: tensors come one at a time, in any order, in any of three float types.

    Names and shapes are known at first, so there is room for the header, which is written last. The file is made at
    `path` itself; on an error it stays as it is and is no safetensors file.
    """

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """`shapes` has every tensor that will come."""
        self._shapes = dict(shapes)
        self._records: dict[str, Any] = {}
        far = 1 << 62
        room = {name: {"dtype": "BF16", "shape": list(s), "data_offsets": [far, far]} for name, s in shapes.items()}
        self._room = -(-len(self._header(room)) // 8) * 8
        self._size = 0
        self._path = path
        self._file = path.open("wb")
        self._file.seek(8 + self._room)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, tensor: Tensor) -> None:
        """One tensor. ValueError where its type could not be read back behind those before it."""
        assert tuple(tensor.shape) == self._shapes[name], (name, tensor.shape)
        assert name not in self._records, name
        if self._size % tensor.element_size():
            raise ValueError(f"{name} is {tensor.dtype} behind narrower numbers of odd count; ask for one type for all")
        end = self._size + tensor.nbytes
        self._records[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [self._size, end],
        }
        flat = tensor.detach().contiguous().flatten().view(torch.uint8)
        for piece in torch.split(flat, _PIECE):
            self._file.write(piece.numpy().data)
        self._size = end

    def finish(self) -> None:
        """Writes the header; the file is then whole and on disk. All tensors must have come."""
        assert self._records.keys() == self._shapes.keys(), self._shapes.keys() - self._records.keys()
        self._file.seek(0)
        self._file.write(self._room.to_bytes(8, "little") + self._header(self._records).ljust(self._room))
        self._file.close()
        flush(self._path)

    @staticmethod
    def _header(records: Mapping[str, Any]) -> bytes:
        return json.dumps({"__metadata__": {"format": "pt"}, **records}, separators=(",", ":")).encode()
