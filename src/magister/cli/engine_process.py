"""The engine's process: `python -m magister.cli.engine_process --model NAME --socket PATH`.

Loads a model and serves it on a socket until SIGTERM, or, with `--end-with-stdin`, until standard input ends: that is
how it notices that its parent is gone. Prints nothing but errors. Exit codes: 0 ended as asked, 1 failed, 2 the model
or the machine does not allow it, which is one line on standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from magister.cli.compose import Loaded
    from magister.cli.flags import Flags
    from magister.worker.frames import Hello

_SIGNAL_WITH_PARENT = 1
"""`PR_SET_PDEATHSIG` of Linux."""
_FLAGS: dict[str, type[int] | type[str]] = {
    "device": str,
    "dtype": str,
    "context": int,
    "kv": str,
    "kernels": str,
    "threads": int,
    "speculation": int,
}
"""Of `Placement`, as in `magister chat`."""


def command(model: str, path: Path, **how: Unpack[Flags]) -> list[str]:
    """The command line of such a process; None in `how` is `Placement`'s own choice.

    Imports nothing heavy, so that a server's own process stays light.
    """
    line = [sys.executable, "-m", "magister.cli.engine_process", "--model", model, "--socket", str(path)]
    for name, value in how.items():
        assert name in _FLAGS, name
        if value is not None:
            line += [f"--{name}", str(value)]
    return [*line, "--end-with-stdin"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Load, serve, end; returns the exit code."""
    options = _read(arguments)
    path: Path = options.socket
    if options.end_with_stdin:
        # Before loading, which may take minutes.
        _wake_with_parent()
        threading.Thread(target=_end_with_stdin, args=(path,), name="magister-parent", daemon=True).start()
    from magister.cli import compose
    from magister.cli.placement import Placement
    from magister.types import Sampling

    try:
        how = Placement(**{name: getattr(options, name) for name in _FLAGS if getattr(options, name) is not None})
        loaded = compose.load(options.model, how, own_process=True)
    except ValueError as error:
        return _refuse(error)
    # What llguidance must know of the vocabulary: now, rather than in the first request that wants JSON.
    loaded.engine.prepare(Sampling(grammar='start: ""'))
    # All that was loaded stays; looking through it for garbage would only cost steps.
    gc.collect()
    gc.freeze()
    try:
        asyncio.run(_serve(loaded, path))
    except ValueError as error:
        return _refuse(error)
    finally:
        loaded.engine.close()
    return 0


async def _serve(loaded: Loaded, path: Path) -> None:
    from magister.engine.serve import serving

    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with serving(loaded.engine, _hello(loaded), path):
        await told.wait()


def _hello(loaded: Loaded) -> Hello:
    from magister.worker.frames import Hello

    limits = loaded.engine.limits
    return Hello(
        name=loaded.name,
        context=loaded.context,
        vocabulary=loaded.tokenizer.size,
        kernels=loaded.kernels.description,
        card={
            "format": loaded.form.name,
            "description": loaded.form.description,
            "images": loaded.form.images,
            "made_for": loaded.form.context,
            "computes": loaded.kernels.name,
            "fallback": loaded.kernels.fallback,
            "running": limits.running,
            "waiting": limits.waiting,
            "blocks": limits.blocks,
            "block_size": limits.block_size,
            "speculation": limits.speculation,
        },
    )


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="engine_process", description="Serve one model on a local socket.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--socket", required=True, type=Path)
    parser.add_argument("--end-with-stdin", action="store_true")
    for name, kind in _FLAGS.items():
        parser.add_argument(f"--{name}", type=kind)
    return parser.parse_args(arguments)


def _refuse(error: ValueError) -> int:
    print(" ".join(str(error).split()), file=sys.stderr)
    return 2


def _wake_with_parent() -> None:
    """On Linux: a stopped process is continued when its parent is gone, so that it reads the end of its input.

    The kernel does so by itself for an orphaned process group, but not where the orphan's new parent is of the same
    session, as under a shell that is a container's first process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_WITH_PARENT, int(signal.SIGCONT))


def _end_with_stdin(path: Path) -> None:
    """In a thread: whoever waited for answers is gone, so there is nothing to end in order."""
    while os.read(0, 4096):
        pass
    path.unlink(missing_ok=True)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
