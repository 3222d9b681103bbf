"""The token socket's values: a prompt, how to sample from it, and what each step gives.

Token in, token out: nothing here holds text but stop strings. Knows nothing of messages.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Pixels(msgspec.Struct, frozen=True):
    """One image ready for the vision encoder."""

    data: bytes
    """Float32, little endian, channels x height x width, normalised."""
    channels: int
    height: int
    """A multiple of patch size x merge size."""
    width: int
    """A multiple of patch size x merge size."""
    digest: str
    """Hex digest of shape and data: equal images share cached work."""


class OpenAt(StrEnum):
    """Where in the assistant's turn a prompt ends."""

    START = "start"
    """Before its first token."""
    THOUGHT = "thought"
    """Inside an open thought."""
    ANSWER = "answer"
    """Inside the answer, after any thought."""


class Prompt(msgspec.Struct, frozen=True):
    """What a token model continues."""

    ids: tuple[int, ...]
    images: tuple[Pixels, ...] = ()
    """In the order of their image tokens in `ids`."""
    open_at: OpenAt = OpenAt.START


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are drawn. Every field has an effect or is refused by the model it is sent to.

    Order: penalties and bias, temperature, then top_k, top_p and min_p on the result.
    """

    temperature: float = 0.7
    """0 is greedy."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with at least this mass; 1 keeps all."""
    top_k: int = 0
    """Keep the k likeliest; 0 keeps all."""
    min_p: float = 0.0
    """Drop tokens below this share of the likeliest one's probability."""
    frequency_penalty: float = 0.0
    """Subtracted from a logit once for every time the token was generated."""
    presence_penalty: float = 0.0
    """Subtracted once from the logit of every token generated before."""
    logit_bias: dict[int, float] = {}
    """Added to logits, by token id."""
    seed: int | None = None
    """Randomness is a function of (seed, choice, position); None draws a fresh seed."""
    n: int = 1
    """How many sequences of the one prompt."""
    max_tokens: int | None = None
    """Generated tokens at most; None up to the context's end."""
    thinking_tokens: int | None = None
    """Tokens between the tags at most, after which the end of the thought is forced; 0 forbids a thought. Where the
    reply would end sooner, so does the thought: a quarter of the reply, at most 512 tokens, is kept for the answer.
    """
    stop: tuple[str, ...] = ()
    """Generation ends before the first of these; compared on bytes."""
    ignore_end: bool = False
    """Go on past the end-of-turn token (for measurements)."""
    logprobs: bool = False
    top_logprobs: int = 0
    """Alternatives reported a token, 0 to 20; needs `logprobs`."""
    prompt_logprobs: bool = False
    """Report the prompt's own tokens as well; needs `logprobs`. Only with it may `max_tokens` be 0."""
    grammar: str | None = None
    """An llguidance grammar that the answer, not the thought, must follow."""


class FinishReason(StrEnum):
    """Why a sequence ended."""

    END = "end"
    """The model ended its turn."""
    STOP = "stop"
    """A stop string was found."""
    LENGTH = "length"
    """`max_tokens` or the context's end."""
    TOOL_CALLS = "tool_calls"
    """The model ended its turn with calls; given by chat models only."""
    REPETITION = "repetition"
    """A loop was found and cut."""
    ERROR = "error"
    """This sequence failed, others go on; `Chunk.error` says how."""

    @property
    def complete(self) -> bool:
        """Whether the model said all it meant to."""
        return self in (FinishReason.END, FinishReason.STOP, FinishReason.TOOL_CALLS)


class TokenLogprob(msgspec.Struct, frozen=True):
    """One alternative of one position."""

    id: int
    logprob: float
    """Natural logarithm, under the untouched distribution."""
    bytes: bytes = b""
    """What the token says, of a special one its name; filled in where tokens become text."""


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Wall-clock seconds of one sequence."""

    queued: float = 0.0
    """From arrival to the first step that worked on it."""
    prefill: float = 0.0
    """From there to the first token."""
    decode: float = 0.0
    """From the first token to the last."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """What one step gave one sequence; tuples run along `ids`."""

    choice: int = 0
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    """Under the model's untouched distribution."""
    sampled_logprobs: tuple[float, ...] = ()
    """Under the distribution drawn from, after penalties, temperature and truncation."""
    forced: tuple[bool, ...] = ()
    """True where a constraint put the token; never trained on."""
    version: int = 0
    """Of the weights that computed this step."""
    entropy: tuple[float, ...] | None = None
    """Of the untouched distribution, in nats; given with `logprobs`."""
    top: tuple[tuple[TokenLogprob, ...], ...] | None = None
    """Given where `top_logprobs` > 0."""
    prompt_logprobs: tuple[float, ...] | None = None
    """Of the prompt's tokens from the second on, as `logprobs`; in the first chunk of choice 0, where asked for."""
    prompt_top: tuple[tuple[TokenLogprob, ...], ...] | None = None
    """Alternatives to them, as `top`."""
    finish: FinishReason | None = None
    """Set in a sequence's last chunk."""
    trim: int = 0
    """Bytes at the end of this chunk's text that belong to the stop string (and what follows)."""
    stop: str | None = None
    """The stop string that was found."""
    error: str | None = None
    cached_tokens: int = 0
    """Prompt tokens that needed no computing; in the last chunk."""
    timings: Timings | None = None
    """In the last chunk."""
