"""What quantising costs in quality, ours beside llama.cpp's Q4_0 and Q8_0, as one JSON line a row.

All methods meet the same network in float32, restored matrices in the place of the originals, so that only the weights
differ; llama.cpp's rules are those of the `gguf` package. Two things are measured on held-out problems: the distance of
the distributions (mean KL divergence a token from the unquantised network's, over the thoughts and replies of the task
families), and the share of right answers, greedily.

How far one rounding of one network is off is largely chance, several percent of the figure. So the distance is taken
over several networks that compute the same function: their channels stand in another order, and therefore fall into
other groups.

    python bench/quality.py                       the distances
    python bench/quality.py --answers 100         and the share of right answers, some minutes a method
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import torch
from gguf import quants
from torch import Tensor

from magister.cli import compose
from magister.cli.placement import Placement
from magister.cli.places import find
from magister.evals.pass_at_1 import measure, problems
from magister.kernels.quantized import dequantize
from magister.model import weights
from magister.model.attention import CausalAttention
from magister.model.config import DecoderConfig
from magister.model.network import Model, native_parameters
from magister.model.quantize import Plan, quantize
from magister.model.quantized_files import COMPANIONS
from magister.tasks import FAMILIES, HONEST
from magister.text.formats import load_format
from magister.text.render import Renderer
from magister.text.tokenizer import load_tokenizer
from magister.types import ChatRequest, Message, Role, Text, Thinking, user

Weights = dict[str, Tensor]
ROW_TOKENS = 2048
"""Tokens a pass."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to quantise."""

    name: str
    bits: float
    """A weight of the decoder's matrices takes, scales included."""
    apply: Callable[[str, Tensor], Tensor]
    """The matrix with this native name as it is after quantising; others as they are."""


def ours(plan: Plan) -> Method:
    """Magister's own, with its head."""

    def apply(name: str, w_oi: Tensor) -> Tensor:
        rule = plan.rule(name)
        return w_oi if rule is None else dequantize(quantize(w_oi, rule))

    bits = plan.bits + (32 if plan.minimum else 16) / plan.group
    return Method(f"int{plan.bits} g{plan.group}{' minimum' if plan.minimum else ''}", bits, apply)


def llama_cpp(kind: str, head: str) -> Method:
    """llama.cpp's `kind` for the decoder's matrices and `head` for the output head."""
    decoder = Plan(head_bits=16)

    def apply(name: str, w_oi: Tensor) -> Tensor:
        chosen = head if name == "output.weight" else kind if decoder.rule(name) else ""
        if not chosen:
            return w_oi
        code = gguf.GGMLQuantizationType[chosen]
        return torch.from_numpy(quants.dequantize(quants.quantize(w_oi.numpy(), code), code))

    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    return Method(kind, 8 * size / block, apply)


def methods() -> list[Method]:
    """All that are compared. Heads have 8 bits, in groups of 32, in every one."""
    plans = [Plan(group=group) for group in (16, 32, 64, 128)]
    plans += [Plan(group=group, minimum=True) for group in (32, 64, 128)]
    plans += [Plan(bits=8, group=group) for group in (32, 64, 128)]
    theirs = [llama_cpp(kind, "Q8_0") for kind in ("Q4_0", "Q4_1", "Q8_0")]
    return [*theirs, *map(ours, plans)]


