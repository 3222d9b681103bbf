"""The formats of Magistral: how a thought is written, whether images are read, what the model is told at first.

The three differ in the tokenizer, so the tokenizer tells them apart, never the model's name:

| format | [THINK] is a token | has an image section | thoughts | images |
|---|---|---|---|---|
| 2506 | no | - | text between `<think>` and `</think>` | no |
| 2507 | yes | no | tokens | no |
| 2509 | yes | yes | tokens | yes |

A checkpoint folder may say more in `magister.json`, next to `params.json`; every key is optional and no other is
allowed:

    {
      "name": "nano",             what the model is called
      "system_prompt": "",        its reasoning instruction; [THINK]...[/THINK] in it marks a thought, "" is none
      "context": 4096,            tokens of prompt and answer it is meant for
      "temperature": 0.7,         how it is sampled where nobody says otherwise
      "top_p": 0.95,
      "description": "..."        one line for people
    }

Without that key the instruction is that of `SYSTEM_PROMPT.txt`, where the folder has this file, else the official one
of the format. Knows nothing of requests.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from magister.text.tokenizer import Tokenizer
from magister.types import Sampling, Text, Thinking

OPEN_TAG, CLOSE_TAG = "<think>", "</think>"
"""Of a thought written as text."""

_THINKING = (
    Text(
        "First draft your thinking process (inner monologue) until you arrive at a response. Format your response "
        "using Markdown, and use LaTeX for any mathematical equations. Write both your thoughts and the response in "
        "the same language as the input.\n\nYour thinking process must follow the template below:"
    ),
    Thinking(
        "Your thoughts or/and draft, like working through an exercise on scratch paper. Be as casual and as long as "
        "you want until you are confident to generate the response. Use the same language as the input."
    ),
    Text("Here, provide a self-contained response."),
)

_THINKING_2506 = (
    Text(
        "A user will ask you to solve a task. You should first draft your thinking process (inner monologue) until "
        "you have derived the final answer. Afterwards, write a self-contained summary of your thoughts (i.e. your "
        "summary should be succinct but contain all the critical steps you needed to reach the conclusion). You "
        "should use Markdown to format your response. Write both your thoughts and summary in the same language as "
        "the task posed by the user. NEVER use \\boxed{} in your response.\n\nYour thinking process must follow the "
        "template below:\n<think>\nYour thoughts or/and draft, like working through an exercise on scratch paper. Be "
        "as casual and as long as you want until you are confident to generate a correct answer.\n</think>\n\nHere, "
        "provide a concise summary that reflects your reasoning and presents a clear final answer to the user. Don't "
        "mention that this is a summary."
    ),
)


class Tags(StrEnum):
    """How the ends of a thought are written."""

    TOKENS = "tokens"
    """[THINK] and [/THINK], special tokens that no text can imitate."""
    TEXT = "text"
    """`<think>` and `</think>`, plain text."""


OFFICIAL_SAMPLING = Sampling(temperature=0.7, top_p=0.95)
"""What the model cards of all releases advise."""


@dataclass(frozen=True)
class Format:
    """How one model is spoken to."""

    name: str
    """2506, 2507, 2509, or what `magister.json` says."""
    tags: Tags
    images: bool
    """Whether images are read."""
    instruction: tuple[Text | Thinking, ...] = ()
    """How to think and answer, said first of all; empty for a model that needs no telling."""
    closing: str = ""
    """What ends the system prompt, after the user's own."""
    context: int = 131_072
    """Tokens of prompt and answer it is meant for."""
    description: str = ""
    """One line for people."""
    sampling: Sampling = OFFICIAL_SAMPLING
    """How the model is sampled where nobody says otherwise."""


def detect_format(tokenizer: Tokenizer) -> Format:
    """The format a tokenizer is made for, with its official instruction."""
    if tokenizer.find("[THINK]") is None or tokenizer.find("[/THINK]") is None:
        return Format("2506", Tags.TEXT, False, _THINKING_2506, "Problem:\n\n", 40_960)
    if tokenizer.image is None:
        return Format("2507", Tags.TOKENS, False, _THINKING, context=40_960)
    return Format("2509", Tags.TOKENS, True, _THINKING)


def load_format(folder: Path, tokenizer: Tokenizer) -> Format:
    """The format of a checkpoint folder: the tokenizer's, and what the folder says of itself."""
    form = detect_format(tokenizer)
    prompt = folder / "SYSTEM_PROMPT.txt"
    if prompt.is_file():
        form = _told(form, prompt.read_text(encoding="utf-8"))
    card = folder / "magister.json"
    return _with_card(form, card) if card.is_file() else form


def read_instruction(prompt: str) -> tuple[Text | Thinking, ...]:
    """A reasoning instruction written as text, [THINK]...[/THINK] in it as a thought; never used on a user's text."""
    before, opened, rest = prompt.partition("[THINK]")
    thought, closed, after = rest.partition("[/THINK]")
    if bool(opened) != bool(closed) or "THINK]" in before + after:
        raise ValueError("system_prompt: needs [THINK] and then [/THINK], once each, or neither")
    parts = (Text(before), Thinking(thought), Text(after))
    return tuple(part for part in parts if part.text)


def _told(form: Format, prompt: str) -> Format:
    """The format with another instruction; the format's closing words still come last, if they are the prompt's."""
    instruction, closing, blank = prompt.rpartition(form.closing.strip()) if form.closing else ("", "", "")
    if closing and not blank.strip() and instruction.endswith("\n\n"):
        return replace(form, instruction=read_instruction(instruction[:-2]), closing=closing + blank)
    return replace(form, instruction=read_instruction(prompt), closing="")


def _with_card(form: Format, path: Path) -> Format:
    """The format with what a `magister.json` changes in it."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "name": str,
        "system_prompt": str,
        "context": int,
        "temperature": (int, float),
        "top_p": (int, float),
        "description": str,
    }
    try:
        card: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON: {error}") from error
    if not isinstance(card, dict):
        raise ValueError(f"{path}: must hold a JSON object")
    for key, value in card.items():
        if key not in kinds:
            raise ValueError(f"{path}: {key} is none of {', '.join(kinds)}")
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            kind = kinds[key]
            raise ValueError(f"{path}: {key} must be of type {kind.__name__ if isinstance(kind, type) else 'number'}")
    if card.get("context", 1) < 1:
        raise ValueError(f"{path}: context must be at least 1")
    temperature, top_p = card.pop("temperature", form.sampling.temperature), card.pop("top_p", form.sampling.top_p)
    if not (0 <= temperature < math.inf and 0 < top_p <= 1):
        raise ValueError(f"{path}: needs temperature >= 0 and top_p in (0, 1], has {temperature} and {top_p}")
    form = replace(form, sampling=Sampling(temperature=float(temperature), top_p=float(top_p)))
    prompt = card.pop("system_prompt", None)
    if prompt is not None:
        form = _told(form, prompt)
    return replace(form, **card)
