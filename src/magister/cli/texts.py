"""A model's tokenizer as a server wants it: text to ids, ids to bytes, tokens of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from magister.chat import LocalChat
from magister.text.tokenizer import Tokenizer
from magister.types import ChatRequest


@dataclass(frozen=True)
class Texts:
    """See `server.models.TextTools`."""

    tokenizer: Tokenizer
    chat: LocalChat

    def encode(self, text: str, specials: bool) -> tuple[int, ...]:
        """Ids of a text, never special ones but, with `specials`, <s> before it."""
        ids = self.tokenizer.encode_text(text)
        return (self.tokenizer.id("<s>"), *ids) if specials else ids

    def token_bytes(self, ids: Sequence[int]) -> tuple[bytes, ...]:
        """What each token says; of a special one, its name. ValueError for an id that is none."""
        size = self.tokenizer.size
        for at, id_ in enumerate(ids):
            if not 0 <= id_ < size:
                raise ValueError(f"tokens[{at}]: must be from 0 to {size - 1}, got {id_}")
        return tuple(
            self.tokenizer.token_name(id_).encode()
            if self.tokenizer.is_special(id_)
            else self.tokenizer.token_bytes(id_)
            for id_ in ids
        )

    def plain(self, ids: Sequence[int], specials: bool) -> bytes:
        """What tokens say together; special ones say nothing, or with `specials` their names."""
        said = self.token_bytes(ids)
        if not specials:
            said = tuple(b"" if self.tokenizer.is_special(id_) else one for id_, one in zip(ids, said, strict=True))
        return b"".join(said)

    def count(self, request: ChatRequest) -> int:
        """Tokens of a request's prompt."""
        return self.chat.count(request)
