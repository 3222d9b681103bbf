"""The `magister` command. Each subcommand is a module; heavy imports happen inside the one that runs.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    name="magister",
    add_completion=False,
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Train a model with Magister's own recipes.", no_args_is_help=True)
app.add_typer(train_app, name="train")


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
    model: Annotated[str, typer.Option(help="nano, or the path of a checkpoint folder.")] = "nano",
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
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    dtype: Annotated[Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="Of the weights.")] = "auto",
    context: Annotated[
        int | None, typer.Option(min=2, help="Tokens to make room for. Default: what the model and memory allow.")
    ] = None,
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
                device=device,
                dtype=dtype,
                context=context,
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
    model: Annotated[str, typer.Argument(help="nano, or the path of a checkpoint folder.")] = "nano",
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


@train_app.command()
def sft(
    recipe: Annotated[str, typer.Argument(help="The recipe: nano.")],
    folder: Annotated[
        Path, typer.Option(help="Where checkpoints, log and result go; training resumes from it.")
    ] = Path("runs/nano"),
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to train on, padding included.")] = 80_000_000,
    warm: Annotated[str | None, typer.Option(help="Begin with these weights: nano, or a checkpoint folder.")] = None,
    rate_scale: Annotated[float, typer.Option(help="Factor on all learning rates; about 0.5 for a warm start.")] = 1.0,
    rows: Annotated[int, typer.Option(min=1, help="Rows of 512 tokens a batch.")] = 8,
    seed: Annotated[int, typer.Option(help="Of weights and data.")] = 0,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to train.")] = "cpu",
    compile: Annotated[
        bool, typer.Option(help="Compile the network; faster on CUDA and on CPUs with bfloat16 units.")
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