def reordered(tensors: Mapping[str, Tensor], config: DecoderConfig, seed: int) -> Weights:
    """Weights of a network that computes the same; seed 0 leaves them alone.

    The residual stream's channels, those of each feed-forward block, and those of each value head change places.
    """

    def order(count: int, *key: int) -> Tensor:
        if seed == 0:
            return torch.arange(count)
        number = sum(part * 1000**place for place, part in enumerate((seed, *key)))
        return torch.randperm(count, generator=torch.Generator().manual_seed(number))

    def values(layer: int, heads: int) -> Tensor:
        inside = order(config.head_dim, layer, 2)
        return (torch.arange(heads)[:, None] * config.head_dim + inside).flatten()

    stream = order(config.dim, 0, 0)
    changed: Weights = {}
    for name, tensor in tensors.items():
        layer = int(name.split(".")[1]) if name.startswith("layers.") else -1
        if name.endswith("norm.weight"):
            changed[name] = tensor[stream]
        elif name.endswith(".w2.weight"):
            changed[name] = tensor[stream][:, order(config.hidden_dim, layer, 1)]
        elif name.endswith(".wo.weight"):
            changed[name] = tensor[stream][:, values(layer, config.n_heads)]
        elif name.endswith((".w1.weight", ".w3.weight")):
            changed[name] = tensor[order(config.hidden_dim, layer, 1)][:, stream]
        elif name.endswith(".wv.weight"):
            changed[name] = tensor[values(layer, config.n_kv_heads)][:, stream]
        else:
            changed[name] = tensor[:, stream]
    return {name: tensor.contiguous() for name, tensor in changed.items()}


@dataclass(frozen=True, slots=True)
class Row:
    """Conversations end to end."""

    ids: Tensor
    positions: Tensor
    lengths: list[int]
    said: Tensor
    """Where the next token is one of the model's own."""


def rows(folder: Path, problems_each: int, context: int) -> list[Row]:
    """Held-out problems of every family with the thought and reply that are taught for them."""
    tokenizer = load_tokenizer(folder / "tekken.json")
    renderer = Renderer(tokenizer, load_format(folder, tokenizer))
    packed: list[list[tuple[tuple[int, ...], int]]] = [[]]
    for family in FAMILIES:
        for problem in problems(family, problems_each, 0, "held_out"):
            prompt = renderer.render(ChatRequest(messages=(user(problem.prompt),))).ids
            thought = (Thinking(problem.thinking),) if problem.thinking else ()
            reply = renderer.reply(Message(Role.ASSISTANT, (*thought, Text(problem.reply))))
            ids = (*prompt, *reply)[:context]
            if sum(len(other) for other, _ in packed[-1]) + len(ids) > ROW_TOKENS:
                packed.append([])
            packed[-1].append((ids, len(prompt)))
    return [_row(conversations) for conversations in packed]


def _row(conversations: list[tuple[tuple[int, ...], int]]) -> Row:
    lengths = [len(ids) for ids, _ in conversations]
    places = [torch.arange(length) for length in lengths]
    said = [
        (place >= prompt - 1) & (place < length - 1)
        for place, length, (_, prompt) in zip(places, lengths, conversations, strict=True)
    ]
    flat = [token for ids, _ in conversations for token in ids]
    return Row(torch.tensor(flat), torch.cat(places), lengths, torch.cat(said))


@torch.inference_mode()
def _distributions(model: Model, texts: list[Row]) -> Iterator[Tensor]:
    """Log-probabilities [said, v] of each row."""
    for row in texts:
        hidden_td = model(row.ids, row.positions, CausalAttention(row.lengths))[row.said]
        yield torch.log_softmax(model.logits(hidden_td), dim=-1)


@dataclass(frozen=True, slots=True)
class Distance:
    """From the unquantised network."""

    kl: float
    """Nats a token, mean."""
    changed: float
    """Share of tokens whose most probable follower is another."""


def distance(model: Model, texts: list[Row], expected: list[Tensor]) -> Distance:
    """Of `model` from the network whose log-probabilities are `expected`."""
    kl, changed, count = 0.0, 0, 0
    for p_tv, q_tv in zip(expected, _distributions(model, texts), strict=True):
        kl += float((p_tv.exp() * (p_tv - q_tv)).sum())
        changed += int((p_tv.argmax(-1) != q_tv.argmax(-1)).sum())
        count += len(p_tv)
    return Distance(kl / count, changed / count)


@torch.no_grad()
def put(model: Model, tensors: Mapping[str, Tensor], method: Method | None) -> float:
    """Gives the model these weights, quantised by `method`; returns the relative error of what was quantised."""
    error = total = 0.0
    for name, parameter in native_parameters(model):
        made = tensors[name] if method is None else method.apply(name, tensors[name])
        if made is not tensors[name]:
            error += float((made - tensors[name]).square().sum())
            total += float(tensors[name].square().sum())
        parameter.copy_(made)
    return math.sqrt(error / total) if total else 0.0


