"""Which files of a repository make a checkpoint, what it will take on disk, and what has been pulled of it so far.

Knows file names, sizes and the index of shards; fetches nothing itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from magister.cli.hub.remote import Listing
from magister.model import atomic, names
from magister.model.config import ModelConfig
from magister.model.config_files import read_config_json, read_params_json
from magister.model.count import count_parameters
from magister.model.network import build, native_parameters
from magister.model.quantize import Plan
from magister.model.quantized_files import COMPANIONS, INDEX, read_index

STATE = "pull.json"
"""In the folder of a pull that is under way: what was asked for, from which commit, and which shards are done."""

PULLED = "pulled.json"
"""In the folder of a model pulled as published: where it came from."""

_SHARD = re.compile(r"(.+)-\d+-of-(\d+)\.safetensors")
_SPOKEN = (*COMPANIONS, "chat_template.jinja", "chat_template.json")
_DESCRIBED = ("params.json", "config.json", "preprocessor_config.json", "processor_config.json")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "LICENSE")


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint in one layout inside a repository."""

    description: str
    """params.json or config.json."""
    stem: str
    """What the names of its weights begin with."""
    weights: tuple[str, ...]
    """Its safetensors files, in order."""
    beside: tuple[str, ...]
    """Files that say how it is spoken to; they go with it in every precision."""
    others: tuple[str, ...]
    """More that goes with it as published."""

    @property
    def index(self) -> str:
        """Says which tensor is in which file; not every repository has one."""
        return f"{self.stem}.safetensors.index.json"


def choose(listing: Listing) -> Source:
    """The layout to pull: the one in more files, since a smaller file is sooner fetched again and needs less disk.

    ValueError where there is none, naming what there is instead.
    """
    found = []
    for description, stem in (("config.json", "model"), ("params.json", "consolidated")):
        pattern = re.compile(rf"{stem}(-\d+-of-\d+)?\.safetensors")
        weights = tuple(sorted(name for name in listing.files if pattern.fullmatch(name)))
        if weights and description in listing.files:
            found.append((description, stem, weights))
    if not found:
        other = sorted(name for name in listing.files if name.endswith((".gguf", ".safetensors", ".bin")))
        has = f"it has {', '.join(other[:3])}{' ...' if len(other) > 3 else ''}" if other else "it has no weights"
        raise ValueError(
            f"{listing.repository} is no checkpoint in native or Hugging Face layout: {has}; name another repository, "
            "or fetch one GGUF file yourself and give its path to --model"
        )
    description, stem, weights = max(found, key=lambda layout: len(layout[2]))
    beside = tuple(name for name in _SPOKEN if name in listing.files)
    index = f"{stem}.safetensors.index.json"
    others = tuple(name for name in (index, *_DESCRIBED, *_TOKENIZER) if name in listing.files)
    return Source(description, stem, weights, beside, others)


