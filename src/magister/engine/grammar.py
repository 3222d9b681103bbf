"""Grammars that answers must follow: compiled once, followed token by token, said as masks over the vocabulary.

llguidance does the parsing; here is where in a reply it begins. A thought is free and comes before the grammar: where
the prompt leaves the turn at its start, the model may open a thought or begin at once, and what follows the thought's
end is the grammar's. In a thought that a grammar waits for no control token is said but the one that ends it, or the
reply could end, or call, around the grammar.

Masks rule tokens out and choose nothing: of several ways to spell what a grammar demands each remains possible. Knows
bytes and ids; no text, no tensors, no callers.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from enum import Enum, auto

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from magister.engine.vocabulary import Vocabulary
from magister.types import OpenAt, Refused

_KEPT = 32
"""Compiled grammars that are kept for the next request."""
_LARGEST = 1 << 20
"""Characters of a grammar."""
_PLAIN = '\n%llguidance {"no_forcing": true}\n'
"""Without it llguidance allows one spelling only of what must come, in tokens that it asks a tokenizer for."""
_LISTING = re.compile(r"\n(<state>|<non-verbose/>| +[0-9]+ \| ).*", re.DOTALL)
"""The grammar once more, or the inside of llguidance, at the end of some of its messages."""
_DEAD_ENDS = ("NoExtension", "NoExtensionBias")
"""What llguidance says where no token of the vocabulary goes on."""


class _At(Enum):
    """Where in its turn a reply is."""

    START = auto()
    THOUGHT = auto()
    ANSWER = auto()


_OPEN = {OpenAt.START: _At.START, OpenAt.THOUGHT: _At.THOUGHT, OpenAt.ANSWER: _At.ANSWER}


class Grammars:
    """Compiles grammars for one vocabulary; from any thread, and best not from the engine's."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Cheap: what llguidance must know of the vocabulary is worked out for the first grammar."""
        self._vocabulary = vocabulary
        self._lock = threading.Lock()
        self._tokens: tuple[LLTokenizer, bytes] | None = None
        self._known: OrderedDict[str, Grammar] = OrderedDict()

    def compile(self, text: str) -> Grammar:
        """The grammar that `text` is, in llguidance's Lark syntax or its JSON. `Refused` where it is none.

        A few milliseconds for most; nothing for one that was compiled not long ago.
        """
        with self._lock:
            if text in self._known:
                self._known.move_to_end(text)
                return self._known[text]
            if self._tokens is None:
                self._tokens = _tokenizer(self._vocabulary), _thought_mask(self._vocabulary)
            tokenizer, thought = self._tokens
        if len(text) > _LARGEST:
            raise Refused("grammar", f"has {len(text)} characters, at most {_LARGEST} are compiled")
        matcher = LLMatcher(tokenizer, _unforced(text), log_level=0, limits=LLParserLimits(verbose_errors=False))
        # The first mask is the slowest: it is computed here, where nobody waits for it.
        matcher.compute_bitmask()
        if matcher.is_error():
            raise Refused("grammar", _error(matcher))
        grammar = Grammar(matcher, self._vocabulary, thought)
        with self._lock:
            self._known[text] = grammar
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return grammar


class Grammar:
    """A compiled grammar."""

    def __init__(self, matcher: LLMatcher, vocabulary: Vocabulary, thought: bytes) -> None:
        """Made by `Grammars`."""
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._thought = thought

    def follow(self, open_at: OpenAt) -> Guide:
        """A guide through one reply to a prompt that ends there. On one thread at a time."""
        return Guide(self._matcher.deep_copy(), self._vocabulary, self._thought, open_at)


