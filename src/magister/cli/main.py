"""The `magister` command. Each subcommand is a module; heavy imports happen inside the one that runs.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import typer

from magister.cli import serve_commands
from magister.cli.flags import Context, Device, Flags, KernelChoice, KeyValuePrecision, Precision, Speculation, Threads

app = typer.Typer(
    name="magister",
    add_completion=False,
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Train a model with Magister's own recipes.", no_args_is_help=True)
app.add_typer(train_app, name="train")
serve_commands.register(app)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """A self-hosted Magistral: reasoning you can read, on your own hardware."""
    if version:
        print(f"magister {metadata.version('magister')}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


@app.command()
def chat(
    prompt: Annotated[
        str | None,
        typer.Argument(help="What to ask. Without it: what comes from a pipe, or on a terminal a conversation."),
    ] = None,
    model: Annotated[str, typer.Option(help="nano, a pulled model's name, or the path of a checkpoint.")] = "nano",
    image: Annotated[list[Path] | None, typer.Option(help="An image file to show; may be repeated.")] = None,
    system: Annotated[
        str | None, typer.Option(help="A system message, added to the model's reasoning instruction.")
    ] = None,
    replace_system: Annotated[bool, typer.Option(help="Let --system replace the reasoning instruction.")] = False,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy. Default: the checkpoint's own.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling, in (0, 1].")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answer.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of thought and answer.")] = None,
    hide_thinking: Annotated[bool, typer.Option("--hide-thinking", help="Do not show the thought.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: Device = "auto",
    dtype: Precision = "auto",
    context: Context = None,
    kv: KeyValuePrecision = "auto",
    kernels: KernelChoice = "auto",
    threads: Threads = None,
    speculation: Speculation = 0,
) -> None:
    """Ask a model; watch it think."""
    from magister.cli import chat as command

    raise typer.Exit(
        command.run(
            command.ChatOptions(
                prompt=prompt,
                model=model,
                images=tuple(image or ()),
                system=system,
                replace_system=replace_system,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                max_tokens=max_tokens,
                hide_thinking=hide_thinking,
                json=json,
                placement=Flags(
                    device=device,
                    dtype=dtype,
                    context=context,
                    kv=kv,
                    kernels=kernels,
                    threads=threads,
                    speculation=speculation,
                ),
            )
        )
    )


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="nano, magistral-small, or the path of a checkpoint folder.")],
) -> None:
    """Show a checkpoint's architecture, parameters, tokenizer and memory plan, without loading it."""
    from magister.cli import inspect as command

    raise typer.Exit(command.run(path))


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="nano, a pulled model's name, or the path of a checkpoint.")] = "nano",
    n: Annotated[int, typer.Option(min=1, help="Problems a family.")] = 500,
    family: Annotated[list[str] | None, typer.Option(help="Only these families; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Of the problems.")] = 0,
    book: Annotated[Literal["held_out", "train"], typer.Option(help="Which phrasings.")] = "held_out",
    out: Annotated[
        Path | None, typer.Option(help="Write the table into this Markdown file, between its markers.")
    ] = None,
    misses: Annotated[Path | None, typer.Option(help="Write every wrong answer to this file (JSON lines).")] = None,
) -> None:
    """Measure greedy pass@1 on held-out problems of every family."""
    from magister.cli import evaluate as command

    raise typer.Exit(command.run(model, n, tuple(family or ()), seed, book, out, misses))


@app.command()
def export(
    source: Annotated[
        str, typer.Argument(help="nano, a checkpoint folder, or a GGUF file; quantised ones too.", metavar="SRC")
    ],
    destination: Annotated[Path, typer.Argument(help="What to write; must not exist.", metavar="DST")],
    layout: Annotated[
        Literal["hf", "native", "gguf"],
        typer.Option(help="For transformers and vLLM, for mistral-inference and vLLM, or for llama.cpp."),
    ],
    type: Annotated[
        Literal["f32", "f16", "bf16", "q8_0", "q4_0"] | None,
        typer.Option(help="Of the numbers. Default: as they are; quantised ones become bf16 outside GGUF."),
    ] = None,
) -> None:
    """Write a checkpoint in a layout that others load."""
    from magister.cli import export as command

    raise typer.Exit(command.run(source, destination, layout, type))


