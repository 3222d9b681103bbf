"""The models a server answers with, and which of them a name means.

A name means the model that has it, and no other. The one substitution there is was asked for by whoever started the
server (`--answer NAME=MODEL`), and every reply says so. Knows no dialect and no transport.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from magister.types import ChatModel, ChatRequest, Effort, TokenModel
from magister.wire.dialect import Asked, Card
from magister.wire.fault import Fault, Kind

MAGISTRAL_SMALL = "magistral-small-2509"
_MAGISTRAL_NAMES = frozenset(
    {"magistral-small", "magistral-small-latest", "magistral-small-1.2", "magistral-small-2509", "magistral small 1.2"}
)
_MEDIUM_NAMES = frozenset(
    {"magistral-medium", "magistral-medium-latest", "magistral-medium-1.2", "magistral-medium-2509"}
)
_PREFIXES = ("models/", "mistralai:", "mistralai/", "mistral/")


class TextTools(Protocol):
    """What a server needs of a model's tokenizer."""

    def encode(self, text: str, specials: bool) -> tuple[int, ...]:
        """Ids of a text; with `specials` the special tokens named in it are recognised, and it begins with <s>."""
        ...

    def token_bytes(self, ids: Sequence[int]) -> tuple[bytes, ...]:
        """What each token says; of a special one, its name. `ValueError` for an id that is none."""
        ...

    def plain(self, ids: Sequence[int], specials: bool) -> bytes:
        """What tokens say together; special ones say nothing, or with `specials` their names. Raises as above."""
        ...

    def count(self, request: ChatRequest) -> int:
        """Tokens of a request's prompt. Raises what the chat model would raise for it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Served:
    """One model, ready to answer."""

    card: Card
    chat: ChatModel
    tokens: TokenModel | None = None
    """For plain completions; None where there is only a chat model."""
    text: TextTools | None = None
    """None where tokens cannot be counted here."""
    longest: int = 0
    """Bytes of the longest token; 0 where that is not known."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Sampling` that a client did not set, by name."""


@dataclass(frozen=True)
class Resolved:
    """What a name came to."""

    served: Served
    effort: Effort | None = None
    """From a suffix of the name, `nano:high`."""
    instead_of: str = ""
    """The name that was asked for, where another model answers by the operator's wish."""


class NoModel(LookupError):
    """No model of that name is loaded."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(kind=Kind.NO_MODEL, message=message, field="model")


def canonical(name: str) -> str:
    """A name without the prefixes that providers put before it; the names of one release become one."""
    plain = name.strip().casefold()
    shortened = True
    while shortened:
        shortened = False
        for prefix in _PREFIXES:
            if plain.startswith(prefix):
                plain, shortened = plain[len(prefix) :], True
    return MAGISTRAL_SMALL if plain in _MAGISTRAL_NAMES else plain


class Models:
    """Every model that is served."""

    def __init__(self, served: Sequence[Served], answers: Mapping[str, str] | None = None) -> None:
        """`answers`: names to the names of the models that answer for them. ValueError where those are not there."""
        self.served = tuple(served)
        self._by_name: dict[str, Served] = {}
        for one in served:
            for name in (one.card.name, *one.card.aliases):
                self._by_name.setdefault(canonical(name), one)
        self._answers: dict[str, Served] = {}
        for name, model in (answers or {}).items():
            if canonical(model) not in self._by_name:
                raise ValueError(f"--answer {name}={model}: {model!r} is not served; served: {self._names()}")
            if canonical(name) in self._by_name:
                raise ValueError(f"--answer {name}={model}: {name!r} is served itself")
            self._answers[canonical(name)] = self._by_name[canonical(model)]

    @property
    def cards(self) -> tuple[Card, ...]:
        """What lists of models show."""
        return tuple(one.card for one in self.served)

    def resolve(self, name: str) -> Resolved:
        """The model that a name means; the only one where the name is empty. Raises `NoModel`."""
        if not name and len(self.served) == 1:
            return Resolved(self.served[0])
        for plain, effort in _readings(name):
            key = canonical(plain)
            if key in self._by_name:
                return Resolved(self._by_name[key], effort)
            if key in self._answers:
                return Resolved(self._answers[key], effort, instead_of=plain)
        raise NoModel(self._missing(name))

    def _missing(self, name: str) -> str:
        plain = canonical(name.rpartition(":")[0] if ":" in name and canonical(name) not in _MEDIUM_NAMES else name)
        for key in (canonical(name), plain):
            if key == MAGISTRAL_SMALL:
                return (
                    f"model {name!r} is not loaded here; load it with "
                    "`magister pull magistral-small-2509 --bits 4` and `magister serve --model magistral-small-2509`, "
                    f"or let another answer: `magister serve --answer {name}=nano`. Loaded: {self._names()}"
                )
            if key in _MEDIUM_NAMES:
                return (
                    f"model {name!r}: the weights of Magistral Medium were never published, so nobody can load it; "
                    f"`magister serve --answer {name}=nano` lets another answer. Loaded: {self._names()}"
                )
        return f"model {name!r} is not loaded here. Loaded: {self._names()}"

    def _names(self) -> str:
        return ", ".join(one.card.name for one in self.served) or "none"


def _readings(name: str) -> list[tuple[str, Effort | None]]:
    """The name as it is, then what is left of it before a suffix that names an effort."""
    readings: list[tuple[str, Effort | None]] = [(name, None)]
    plain, colon, suffix = name.rpartition(":")
    if colon and suffix.casefold() in set(Effort):
        readings.append((plain, Effort(suffix.casefold())))
    return readings


def settle(asked: Asked, resolved: Resolved, *, keep_thinking: bool) -> ChatRequest:
    """The request as the model is to have it: its own defaults where the client set nothing, the suffix's effort.

    An effort in the body wins over the suffix's; a number of tokens wins over both.
    """
    chat = asked.chat
    own = {name: value for name, value in resolved.served.defaults.items() if name not in asked.given}
    sampling = msgspec.structs.replace(chat.sampling, **own) if own else chat.sampling
    return msgspec.structs.replace(
        chat,
        model=resolved.served.card.name,
        sampling=sampling,
        effort=chat.effort or resolved.effort,
        keep_thinking=chat.keep_thinking and keep_thinking,
    )