class Guide:
    """What one reply may say next, followed one token at a time."""

    def __init__(self, matcher: LLMatcher, vocabulary: Vocabulary, thought: bytes, open_at: OpenAt) -> None:
        """Made by `Grammar`; `matcher` is at the grammar's beginning, and nobody else's."""
        self._matcher = matcher
        self._think, self._end_think, self._end = vocabulary.think, vocabulary.end_think, vocabulary.end
        self._pieces = vocabulary.pieces
        self._thought = thought
        self._at = _At.ANSWER if vocabulary.think is None else _OPEN[open_at]

    @property
    def error(self) -> str | None:
        """Why the grammar cannot be followed any further; from then on nothing is allowed."""
        return f"the grammar cannot be followed: {_error(self._matcher)}" if self._matcher.is_error() else None

    def allowed(self) -> bytes:
        """Which tokens may come next: eight ids a byte, the lowest in the lowest bit."""
        if self._at is _At.THOUGHT:
            return self._thought
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            return bytes(len(mask))
        return mask if self._at is _At.ANSWER else self._or_think(mask)

    def along(self, draft: Sequence[int]) -> list[bytes]:
        """`allowed` now and after each token of `draft`, which must fit; nothing is followed for good."""
        masks = [self.allowed()]
        at, consumed = self._at, 0
        for id_ in draft:
            consumed += self._move(id_)
            masks.append(self.allowed())
        if consumed:
            self._matcher.rollback(consumed)
        self._at = at
        return masks

    def fit(self, draft: tuple[int, ...]) -> tuple[int, ...]:
        """The beginning of `draft` that may be said; without the token that ends the turn, behind which nothing is."""
        at = self._at
        for place, id_ in enumerate(draft):
            if at is _At.START and id_ == self._think:
                at = _At.THOUGHT
            elif at is not _At.THOUGHT:
                rest = draft[place:]
                rest = rest[: rest.index(self._end)] if self._end in rest else rest
                return draft[: place + self._matcher.validate_tokens(list(rest))]
            elif id_ == self._end_think:
                at = _At.ANSWER
            elif not self._pieces[id_]:
                return draft[:place]
        return draft

    def push(self, id_: int) -> None:
        """Follows one generated token."""
        if id_ != self._end:
            self._move(id_)

    def _move(self, id_: int) -> bool:
        """Follows a token; whether it was the grammar's."""
        if self._at is _At.THOUGHT:
            if id_ == self._end_think:
                self._at = _At.ANSWER
            return False
        if self._at is _At.START and id_ == self._think:
            self._at = _At.THOUGHT
            return False
        self._at = _At.ANSWER
        return self._matcher.consume_token(id_)

    def _or_think(self, mask: bytes) -> bytes:
        assert self._think is not None
        wider = bytearray(mask)
        wider[self._think // 8] |= 1 << self._think % 8
        return bytes(wider)


class _Tokens:
    """A vocabulary as llguidance's wrapper takes one: control tokens have names that no text is."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = vocabulary.end
        self.bos_token_id = None
        self.tokens = [piece or f"<|{id_}|>".encode() for id_, piece in enumerate(vocabulary.pieces)]
        self.special_token_ids = [id_ for id_, piece in enumerate(vocabulary.pieces) if not piece]

    def __call__(self, text: bytes) -> list[int]:
        """Where nothing is forced nothing is ever split into tokens, and no tokens is no answer but to a trial."""
        return []


def _tokenizer(vocabulary: Vocabulary) -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Tokens(vocabulary)))


def _thought_mask(vocabulary: Vocabulary) -> bytes:
    """What may be said in a thought: all text, and the token that ends it."""
    mask = bytearray(-(-len(vocabulary.pieces) // 8))
    for id_, piece in enumerate(vocabulary.pieces):
        if piece or id_ == vocabulary.end_think:
            mask[id_ // 8] |= 1 << id_ % 8
    return bytes(mask)


def _unforced(text: str) -> str:
    """The grammar with every spelling allowed."""
    if not text.lstrip().startswith("{"):
        return text + _PLAIN
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused("grammar", f"begins like JSON, and is none: {error}") from error
    grammars = whole.get("grammars")
    if not isinstance(grammars, list) or not all(isinstance(grammar, dict) for grammar in grammars):
        raise Refused("grammar", "as JSON, it must have a list of objects named grammars")
    whole["grammars"] = [_unforced_part(grammar) for grammar in grammars]
    return json.dumps(whole)


def _unforced_part(grammar: dict[str, object]) -> dict[str, object]:
    part = dict(grammar)
    if "json_schema" in part and "lark_grammar" not in part:
        part["lark_grammar"] = f"start: %json {json.dumps(part.pop('json_schema'))}"
    if isinstance(part.get("lark_grammar"), str):
        part["lark_grammar"] = f"{part['lark_grammar']}{_PLAIN}"
    return part


def _error(matcher: LLMatcher) -> str:
    """What llguidance says is wrong, without the listing behind it."""
    said = _LISTING.sub("", matcher.get_error()).strip()
    return "no token of the vocabulary can go on with it" if said in _DEAD_ENDS else said
