"""The body of plain Completions <-> `CompletionAsked`. Knows what of a request this server can honour."""

from __future__ import annotations

from typing import Any

import msgspec

from magister.types import Refused, Sampling
from magister.wire.fault import BadRequest
from magister.wire.openai_chat.ask import sampling_body
from magister.wire.openai_chat.body import StreamOptions
from magister.wire.openai_chat.request import ends_with_usage, sampling_of
from magister.wire.reading import decode, within

_MOST_PROMPTS = 128
_SAMPLING = {
    name: name
    for name in (
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "n",
        "seed",
        "max_tokens",
        "stop",
    )
} | {"ignore_end": "ignore_eos"}
_LOGPROBS = frozenset({"logprobs", "top_logprobs", "prompt_logprobs"})


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is asked for. Besides OpenAI's own: vLLM's `top_k`, `min_p`, `ignore_eos`, `return_token_ids`,
    `skip_special_tokens`.
    """

    model: str
    prompt: str | list[str | int | list[int]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    ignore_eos: bool | None = None
    return_token_ids: bool | None = None
    skip_special_tokens: bool | None = None
    user: str | None = None


BODY = Body
"""The type that bodies are read with."""


class CompletionAsked(msgspec.Struct, frozen=True, kw_only=True):
    """What a body asks for."""

    model: str
    prompts: tuple[str | tuple[int, ...], ...]
    sampling: Sampling
    given: frozenset[str]
    """Fields of `Sampling` that the client set, and `max_tokens`, for which this dialect has a default of its own."""
    stream: bool = False
    usage_at_end: bool = True
    """Streams: tell what it cost at the end."""
    echo: bool = False
    """Whether the prompt stands before each completion."""
    token_ids: bool = False
    """Whether ids are told, of the prompt and of what was said."""
    special_tokens: bool = False
    """Whether special tokens are shown in the text, by their names."""
    labels: dict[str, str] = {}


def read_request(body: bytes) -> CompletionAsked:
    """What a body asks for. Raises `BadRequest`."""
    said = decode(body, Body)
    if said.suffix:
        raise BadRequest("suffix", "this model writes forwards only")
    if said.best_of is not None and said.best_of != (said.n or 1):
        raise BadRequest("best_of", f"must be n, {said.n or 1}, got {said.best_of}: nothing is thrown away here")
    # OpenAI stops at 5; there is no reason to.
    within("logprobs", said.logprobs, 0, 20)
    # OpenAI writes 16 tokens where nobody says how many.
    sampling = {"max_tokens": 16} | sampling_of(said)
    if said.logprobs is not None:
        sampling |= {"logprobs": True, "top_logprobs": said.logprobs}
        if said.echo:
            sampling["prompt_logprobs"] = True
    return CompletionAsked(
        model=said.model,
        prompts=_prompts(said.prompt),
        sampling=Sampling(**sampling),
        given=frozenset(sampling),
        stream=bool(said.stream),
        usage_at_end=ends_with_usage(said.stream_options, bool(said.stream)),
        echo=bool(said.echo),
        token_ids=bool(said.return_token_ids),
        special_tokens=said.skip_special_tokens is False,
        labels={} if said.user is None else {"user": said.user},
    )


def _prompts(said: str | list[str | int | list[int]] | None) -> tuple[str | tuple[int, ...], ...]:
    """One text, one list of ids, or a list of either."""
    if said is None:
        raise BadRequest("prompt", "is required")
    if isinstance(said, str):
        return (said,)
    if not said:
        raise BadRequest("prompt", "must not be empty")
    ids = [one for one in said if isinstance(one, int)]
    if len(ids) == len(said):
        return (_ids(ids, "prompt"),)
    if len(said) > _MOST_PROMPTS:
        raise BadRequest("prompt", f"has {len(said)} prompts, at most {_MOST_PROMPTS} are taken")
    prompts: list[str | tuple[int, ...]] = []
    for at, one in enumerate(said):
        if isinstance(one, int):
            raise BadRequest(f"prompt[{at}]", "is a token's id among prompts; send ids only, or a list of prompts")
        prompts.append(one if isinstance(one, str) else _ids(one, f"prompt[{at}]"))
    return tuple(prompts)


def _ids(said: list[int], field: str) -> tuple[int, ...]:
    if not said:
        raise BadRequest(field, "must not be empty")
    for at, one in enumerate(said):
        if not 0 <= one < 1 << 31:
            raise BadRequest(f"{field}[{at}]", f"must be a token's id, got {one}")
    return tuple(said)


def write_request(asked: CompletionAsked) -> bytes:
    """The body. Raises `Refused` with the field."""
    sampling = asked.sampling
    body: dict[str, Any] = {
        "model": asked.model,
        "prompt": asked.prompts[0] if len(asked.prompts) == 1 else asked.prompts,
    }
    body |= sampling_body(sampling, asked.given - _LOGPROBS - {"logit_bias"}, _SAMPLING)
    if "logit_bias" in asked.given:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.prompt_logprobs != (asked.echo and sampling.logprobs):
        raise Refused("prompt_logprobs", "are told where the prompt is echoed with logprobs, and nowhere else")
    if sampling.logprobs:
        body["logprobs"] = sampling.top_logprobs
    if asked.stream:
        body |= {"stream": True, "stream_options": {"include_usage": asked.usage_at_end}}
    if asked.echo:
        body["echo"] = True
    if asked.token_ids:
        body["return_token_ids"] = True
    if asked.special_tokens:
        body["skip_special_tokens"] = False
    if "user" in asked.labels:
        body["user"] = asked.labels["user"]
    return msgspec.json.encode(body)
