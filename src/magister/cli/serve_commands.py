"""The commands around the server: `serve`, `batch`, `keys`. Heavy imports happen inside the one that runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from magister.cli.flags import (
    Context,
    Device,
    Flags,
    KernelChoice,
    KeyValuePrecision,
    ModelOptions,
    Precision,
    Speculation,
    Threads,
)

keys_app = typer.Typer(help="Keys for a server that is not this machine's alone.", no_args_is_help=True)

Model = Annotated[str, typer.Option(help="nano, a pulled model's name, or the path of a checkpoint.")]
Name = Annotated[str, typer.Option(help="The name clients ask for it by. Default: its own.")]
Answers = Annotated[
    list[str] | None, typer.Option("--answer", help="NAME=MODEL: MODEL answers for NAME, and says so; repeatable.")
]
KeyFile = Annotated[Path, typer.Option(help="The file of keys.")]

Host = Annotated[str, typer.Option(help="Address to listen on; beyond this machine only with --keys.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")]
Keys = Annotated[Path | None, typer.Option(help="File of keys; see `magister keys`.")]
Origins = Annotated[
    list[str] | None,
    typer.Option("--origin", help="An origin whose pages may call; null is pages from files; repeatable."),
]
HostNames = Annotated[
    list[str] | None, typer.Option("--host-name", help="Another name this server may be addressed by; repeatable.")
]
DropThinking = Annotated[
    bool, typer.Option("--drop-thinking", help="Leave thoughts of earlier turns out of the prompt.")
]
Requests = Annotated[int, typer.Option(min=1, help="Requests answered at a time.")]

_MIB = 1024 * 1024


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(serve)
    app.command()(batch)
    app.add_typer(keys_app, name="keys")


def serve(
    model: Model = "nano",
    name: Name = "",
    host: Host = "127.0.0.1",
    port: Port = 8080,
    keys: Keys = None,
    origin: Origins = None,
    host_name: HostNames = None,
    answer: Answers = None,
    fetch_images: Annotated[bool, typer.Option("--fetch-images", help="Fetch images given by URL.")] = False,
    drop_thinking: DropThinking = False,
    max_requests: Requests = 512,
    max_body: Annotated[int, typer.Option(min=1, help="MiB of one request.")] = 32,
    max_images: Annotated[int, typer.Option(min=0, help="Images in one request.")] = 16,
    max_image: Annotated[int, typer.Option(min=1, help="MiB of one image.")] = 20,
    log_requests: Annotated[bool, typer.Option("--log-requests", help="One line a request; never its text.")] = False,
    device: Device = "auto",
    dtype: Precision = "auto",
    context: Context = None,
    kv: KeyValuePrecision = "auto",
    kernels: KernelChoice = "auto",
    threads: Threads = None,
    speculation: Speculation = 0,
) -> None:
    """Answer every SDK in its own dialect."""
    # Before the server is imported: that takes seconds.
    _check_is_there(model)
    from magister.cli import serve as command
    from magister.server.settings import Settings

    placement = Flags(
        device=device,
        dtype=dtype,
        context=context,
        kv=kv,
        kernels=kernels,
        threads=threads,
        speculation=speculation,
    )
    settings = Settings(
        body_bytes=max_body * _MIB,
        images=max_images,
        image_bytes=max_image * _MIB,
        fetch_images=fetch_images,
        in_flight=max_requests,
        keep_thinking=not drop_thinking,
        signing_key=_signing_key(),
    )
    options = command.ServeOptions(
        model=ModelOptions(model=model, name=name, answers=tuple(answer or ()), placement=placement),
        host=host,
        port=port,
        keys=keys,
        origins=tuple(origin or ()),
        host_names=tuple(host_name or ()),
        settings=settings,
        log_requests=log_requests,
    )
    raise typer.Exit(command.run(options))


def _check_is_there(model: str) -> None:
    from magister.cli.places import find

    try:
        find(model)
    except ValueError as error:
        print(f"magister serve: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def _signing_key() -> bytes:
    """The one that is kept; where it cannot be, a new one, and a line that says so."""
    import os

    from magister.cli.serving import signing_key

    try:
        return signing_key()
    except ValueError as error:
        print(f"magister serve: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except (OSError, RuntimeError) as error:
        told = "what this server signs (thoughts, guests' tokens) is good until it stops"
        print(f"magister serve: the signing key cannot be kept, so {told}: {error}", file=sys.stderr)
        return os.urandom(32)


def batch(
    source: Annotated[Path, typer.Argument(help="One request a line: custom_id, url, body.")],
    target: Annotated[Path, typer.Argument(help="Answers, one a line; what is there is not asked again.")],
    model: Model = "nano",
    name: Name = "",
    answer: Answers = None,
    concurrency: Requests = 32,
    device: Device = "auto",
    dtype: Precision = "auto",
    context: Context = None,
    kv: KeyValuePrecision = "auto",
    kernels: KernelChoice = "auto",
    threads: Threads = None,
    speculation: Speculation = 0,
) -> None:
    """Answer a file of requests, going on where it stopped."""
    from magister.cli import batch as command

    placement = Flags(
        device=device,
        dtype=dtype,
        context=context,
        kv=kv,
        kernels=kernels,
        threads=threads,
        speculation=speculation,
    )
    options = ModelOptions(model=model, name=name, answers=tuple(answer or ()), placement=placement)
    raise typer.Exit(
        command.run(command.BatchOptions(source=source, target=target, model=options, concurrency=concurrency))
    )


@keys_app.command("add")
def keys_add(name: Annotated[str, typer.Argument(help="Whose key it is.")], keys: KeyFile = Path("keys.json")) -> None:
    """Make a key and say it, this once."""
    from magister.server import keyfile

    try:
        print(keyfile.add(keys, name))
    except (ValueError, OSError) as error:
        print(f"magister keys add: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


@keys_app.command("list")
def keys_list(keys: KeyFile = Path("keys.json")) -> None:
    """Whose keys there are."""
    from magister.server import keyfile

    try:
        print("\n".join(keyfile.names(keys)))
    except ValueError as error:
        print(f"magister keys list: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


@keys_app.command("remove")
def keys_remove(
    name: Annotated[str, typer.Argument(help="Whose key it is.")], keys: KeyFile = Path("keys.json")
) -> None:
    """Let a key open nothing from the server's next start on."""
    from magister.server import keyfile

    try:
        keyfile.remove(keys, name)
    except (ValueError, OSError) as error:
        print(f"magister keys remove: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
