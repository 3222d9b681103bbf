"""What a request may ask for. Everything that passes here has an effect; everything else is refused by name.

Pure functions; nothing is allocated for a request that fails.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from magister.engine.vocabulary import Vocabulary
from magister.model.config import VisionConfig
from magister.types import OpenAt, Pixels, Prompt, Refused, Sampling, TooLong

_MOST_CHOICES = 64
_MOST_STOPS = 16
_MOST_ALTERNATIVES = 20
_LARGEST_PENALTY = 2.0
_LARGEST_BIAS = 1e30
"""Far past what decides alone, and far from where sums and quotients in float32 are infinite."""
_LONGEST_STOP = 1024
"""Bytes. A table as long is made for each choice, on the engine's thread."""
_SEEDS = (-(2**63), 2**63 - 1)
_FLOAT_BYTES = 4


def check_sampling(sampling: Sampling, vocabulary: Vocabulary) -> None:
    """`Refused` unless every field can be honoured."""
    s = sampling
    _require("temperature", 0 <= s.temperature < math.inf, f"{s.temperature} is not a finite number of at least 0")
    _require("top_p", 0 < s.top_p <= 1, f"{s.top_p} is not in (0, 1]")
    _require("top_k", s.top_k >= 0, f"{s.top_k} is less than 0")
    _require("min_p", 0 <= s.min_p < 1, f"{s.min_p} is not in [0, 1)")
    for name, penalty in (("frequency_penalty", s.frequency_penalty), ("presence_penalty", s.presence_penalty)):
        _require(
            name, abs(penalty) <= _LARGEST_PENALTY, f"{penalty} is not in [-{_LARGEST_PENALTY}, {_LARGEST_PENALTY}]"
        )
    _check_bias(s.logit_bias, vocabulary)
    if s.seed is not None:
        _require("seed", _SEEDS[0] <= s.seed <= _SEEDS[1], f"{s.seed} does not fit 64 bits")
    _require("n", 1 <= s.n <= _MOST_CHOICES, f"{s.n} is not between 1 and {_MOST_CHOICES}")
    least = 0 if s.prompt_logprobs else 1
    _require("max_tokens", s.max_tokens is None or s.max_tokens >= least, f"{s.max_tokens} is less than {least}")
    if s.thinking_tokens is not None:
        _require("thinking_tokens", vocabulary.think is not None, "this model has no thoughts to hold to a number")
        _require("thinking_tokens", s.thinking_tokens >= 0, f"{s.thinking_tokens} is less than 0")
    _check_stops(s.stop)
    allowed = 0 <= s.top_logprobs <= _MOST_ALTERNATIVES
    _require("top_logprobs", allowed, f"{s.top_logprobs} is not between 0 and {_MOST_ALTERNATIVES}")
    _require("top_logprobs", s.logprobs or not s.top_logprobs, f"{s.top_logprobs} asked for without logprobs")
    _require("prompt_logprobs", s.logprobs or not s.prompt_logprobs, "asked for without logprobs")
    _require("grammar", s.grammar is None or not s.ignore_end, "ends where it is complete, which ignore_end forbids")


def check_prompt(prompt: Prompt, vocabulary: Vocabulary, context: int, vision: VisionConfig | None) -> None:
    """`Refused` unless the prompt can be computed; `TooLong` unless it leaves at least one token of `context` free."""
    _require("ids", bool(prompt.ids), "a prompt has at least one token")
    if len(prompt.ids) >= context:
        raise TooLong(len(prompt.ids), context - 1)
    least, largest = min(prompt.ids), max(prompt.ids)
    _require("ids", least >= 0, _outside(least, vocabulary))
    _require("ids", largest < len(vocabulary.pieces), _outside(largest, vocabulary))
    _require(
        "open_at", prompt.open_at is not OpenAt.THOUGHT or vocabulary.think is not None, "this model has no thoughts"
    )
    if vision is None:
        _require("images", not prompt.images, "this model cannot see")
        return
    tokens = sum(_check_image(image, vision) for image in prompt.images)
    places = prompt.ids.count(vision.image_token_id)
    _require("images", tokens == places, f"they fill {tokens} tokens, the prompt has {places} image tokens")


def _check_image(image: Pixels, vision: VisionConfig) -> int:
    """The number of tokens that an image fills."""
    shape = f"{image.channels} x {image.height} x {image.width}"
    _require("images", image.channels == vision.num_channels, f"{shape}: must have {vision.num_channels} channels")
    for side in (image.height, image.width):
        fits = 0 < side <= vision.image_size and side % vision.token_pixels == 0
        limits = f"multiples of {vision.token_pixels} up to {vision.image_size}"
        _require("images", fits, f"{shape}: sides must be {limits}")
    size = _FLOAT_BYTES * image.channels * image.height * image.width
    _require("images", len(image.data) == size, f"{shape}: has {len(image.data)} bytes, must have {size}")
    return (image.height // vision.token_pixels) * (image.width // vision.token_pixels)


def _check_bias(biases: Mapping[int, float], vocabulary: Vocabulary) -> None:
    # There may be one for each token: words are made for what is refused only.
    for id_, bias in biases.items():
        if not 0 <= id_ < len(vocabulary.pieces):
            raise Refused("logit_bias", _outside(id_, vocabulary))
        if not abs(bias) <= _LARGEST_BIAS:
            raise Refused("logit_bias", f"{bias} of token {id_} is not within {_LARGEST_BIAS:g} of 0")


def _check_stops(stops: tuple[str, ...]) -> None:
    _require("stop", len(stops) <= _MOST_STOPS, f"{len(stops)} strings, at most {_MOST_STOPS} are allowed")
    for stop in stops:
        _require("stop", bool(stop), "an empty string would stop everything")
        lone = any("\ud800" <= character <= "\udfff" for character in stop)
        _require("stop", not lone, f"{stop!r} has a lone surrogate, which no text contains")
        size = len(stop.encode())
        _require("stop", size <= _LONGEST_STOP, f"a string has {size} bytes, at most {_LONGEST_STOP} are looked for")


def _outside(id_: int, vocabulary: Vocabulary) -> str:
    return f"token {id_} is not in the vocabulary of {len(vocabulary.pieces)}"


def _require(field: str, holds: bool, reason: str) -> None:
    if not holds:
        raise Refused(field, reason)
