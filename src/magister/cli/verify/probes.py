"""Fixed probes of a checkpoint as it will be used: its tokenizer, and what the engine says, greedily and twice.

What must hold for any weights has a bound. Whether the answers are right says how good a model is, not whether it was
copied well; it is told.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import torch

from magister.cli import compose
from magister.cli.face import LocalModel
from magister.cli.fit import NoRoom
from magister.cli.verify.check import Check, faults, holds, skipped, told
from magister.model.attention import CausalAttention
from magister.model.config import ModelConfig
from magister.model.network import Model
from magister.text.tokenizer import Tokenizer
from magister.types import ChatRequest, Chunk, Prompt, Sampling, TextDelta, user

TEXTS = (
    "What is 17 * 24?",
    "  two spaces, a\ttab\nand a line",
    "Où est l'éléphant ? 123,456.78",
    "数学は楽しい",
    "🦣🧮",
)
"""Texts that must come back from tokens as they were."""

SPECIAL = ("<s>", "</s>", "[INST]", "[/INST]")

QUESTIONS = (
    ("What is 17 * 24?", "408"),
    ("What is 100 - 58?", "42"),
    ("Solve 3x + 5 = 20", "5"),
    ("What is 1/2 + 1/3?", "5/6"),
    ("Reverse the word river", "revir"),
)
"""Each with what a right answer contains."""

TOKENS = 24
"""That the engine says to each of the first questions."""

MOST = 1024
"""Tokens of thought and answer to each question at the most."""

PATIENCE = 60.0
"""Seconds for all questions together; what is not answered by then is not counted."""


class Said(NamedTuple):
    """What the engine said."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


def tokenizer(path: Path, config: ModelConfig) -> list[Check]:
    """Checks of the tokenizer beside a checkpoint. ValueError where there is none."""
    found = compose.find_tokenizer(path, config)
    changed = [f"{text!r} comes back as {back!r}" for text in TEXTS if (back := _and_back(found, text)) != text]
    lacking = [name for name in SPECIAL if found.find(name) is None]
    rows = config.decoder.vocab_size
    return [
        *faults("texts come back from tokens", changed, f"{len(TEXTS)} of {len(TEXTS)}"),
        *faults("special tokens", lacking, "all there"),
        holds("vocabulary", found.size <= rows, f"{found.size:,} tokens, {rows:,} rows", "tokens <= rows"),
    ]


def engine(path: Path, reference: Model | None) -> list[Check]:
    """Checks of what the engine says with this checkpoint. `reference` is the same network in float32, where that is
    small enough to compare with. Not run where the machine has no room."""
    try:
        loaded = compose.load(str(path))
    except NoRoom as error:
        return [skipped("engine", str(error))]
    with LocalModel(loaded) as model:
        prompts = [_prompt(model, question) for question, _ in QUESTIONS[:3]]
        alone = [asyncio.run(_say(model, [prompt]))[0] for prompt in prompts]
        again = asyncio.run(_say(model, prompts[:1]))[0]
        beside = asyncio.run(_say(model, prompts))
        finite = all(math.isfinite(value) and value <= 1e-6 for said in alone for value in said.logprobs)
        found = [
            told("computed by", loaded.kernels.description),
            holds("logprobs are finite", finite, f"{sum(len(said.ids) for said in alone)} tokens"),
            holds("the same question gives the same tokens", again.ids == alone[0].ids, _agreed([again], alone[:1])),
            holds("beside others as alone", [s.ids for s in beside] == [s.ids for s in alone], _agreed(beside, alone)),
        ]
        if reference is not None:
            off = max(_off(reference, prompt, said) for prompt, said in zip(prompts, alone, strict=True))
            found.append(told("logprobs beside the float32 network's, largest difference", f"{off:.1e} nats"))
        return [*found, *_questions(model)]


def _and_back(found: Tokenizer, text: str) -> str:
    return found.decode(found.encode_text(text))


def _prompt(model: LocalModel, question: str) -> Prompt:
    return model.loaded.chat.renderer.render(ChatRequest(messages=(user(question),)))


async def _say(model: LocalModel, prompts: Sequence[Prompt]) -> list[Said]:
    how = Sampling(temperature=0.0, max_tokens=TOKENS, ignore_end=True, logprobs=True)

    async def one(prompt: Prompt) -> Said:
        chunks: list[Chunk] = [chunk async for chunk in model.loaded.engine.generate(prompt, how)]
        ids = tuple(token for chunk in chunks for token in chunk.ids)
        return Said(ids, tuple(value for chunk in chunks for value in chunk.logprobs))

    return await asyncio.gather(*map(one, prompts))


@torch.inference_mode()
def _off(reference: Model, prompt: Prompt, said: Said) -> float:
    """The largest difference between a token's logprob and that under the float32 network."""
    ids_t = torch.tensor([*prompt.ids, *said.ids])
    hidden_td = reference(ids_t, torch.arange(len(ids_t)), CausalAttention())
    wanted_tv = reference.logits(hidden_td[len(prompt.ids) - 1 : -1]).log_softmax(-1)
    wanted_t = wanted_tv.gather(1, torch.tensor(said.ids)[:, None])[:, 0]
    return float((wanted_t - torch.tensor(said.logprobs)).abs().max())


def _agreed(found: Sequence[Said], wanted: Sequence[Said]) -> str:
    same = sum(a == b for one, two in zip(found, wanted, strict=True) for a, b in zip(one.ids, two.ids, strict=True))
    return f"{same} of {sum(len(said.ids) for said in wanted)} tokens"


def _questions(model: LocalModel) -> list[Check]:
    """How many of the questions that are answered in time are answered rightly."""
    until, right, asked = time.monotonic() + PATIENCE, 0, 0
    for question, wanted in QUESTIONS:
        said = asyncio.run(_answer(model, question, until))
        if said is None:
            break
        asked += 1
        right += wanted in said
    if not asked:
        return [skipped("fixed questions", f"no answer within {PATIENCE:.0f} s")]
    return [told("fixed questions", f"{right} of {asked} answered rightly")]


async def _answer(model: LocalModel, question: str, until: float) -> str | None:
    """The text of the greedy answer; None where it took too long."""
    words: list[str] = []
    async with aclosing(model.astream(question, temperature=0.0, max_tokens=MOST)) as events:
        async for event in events:
            if time.monotonic() > until:
                return None
            if isinstance(event, TextDelta):
                words.append(event.text)
    return "".join(words)