def read_shape(path: Path, repository: str) -> ModelConfig:
    """The shape that a description says. ValueError for one that is not computed here, or quantised already."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} of {repository} is not JSON: {error}") from error
    if isinstance(said, dict) and (said.get("quantization_config") or said.get("quantization")):
        raise ValueError(f"{repository} is quantised already: pull it as it is, with --bits 16, or name the original")
    return read_params_json(path) if path.name == "params.json" else read_config_json(path)


def disk_needed(config: ModelConfig, plan: Plan, listing: Listing, source: Source, index: Path | None) -> int:
    """The most bytes that lie on the disk at any time: shards become numbers in fewer bits one at a time and go.

    `index` is the file that says which tensor is in which shard; without it every shard counts like the largest.
    """
    sizes = [listing.files[name].size for name in source.weights]
    kept = torch.float32 if sum(sizes) > 3 * count_parameters(config).total else torch.bfloat16
    if index is None or len(sizes) == 1:
        return plan.bytes(config, kept) + max(sizes)
    where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    made = dict.fromkeys(source.weights, 0)
    plain = {_plain(name, source.stem): name for name, _ in native_parameters(build(config))}
    shapes = {name: parameter.shape for name, parameter in native_parameters(build(config))}
    for stored, shard in where.items():
        name = plain.get(names.plain_hf(stored) if source.stem == "model" else stored)
        if name is not None and shard in made:
            rule = plan.rule(name)
            made[shard] += shapes[name].numel() * kept.itemsize if rule is None else rule.bytes(shapes[name])
    most = written = 0
    for shard, size in zip(source.weights, sizes, strict=True):
        written += made[shard]
        most = max(most, written + size)
    return most


def _plain(native: str, stem: str) -> str:
    return names.plain_hf(names.to_hf(native, True)) if stem == "model" else native


@dataclass(slots=True)
class State:
    """What a pull has done so far, kept in its folder so that the next run of the command goes on."""

    folder: Path
    repository: str
    commit: str
    bits: int
    shards: dict[str, list[str]]
    """Shards that became numbers in fewer bits and are gone, each with the native names that were in it."""

    @classmethod
    def read(cls, folder: Path) -> State | None:
        """The state of an unfinished pull; None where there is none. ValueError for a damaged one."""
        path = folder / STATE
        if not path.is_file():
            return None
        try:
            said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(folder, said["repository"], said["commit"], said["bits"], said["shards"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}); remove {folder} to begin anew") from error

    def write(self) -> None:
        """Put it on disk, whole or not at all."""
        what = {"repository": self.repository, "commit": self.commit, "bits": self.bits, "shards": self.shards}
        atomic.write_json(self.folder / STATE, what)

    def is_done(self, shard: str, written: Collection[str]) -> bool:
        """Whether all that was in a shard is among the tensors `written`."""
        return shard in self.shards and set(self.shards[shard]) <= set(written)

    def done(self, shard: str, found: list[str]) -> None:
        """Note that the tensors `found` in a shard are safe, so that it may be deleted."""
        self.shards[shard] = found
        self.write()


@contextmanager
def as_checkpoint(folder: Path, source: Source, description: Path, shard: Path) -> Iterator[Path]:
    """A folder in which one shard is a checkpoint of its own, for readers that take whole ones."""
    folder.mkdir(exist_ok=True)
    (folder / source.description).write_bytes(description.read_bytes())
    weights = folder / f"{source.stem}.safetensors"
    weights.unlink(missing_ok=True)
    weights.symlink_to(shard.absolute())
    try:
        yield folder
    finally:
        weights.unlink()


def finished_from(destination: Path) -> str | None:
    """`repository@commit` of a model that is wholly there, "" where nobody knows, None where it is not whole."""
    for name, read in ((INDEX, _quantized_source), (PULLED, _pulled_source)):
        if (destination / name).is_file():
            return read(json.loads((destination / name).read_text(encoding="utf-8")))
    described = any((destination / name).is_file() for name in ("params.json", "config.json"))
    files = [file.name for file in destination.glob("*.safetensors")]
    shards = Counter(part.group(1, 2) for name in files if (part := _SHARD.fullmatch(name)))
    whole = all(count == int(of) for (_, of), count in shards.items())
    return "" if described and files and whole else None


def bits_of(destination: Path) -> int:
    """How many bits a model that is wholly there was made with; 16 for one as published."""
    if not (destination / INDEX).is_file():
        return 16
    return int(read_index(destination)["plan"]["bits"])


def pulled(listing: Listing, names: Iterable[str], folder: Path) -> dict[str, Any]:
    """What `PULLED` says: where the files `names` in `folder` came from, and the sha256 of each."""
    digests = {}
    for name in names:
        with (folder / name).open("rb") as file:
            said = listing.files[name].sha256
            digests[name] = said or hashlib.file_digest(file, "sha256").hexdigest()
    return {"repository": listing.repository, "commit": listing.commit, "sha256": digests}


def _quantized_source(index: dict[str, Any]) -> str | None:
    return str(index["source"]["name"]) if index["complete"] else None


def _pulled_source(said: dict[str, Any]) -> str | None:
    return f"{said['repository']}@{said['commit']}"
