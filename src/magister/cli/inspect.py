"""`magister inspect`: what a checkpoint is and what it needs, without loading it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from magister.cli import compose, places
from magister.model import weights
from magister.model.config import MAGISTRAL_SMALL, ModelConfig
from magister.model.count import count_parameters, plan_memory
from magister.text.formats import load_format

GIB = 1 << 30


def run(path: str) -> int:
    """Print the report; returns the exit code."""
    console = Console(highlight=False)
    if path == "magistral-small":
        config = MAGISTRAL_SMALL
        tokenizer = "v13, from mistral-common's wheel"
    else:
        folder = places.find(path)
        config = weights.read_config(folder)
        found = compose.find_tokenizer(folder, config)
        beside = places.beside(folder)
        form = load_format(beside, found)
        origin = "tekken.json" if (beside / "tekken.json").is_file() else "none here: mistral-common's own"
        tokenizer = f"{found.version}, {found.size:,} tokens ({origin}); format {form.name}"
    console.print(_architecture(config, tokenizer))
    console.print(_parameters(config))
    console.print(_memory(config))
    return 0


def _architecture(config: ModelConfig, tokenizer: str) -> Table:
    d, v = config.decoder, config.vision
    table = Table(title="Architecture", show_header=False, title_justify="left")
    table.add_row("decoder", f"{d.n_layers} layers, width {d.dim}, feed-forward {d.hidden_dim}")
    table.add_row(
        "attention", f"{d.n_heads} query heads, {d.n_kv_heads} key/value heads of {d.head_dim}, rope {d.rope_theta:g}"
    )
    table.add_row("vocabulary", f"{d.vocab_size:,} rows, {'tied' if d.tied_embeddings else 'untied'} output head")
    table.add_row("context", f"{d.max_position_embeddings:,} tokens")
    if v is None:
        table.add_row("vision", "none")
    else:
        table.add_row(
            "vision",
            f"{v.num_hidden_layers} layers, width {v.hidden_size}, patches of {v.patch_size}, "
            f"images up to {v.image_size}",
        )
    table.add_row("tokenizer", tokenizer)
    return table


def _parameters(config: ModelConfig) -> Table:
    count = count_parameters(config)
    table = Table(title="Parameters", title_justify="left")
    table.add_column("part")
    table.add_column("count", justify="right")
    for name in ("embeddings", "layers", "output", "vision", "projector", "total"):
        table.add_row(name, f"{getattr(count, name):,}")
    return table


def _memory(config: ModelConfig) -> Table:
    plan = plan_memory(config)
    table = Table(title="Memory", title_justify="left")
    table.add_column("what")
    table.add_column("GiB", justify="right")
    for bits, size in plan.weights.items():
        table.add_row(f"weights at {bits} bit", f"{size / GIB:.2f}")
    for tokens, size in plan.cache.items():
        table.add_row(f"KV cache of {tokens:,} tokens, 16 bit", f"{size / GIB:.2f}")
    return table
