"""`magister verify`: is a checkpoint whole, is it computed as transformers computes it, does it speak?

Weights are read tensor by tensor and compared layer by layer, so that a model larger than memory can be verified; what
needs all of it at once is not run where there is no room, and the report says so.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from magister.cli import places
from magister.cli.placement import is_small
from magister.cli.progress import counted
from magister.cli.verify import files, parity, probes, report, tensors
from magister.cli.verify.check import (
    PARITY,
    Check,
    Difference,
    faults,
    holds,
    skipped,
    summed,
    within,
    worst,
)
from magister.cli.verify.parity import Parity
from magister.model import weights
from magister.model.config import ModelConfig
from magister.model.network import Model, build, set_parameter

GREEDY = 16
"""Tokens that a small network and transformers' must agree on."""


def run(model: str, out: Path | None, against: str | None) -> int:
    """Verify, write the report, say the verdict; returns the exit code: 1 where a check failed, 2 where the report
    could not be written. ValueError for what is no checkpoint at all."""
    path = places.find(model)
    page = out or Path(f"verify-{places.called(path)}.md")
    if page.is_dir() or not os.access(page if page.exists() else page.parent, os.W_OK):
        print(f"magister verify: --out: {page} cannot be written", file=sys.stderr)
        return 2
    config = weights.read_config(path)
    second = _second(path, config, against)
    sections: dict[str, list[Check]] = {"Files": files.checks(path)}
    sections |= _weights(path, config, second)
    whole = not report.failed(sections)
    reference = _float32(path, config) if whole and is_small(config) else None
    if reference is not None and parity.missing() is None:
        sections["Parity with transformers"] += _as_one(path, reference)
    sections["Tokenizer"] = _tokenizer(path, config)
    ready = whole and not report.failed(sections)
    why = "something above failed"
    sections["Engine"] = probes.engine(path, reference) if ready else [skipped("engine", why)]
    bad = report.failed(sections)
    for check in bad:
        print(f"FAILED {check.name}: {check.figure} {check.bound}".rstrip())
    print(f"{model}: {report.verdict(sections)}", flush=True)
    page.write_text(report.render(model, path, config, sections), encoding="utf-8")
    print(f"the report is {page}")
    return 1 if bad else 0


def _second(path: Path, config: ModelConfig, against: str | None) -> tuple[str, tensors.Second] | None:
    """A second copy to compare with, and what to call it."""
    if against is not None:
        return f"as in {against}", tensors.original(places.find(against), config)
    own = tensors.second_layout(path, config)
    return None if own is None else ("both layouts in the folder", own)


def _weights(path: Path, config: ModelConfig, second: tuple[str, tensors.Second] | None) -> dict[str, list[Check]]:
    """Every tensor once: all there and finite, as in the second copy, each layer as transformers computes it."""
    wanted, wrong = tensors.shapes(config), list[str]()
    apart: list[Difference] = []
    parts: dict[str, dict[str, float]] = {}
    theirs = _parity(path, config)
    groups = {tensors.group_of(name) for name in wanted}
    try:
        with counted("verifying", len(groups)) as advance:
            for name, group in tensors.grouped(weights.stream(path), wanted, wrong):
                wrong += tensors.not_finite(group)
                if second is not None:
                    apart += tensors.compare(group, second[1])
                if isinstance(theirs, Parity):
                    for part, figures in theirs.compare(name, group).items():
                        parts.setdefault(part, {}).update(figures)
                advance()
    except ValueError as error:
        # A file that is damaged: the rest of it is not worth reading, but the report is.
        wrong.append(str(error))
    found = faults("tensors", wrong, f"{len(wanted)} of {len(wanted)} are there, finite, of the right shape")
    if second is not None:
        found += summed(f"rows {second[0]}", apart)
    compared = [worst(part, figures, PARITY) for part, figures in parts.items()]
    if isinstance(theirs, str):
        compared = [skipped("every layer", theirs)]
    return {"Weights": found, "Parity with transformers": compared}


def _parity(path: Path, config: ModelConfig) -> Parity | str:
    """transformers' side, or why there is none."""
    if (missing := parity.missing()) is not None:
        return missing
    try:
        return Parity(path, config)
    except ValueError as error:
        # No fault of the weights: transformers has no words for the network. Damaged files are found below.
        return str(error)


def _float32(path: Path, config: ModelConfig) -> Model:
    """The whole network in float32, quantised matrices restored."""
    network = build(config)
    for name, value in tensors.plain(dict(weights.stream(path))).items():
        # A copy: what the reader gives may be the file itself, mapped.
        set_parameter(network, name, value.clone())
    return network.eval()


def _as_one(path: Path, reference: Model) -> list[Check]:
    """The whole network beside transformers' own reading of the same files."""
    ids_t = torch.arange(1, 33) * 7919 % reference.config.decoder.vocab_size
    if (vision := reference.config.vision) is not None:
        special = (vision.image_token_id, vision.image_break_token_id, vision.image_end_token_id)
        ids_t[torch.isin(ids_t, torch.tensor(special))] = 1
    try:
        off, same = parity.compare_whole(path, reference, ids_t, GREEDY)
    except ValueError as error:
        return [skipped("whole network", str(error))]
    return [
        within("logits of the whole network", off, PARITY),
        holds("greedy tokens of the whole network", same == GREEDY, f"{same} of {GREEDY}", "all"),
    ]


def _tokenizer(path: Path, config: ModelConfig) -> list[Check]:
    try:
        return probes.tokenizer(path, config)
    except ValueError as error:
        return [holds("tokenizer", False, str(error))]