def distances(folder: Path, chosen: list[Method], problems_each: int, networks: int) -> None:
    """Prints a line for each method and network, and one for each method's mean."""
    model = weights.load(folder, dtype=torch.float32)
    config = model.config.decoder
    original = {name: parameter.detach().clone() for name, parameter in native_parameters(model)}
    texts = rows(folder, problems_each, config.max_position_embeddings)
    expected = list(_distributions(model, texts))
    tokens = sum(map(len, expected))
    found: dict[str, list[float]] = {}
    for network in range(networks):
        tensors = reordered(original, config, network)
        for method in (None, *chosen):
            error, name = put(model, tensors, method), method.name if method else "none"
            measured = distance(model, texts, expected)
            found.setdefault(name, []).append(measured.kl)
            bits = method.bits if method else 32.0
            _say(
                what="distance",
                method=name,
                bits=bits,
                network=network,
                kl=measured.kl,
                changed=measured.changed,
                error=error,
                tokens=tokens,
            )
    for method in chosen:
        kls, against = found[method.name], found["Q8_0" if method.bits > 6 else "Q4_0"]
        ratio = statistics.mean(ours / theirs for ours, theirs in zip(kls, against, strict=True))
        _say(what="mean distance", method=method.name, bits=method.bits, kl=statistics.mean(kls), ratio=ratio)


def answers(folder: Path, chosen: list[Method], n: int, families: list[str], kernels: str) -> None:
    """Prints the share of right answers for the network as it is and for each method."""
    model = weights.load(folder, dtype=torch.float32)
    tensors = {name: parameter.detach().clone() for name, parameter in native_parameters(model)}
    for method in (None, *chosen):
        put(model, tensors, method)
        began, right, asked = time.monotonic(), {}, 0
        with tempfile.TemporaryDirectory() as made:
            weights.save_native(model, made)
            for companion in COMPANIONS:
                if (folder / companion).is_file():
                    shutil.copyfile(folder / companion, Path(made) / companion)
            loaded = compose.load(made, Placement(device="cpu", dtype="fp32", kv="fp32", kernels=kernels))
            try:
                for family in families:
                    held_out = problems(family, n, 0, "held_out")
                    report = asyncio.run(measure(loaded.chat, held_out, name=family))
                    right[family] = report.correct
                    asked += report.n
            finally:
                loaded.engine.close()
        _say(
            what="answers",
            method=method.name if method else "none",
            share=sum(right.values()) / asked,
            asked=asked,
            right=right,
            seconds=round(time.monotonic() - began, 1),
        )


def _say(**row: object) -> None:
    rounded = {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in row.items()}
    sys.stdout.write(json.dumps(rounded) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description="What quantising costs in quality.")
    known = {method.name: method for method in methods()}
    parser.add_argument("--model", default="nano", help="nano, or a checkpoint folder of floats, text only")
    parser.add_argument("--problems", type=int, default=15, help="held-out problems a family for the distances")
    parser.add_argument("--networks", type=int, default=1, help="networks of reordered channels to average over")
    parser.add_argument("--answers", type=int, default=0, help="held-out problems a family to answer; 0 for none")
    parser.add_argument("--family", action="append", choices=sorted(FAMILIES), help="to answer; default: all")
    parser.add_argument("--kernels", default="auto", help="for the answers: auto, torch, or an instruction set")
    parser.add_argument("--method", action="append", choices=sorted(known), help="default: all")
    asked = parser.parse_args()
    folder = find(asked.model)
    chosen = [known[name] for name in asked.method] if asked.method else list(known.values())
    torch.set_num_threads(1)
    if asked.networks:
        theirs = [method for name, method in known.items() if name in ("Q4_0", "Q8_0") and method not in chosen]
        distances(folder, [*theirs, *chosen], asked.problems, asked.networks)
    if asked.answers:
        families = asked.family or [family for family in FAMILIES if family not in HONEST]
        answers(folder, chosen, asked.answers, families, asked.kernels)
    return 0


if __name__ == "__main__":
    sys.exit(main())
