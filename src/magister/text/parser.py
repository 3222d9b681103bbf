"""The streaming parser: what one choice's tokens say, as events, however the stream is cut into chunks.

Special tokens are known by id and never searched for in text. Only a format that writes its thought as text (2506)
is searched for its two tags, and what might be the start of one is held back. Bytes become text as soon as they are
whole characters; what stays incomplete becomes U+FFFD. Newlines around a thought are kept: they belong to it.

A choice has at most one thought, then at most one text, then calls. So a thought can only come first: once text has
begun, showing more thinking would need a second thought part or a reordered answer. What does not fit:

| tokens | result | annotation |
|---|---|---|
| no [THINK] | text only | - |
| [THINK]a | a thought that is not closed | - |
| [THINK][/THINK]b | text b; an empty thought is no part | `empty_thought` |
| blank [THINK]a[/THINK]b | thought a, text b; blanks have no place before a thought and say nothing | `dropped_text` |
| a[THINK]b[/THINK]c | text abc | `stray_tag` twice |
| [THINK]a[/THINK][THINK]b[/THINK]c | thought a, text bc | `stray_tag` twice |
| [THINK]a[THINK]b[/THINK]c | thought ab, text c | `stray_tag` |
| a[/THINK]b | text ab | `stray_tag` |
| [THINK]a[TOOL_CALLS]f[ARGS]{} | a thought that is not closed, call f | `unclosed_thought` |
| [TOOL_CALLS]f and no [ARGS] | text f; without arguments it is no call | `broken_call` |
| any other special token but the end of turn | nothing | `stray_tag` |

In a thought that the prompt had opened, [THINK] is a stray tag and [/THINK] closes it even if nothing was added.
In 2506 `<think>` is a tag only before any text and `</think>` only in a thought; elsewhere both are text.

Knows nothing of messages, prompts or sampling.
"""

from __future__ import annotations

import codecs
import hashlib
import re
import string
from enum import Enum, auto

from magister.text.formats import CLOSE_TAG, OPEN_TAG, Tags
from magister.text.tokenizer import Tokenizer
from magister.types import (
    Annotation,
    Chunk,
    Event,
    EventToken,
    OpenAt,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCallDelta,
)

CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")
"""What Mistral's formats take as the id of a tool call."""

_ALPHABET = string.digits + string.ascii_letters


class _At(Enum):
    """Where in its turn the model is."""

    START = auto()
    THOUGHT = auto()
    ANSWER = auto()
    NAME = auto()
    ID = auto()
    ARGUMENTS = auto()


_OPEN = {OpenAt.START: _At.START, OpenAt.THOUGHT: _At.THOUGHT, OpenAt.ANSWER: _At.ANSWER}