@app.command()
def pull(
    name: Annotated[
        str, typer.Argument(help="magistral-small-2509, -2507, -2506, or owner/name on the hub.", metavar="NAME")
    ],
    bits: Annotated[
        Literal["4", "8", "16"], typer.Option(help="Quantise while pulling; 16 leaves it as published.")
    ] = "16",
    to: Annotated[Path | None, typer.Option(help="The folder to make. Default: by name, on the shelf.")] = None,
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit. Default: the main branch.")] = None,
) -> None:
    """Fetch a model's weights, in fewer bits if asked; goes on where it was stopped."""
    from magister.cli.hub import pull as command

    raise typer.Exit(command.run(name, int(bits), to, revision))


@app.command()
def doctor(
    model: Annotated[
        str | None, typer.Argument(help="A model's name or path. Default: magistral-small and nano.", metavar="MODEL")
    ] = None,
    context: Annotated[int | None, typer.Option(min=2, help="Tokens there must be room for.")] = None,
) -> None:
    """Say what fits this machine, how fast it will be, and the command to type."""
    from magister.cli import doctor as command

    raise typer.Exit(command.run(model, context))


@app.command()
def verify(
    model: Annotated[str, typer.Argument(help="A model's name or path.", metavar="MODEL")],
    out: Annotated[
        Path | None, typer.Option(help="The report to write (Markdown). Default: verify-NAME.md, here.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="The original it was made from, to compare every tensor with.")
    ] = None,
) -> None:
    """Check weights: checksums, parity with transformers, probes of tokenizer and engine; write a report."""
    from magister.cli.verify import command

    raise typer.Exit(command.run(model, out, against))


@app.command()
def quantize(
    source: Annotated[
        str, typer.Argument(help="nano, or a checkpoint folder in native or Hugging Face layout.", metavar="SRC")
    ],
    destination: Annotated[
        Path, typer.Argument(help="The folder to write; goes on with one left unfinished.", metavar="DST")
    ],
    bits: Annotated[Literal["4", "8"], typer.Option(help="Of the decoder's matrices.")] = "4",
    group: Annotated[Literal["16", "32", "64", "128"], typer.Option(help="Inputs that share a scale.")] = "32",
    minimum: Annotated[
        bool, typer.Option("--minimum/--symmetric", help="Give each group of 4-bit numbers a minimum, too.")
    ] = False,
    head_bits: Annotated[
        Literal["4", "8", "16"], typer.Option(help="Of the output head; 16 leaves it as it is.")
    ] = "8",
) -> None:
    """Write a checkpoint in fewer bits: less memory, faster answers."""
    from magister.cli import quantize as command
    from magister.model.quantize import Plan

    try:
        plan = Plan(bits=int(bits), group=int(group), minimum=minimum, head_bits=int(head_bits))
    except ValueError as error:
        print(f"magister quantize: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    raise typer.Exit(command.run(source, destination, plan))


@train_app.command()
def sft(
    recipe: Annotated[str, typer.Argument(help="The recipe: nano.")],
    folder: Annotated[
        Path, typer.Option(help="Where checkpoints, log and result go; training resumes from it.")
    ] = Path("runs/nano"),
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to train on, padding included.")] = 80_000_000,
    warm: Annotated[str | None, typer.Option(help="Begin with these weights: nano, or a checkpoint folder.")] = None,
    rate_scale: Annotated[float, typer.Option(help="Factor on all learning rates; about 0.5 for a warm start.")] = 1.0,
    rows: Annotated[int, typer.Option(min=1, help="Rows of 1,024 tokens a batch.")] = 4,
    seed: Annotated[int, typer.Option(help="Of weights and data.")] = 0,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to train.")] = "cpu",
    compile: Annotated[
        bool,
        typer.Option(help="Compile the network: faster on CUDA and on CPUs with bfloat16 units, where it needs g++."),
    ] = False,
) -> None:
    """Train from scratch, or go on from where it stopped."""
    from magister.cli import train as command

    raise typer.Exit(command.run(recipe, folder, tokens, warm, rate_scale, rows, seed, device, compile))


def main() -> None:
    """The entry point: errors meant for users become one line and an exit code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"magister: {error}", file=sys.stderr)
        sys.exit(1)
