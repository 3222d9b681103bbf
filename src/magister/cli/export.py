"""`magister export`: a checkpoint written as transformers, vLLM, mistral-inference or llama.cpp read it."""

from __future__ import annotations

import glob
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from magister.cli import compose, places
from magister.cli.machine import SPARE, free_disk
from magister.cli.progress import counted
from magister.model import export, gguf_files, weights
from magister.model.atomic import unfinished
from magister.model.config import ModelConfig
from magister.model.disk import flush
from magister.model.export import Layout, Type
from magister.model.gguf_container import SUFFIX, Value
from magister.model.network import build, native_parameters
from magister.model.quantized_files import COMPANIONS
from magister.text import llama_cpp
from magister.text.formats import load_format
from magister.text.tokenizer import Tokenizer, load_tokenizer


def run(source: str, destination: Path, layout: str, type: str | None) -> int:
    """Write `destination`; returns the exit code. It appears whole or not at all."""
    path, form, asked = places.find(source), Layout(layout), Type(type) if type else None
    if fault := _usage_fault(destination, form, asked):
        print(f"magister export: {fault}", file=sys.stderr)
        return 2
    if destination.exists():
        raise ValueError(f"{destination} is there already; name another")
    config = weights.read_config(path)
    destination.parent.mkdir(parents=True, exist_ok=True)
    _clear(destination)
    _check_disk(destination.parent, export.bytes_needed(config, form, asked, _size(path)))
    with counted("tensors", len(list(native_parameters(build(config))))) as tick, _whole(destination) as new:
        tensors = weights.stream(path)
        if form is Layout.GGUF:
            counts = export.write_gguf(new, config, tensors, _metadata(path, config), asked, tick)
        else:
            new.mkdir()
            counts = export.write_folder(new, form, config, tensors, asked, tick)
            _companions(places.beside(path), new, form)
    _report(destination, form, config, counts)
    return 0


def _usage_fault(destination: Path, layout: Layout, asked: Type | None) -> str:
    """What is wrong with what was typed, in words; empty where nothing is."""
    if layout is Layout.GGUF and destination.suffix != SUFFIX:
        return f"{destination}: the name of a GGUF file ends in {SUFFIX}"
    if layout is not Layout.GGUF and asked is not None and asked not in export.FLOATS:
        return f"--type {asked} is for --layout gguf; {layout} takes {', '.join(export.FLOATS)}"
    return ""


def _check_disk(folder: Path, needed: int) -> None:
    free = free_disk(folder)
    if free < needed + SPARE:
        raise ValueError(f"{folder}: the export needs about {needed + SPARE:,} bytes of disk, {free:,} are free")


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.iterdir() if file.suffix in (".safetensors", SUFFIX))


def _metadata(path: Path, config: ModelConfig) -> dict[str, Value]:
    """What the GGUF says: the model, its tokenizer, and how it is spoken to."""
    beside = places.beside(path)
    tokenizer = compose.find_tokenizer(path, config)
    if tokenizer.size != config.decoder.vocab_size:
        raise ValueError(
            f"tokenizer: {tokenizer.size} tokens do not fit {config.decoder.vocab_size} rows of embeddings"
        )
    form = load_format(beside, tokenizer)
    vocabulary = llama_cpp.vocabulary(tokenizer)
    return {
        **gguf_files.metadata(config, form.name if (beside / "magister.json").is_file() else places.called(path)),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "tekken",
        "tokenizer.ggml.tokens": vocabulary.tokens,
        "tokenizer.ggml.token_type": vocabulary.kinds,
        "tokenizer.ggml.merges": vocabulary.merges,
        **_special(tokenizer),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": llama_cpp.chat_template(tokenizer, form),
    }


def _special(tokenizer: Tokenizer) -> dict[str, Value]:
    roles = {"bos": "<s>", "eos": "</s>", "unknown": "<unk>", "padding": "<pad>"}
    found = {role: tokenizer.find(name) for role, name in roles.items()}
    return {f"tokenizer.ggml.{role}_token_id": token for role, token in found.items() if token is not None}


def _companions(folder: Path, new: Path, layout: Layout) -> None:
    """Files beside the weights that say how the model is spoken to; for transformers also where an answer ends."""
    for name in COMPANIONS:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, new / name)
    ends = new / "generation_config.json"
    if layout is Layout.HF and not ends.is_file() and (folder / "tekken.json").is_file():
        tokenizer = load_tokenizer(folder / "tekken.json")
        ids = {"bos_token_id": tokenizer.id("<s>"), "eos_token_id": tokenizer.id("</s>")}
        ends.write_text(json.dumps(ids, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _whole(destination: Path) -> Iterator[Path]:
    """A name beside the destination to write to; it gets the destination's own at the end, or goes."""
    new = unfinished(destination, os.getpid())
    # Otherwise a process that is asked to end is gone at once, and what it wrote stays, as large as the model.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield new
        if destination.exists():
            raise ValueError(f"{destination} came to be there meanwhile; nothing was written")
        new.rename(destination)
        flush(destination.parent)
    finally:
        _remove(new)
        signal.signal(signal.SIGTERM, before)


def _remove(new: Path) -> None:
    if new.is_dir():
        shutil.rmtree(new)
    new.unlink(missing_ok=True)


def _clear(destination: Path) -> None:
    """Removes what exports to the same place left that were killed: as large as the model, and in nobody's way else."""
    for path in destination.parent.glob(f".{glob.escape(destination.name)}.*.tmp"):
        process = path.name.split(".")[-2]
        if process.isdigit() and path == unfinished(destination, int(process)) and not _runs(int(process)):
            _remove(path)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        # Somebody else's, or a number that no process has: not ours to judge.
        return True
    return True


def _report(destination: Path, layout: Layout, config: ModelConfig, counts: Counter[str]) -> None:
    size = destination.stat().st_size if destination.is_file() else _size(destination)
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    print(f"{destination}: {size:,} bytes; matrices: {kinds}")
    if layout is Layout.GGUF and config.vision is not None:
        print("The image encoder is not in it: llama.cpp keeps that in a file of its own, which is not written.")