def call_id(*key: object) -> str:
    """Nine letters and digits, a function of the key."""
    number = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")
    return "".join(_ALPHABET[number // len(_ALPHABET) ** place % len(_ALPHABET)] for place in range(9))


class Parser:
    """One choice's tokens in, its events out."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        tags: Tags,
        *,
        open_at: OpenAt = OpenAt.START,
        choice: int = 0,
        salt: object = None,
        logprobs: bool = False,
        calls: bool = True,
    ) -> None:
        self.thinking_tokens = 0
        """Tokens of the thought so far, its tags included."""
        self.calls = 0
        """Tool calls so far."""
        self._tokenizer = tokenizer
        self._tags = tags
        self._choice = choice
        self._salt = salt
        self._logprobs = logprobs
        self._calls_allowed = calls and tokenizer.version != "v7"
        self._at = _OPEN[open_at]
        self._thought_shown = open_at is OpenAt.THOUGHT
        self._think, self._end_think = tokenizer.find("[THINK]"), tokenizer.find("[/THINK]")
        self._call, self._args = tokenizer.find("[TOOL_CALLS]"), tokenizer.find("[ARGS]")
        self._call_id, self._eos = tokenizer.find("[CALL_ID]"), tokenizer.id("</s>")
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._texts: list[str] = []
        self._tokens: list[EventToken] = []
        self._count = 0
        self._name = self._given_id = ""
        self._out: list[Event] = []

    def feed(self, chunk: Chunk) -> list[Event]:
        """Events of one more chunk; a chunk with a finish reason ends the choice."""
        for index, data in enumerate(_kept(self._tokenizer, chunk)):
            if data is None:
                continue
            if self._tokenizer.is_special(chunk.ids[index]):
                self._special(chunk, index)
            else:
                self._push(chunk, index)
                self._text(self._decoder.decode(data))
        if chunk.finish is not None:
            return self.end()
        self._cut()
        return self._take()

    def end(self) -> list[Event]:
        """Events of what was still held back; nothing may be fed after it."""
        self._end_text()
        self._settle()
        self._break_call()
        self._cut()
        if self._at is _At.THOUGHT:
            self._leave_thought()
        if self._tokens:
            self._out.append(TextDelta(text="", choice=self._choice, tokens=tuple(self._tokens)))
            self._tokens = []
        return self._take()

    def _take(self) -> list[Event]:
        out, self._out = self._out, []
        return out

    def _push(self, chunk: Chunk, index: int) -> None:
        """The token belongs to the next delta."""
        self._count += 1
        if self._logprobs:
            self._tokens.append(
                EventToken(
                    id=chunk.ids[index],
                    bytes=self._tokenizer.token_bytes(chunk.ids[index]),
                    logprob=chunk.logprobs[index],
                    sampled_logprob=chunk.sampled_logprobs[index],
                    forced=bool(chunk.forced) and chunk.forced[index],
                    top=tuple(self._named(one) for one in chunk.top[index]) if chunk.top else (),
                )
            )

    def _named(self, one: TokenLogprob) -> TokenLogprob:
        said = self._tokenizer.token_bytes(one.id) or self._tokenizer.token_name(one.id).encode()
        return TokenLogprob(one.id, one.logprob, said)

    def _annotate(self, kind: str, **data: str) -> None:
        self._out.append(Annotation(kind=kind, data=data, choice=self._choice))

    def _cut(self, *, closed: bool = False) -> None:
        """Say what has gathered, as a delta of the place where the model is."""
        text = "".join(self._texts)
        if not text and not closed:
            return
        tokens = tuple(self._tokens)
        match self._at:
            case _At.THOUGHT:
                self.thinking_tokens += self._count
                self._thought_shown = True
                self._out.append(ThinkingDelta(text=text, choice=self._choice, closed=closed, tokens=tokens))
            case _At.ARGUMENTS:
                index = self.calls - 1
                self._out.append(ToolCallDelta(index=index, arguments=text, choice=self._choice, tokens=tokens))
            case _:
                self._out.append(TextDelta(text=text, choice=self._choice, tokens=tokens))
        self._texts, self._tokens, self._count = [], [], 0

    def _text(self, text: str) -> None:
        match self._at:
            case _At.START:
                self._held += text
                self._start()
            case _At.THOUGHT if self._tags is Tags.TEXT:
                self._held += text
                self._search()
            case _At.NAME:
                self._name += text
            case _At.ID:
                self._given_id += text
            case _:
                self._texts.append(text)

    def _start(self) -> None:
        """Blanks wait for what follows them; so does, in 2506, what may become the opening tag."""
        said = self._held.lstrip()
        if self._tags is Tags.TEXT and said.startswith(OPEN_TAG):
            self._begin_thought(blanks=self._held[: -len(said)])
            self._text(said[len(OPEN_TAG) :])
        elif said and not (self._tags is Tags.TEXT and OPEN_TAG.startswith(said)):
            self._settle()

    def _settle(self) -> None:
        """What was held back at the start is the beginning of the answer."""
        if self._at is _At.START and self._held:
            self._texts.append(self._held)
            self._held, self._at = "", _At.ANSWER

    def _search(self) -> None:
        """Within a thought that is text: gather all but what may become the closing tag."""
        thought, tag, answer = self._held.partition(CLOSE_TAG)
        if tag:
            self._held = ""
            self._texts.append(thought)
            self._end_thought()
            self._text(answer)
            return
        kept = next(size for size in range(len(CLOSE_TAG) - 1, -1, -1) if thought.endswith(CLOSE_TAG[:size]))
        self._texts.append(thought[: len(thought) - kept])
        self._held = thought[len(thought) - kept :]

    def _end_text(self) -> None:
        """A special token or the end: no character, and no tag that is text, goes on beyond it."""
        self._text(self._decoder.decode(b"", final=True))
        self._decoder.reset()
        if self._tags is Tags.TEXT:
            self._settle()
            self._texts.append(self._held)
            self._held = ""
        self._cut()

    def _special(self, chunk: Chunk, index: int) -> None:
        token = chunk.ids[index]
        self._end_text()
        if token == self._eos:
            return
        if token == self._think and self._at is _At.START:
            self._begin_thought(blanks=self._held)
            self._count = 0
            self._push(chunk, index)
            return
        self._settle()
        self._break_call(goes_on=token in (self._call_id, self._args))
        self._cut()
        if token == self._call and self._calls_allowed:
            self._begin_call()
        self._push(chunk, index)
        if token == self._end_think and self._at is _At.THOUGHT:
            self._end_thought()
        elif token == self._call_id and self._at is _At.NAME:
            self._at = _At.ID
        elif token == self._args and self._at in (_At.NAME, _At.ID) and self._name.strip():
            self._begin_arguments()
        elif token != self._call or not self._calls_allowed:
            self._annotate("stray_tag", tag=self._tokenizer.token_name(token))

    def _begin_thought(self, *, blanks: str) -> None:
        if blanks:
            self._annotate("dropped_text", text=blanks)
        self._at, self._held = _At.THOUGHT, ""

    def _end_thought(self) -> None:
        if self._thought_shown or any(self._texts):
            self._cut(closed=True)
        else:
            self._leave_thought()
        self._at = _At.ANSWER

    def _leave_thought(self) -> None:
        """Out of a thought by no delta of its own; one that said nothing is no part."""
        self.thinking_tokens += self._count
        self._texts, self._count = [], 0
        if not self._thought_shown:
            self._annotate("empty_thought")

    def _begin_call(self) -> None:
        if self._at is _At.THOUGHT:
            self._leave_thought()
            self._annotate("unclosed_thought")
        self._at, self._name, self._given_id = _At.NAME, "", ""

    def _begin_arguments(self) -> None:
        index = self.calls
        self.calls += 1
        given = self._given_id.strip()
        self._out.append(
            ToolCallDelta(
                index=index,
                id=given if CALL_ID.fullmatch(given) else call_id(self._salt, self._choice, index),
                name=self._name.strip(),
                choice=self._choice,
                tokens=tuple(self._tokens),
            )
        )
        self._at, self._tokens, self._count = _At.ARGUMENTS, [], 0

    def _break_call(self, *, goes_on: bool = False) -> None:
        """A call whose arguments never began: what was said of it is text."""
        if self._at not in (_At.NAME, _At.ID) or goes_on:
            return
        self._texts.append(self._name + self._given_id)
        self._at = _At.ANSWER
        self._annotate("broken_call", text=self._name + self._given_id)


def _kept(tokenizer: Tokenizer, chunk: Chunk) -> list[bytes | None]:
    """The bytes of each token of a chunk; cut, or None, where `trim` drops them from the end."""
    kept: list[bytes | None] = [tokenizer.token_bytes(token) for token in chunk.ids]
    trim = chunk.trim
    for index in range(len(kept) - 1, -1, -1):
        data = kept[index]
        if trim <= 0 or data is None:
            break
        kept[index] = data[: max(0, len(data) - trim)] or None
        trim -= len(data)
    return kept
