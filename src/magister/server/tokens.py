"""Tokens by themselves: counting a prompt, text to ids, ids to text.

`/tokenize` and `/detokenize` are of no SDK; their bodies are vLLM's, so that tools written for it work. Knows no
tokenizer: it is handed one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from magister.server.faults import Rejected
from magister.server.models import Served, TextTools
from magister.types import ChatRequest
from magister.wire.fault import BadRequest, Fault, Kind
from magister.wire.reading import decode


class TokenizeBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `/tokenize` takes."""

    model: str = ""
    prompt: str | None = None
    add_special_tokens: bool = True
    return_token_strs: bool = False


class DetokenizeBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `/detokenize` takes."""

    tokens: list[int]
    model: str = ""


AT_ONCE = 16384
"""Bytes that are split into tokens before anybody notices. More of them are in a thread: all streams share one."""


def check_length(served: Served, texts: Iterable[str], field: str) -> None:
    """Raises `BadRequest` for what cannot fit however it is split, without splitting it: a prompt that fills a body
    takes many seconds.
    """
    size = sum(map(len, texts))
    if served.longest and size > served.longest * served.card.context:
        least = -(-size // served.longest)
        told = f"the prompt has {least} tokens or more, at most {served.card.context - 1} fit into the context"
        raise BadRequest(field, told, Kind.TOO_LONG)


def tokenize(body: bytes, find: Callable[[str], Served]) -> bytes:
    """Ids of a text. Raises `BadRequest`, `NoModel`, `Rejected`."""
    asked = decode(body, TokenizeBody)
    if asked.prompt is None:
        raise BadRequest("prompt", "is required")
    served = find(asked.model)
    tools = _tools(served)
    ids = tools.encode(asked.prompt, asked.add_special_tokens)
    reply: dict[str, object] = {"count": len(ids), "max_model_len": served.card.context, "tokens": ids}
    if asked.return_token_strs:
        reply["token_strs"] = [said.decode("utf-8", "replace") for said in tools.token_bytes(ids)]
    return msgspec.json.encode(reply)


def detokenize(body: bytes, find: Callable[[str], Served]) -> bytes:
    """The text of ids. Raises `BadRequest`, `NoModel`, `Rejected`."""
    asked = decode(body, DetokenizeBody)
    try:
        said = _tools(find(asked.model)).token_bytes(asked.tokens)
    except ValueError as error:
        raise BadRequest("tokens", str(error)) from None
    return msgspec.json.encode({"prompt": b"".join(said).decode("utf-8", "replace")})


def count(served: Served, request: ChatRequest) -> int:
    """Tokens of a request's prompt."""
    return _tools(served).count(request)


def _tools(served: Served) -> TextTools:
    """The model's tokenizer. Raises `Rejected` where it is not here."""
    if served.text is None:
        said = f"the tokenizer of {served.card.name} is not here, so its tokens cannot be counted"
        raise Rejected(Fault(kind=Kind.INVALID, message=said, field="model"))
    return served.text
