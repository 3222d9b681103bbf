"""What a request demands of the answer's form, as a grammar in llguidance's Lark syntax: JSON, and calls of tools.

| asked | the answer is |
|---|---|
| `json_format` | one JSON document of the schema, or any object |
| tools, auto | text, calls, or text and then calls |
| tools, auto, and `json_format` | one document, or calls |
| tools, required | calls |
| tools, named | one call of that tool |
| tools, none | text |

A call is what mistral-common writes for one in the tokenizer's version: [TOOL_CALLS], a name, [ARGS] and the arguments;
v11 may have [CALL_ID] and nine letters or digits between the two. The arguments follow the tool's schema, and where it
does not speak of others they are those it names. An answer has 16 calls at most, one where `parallel` is False. Control
tokens are named by id, so no text can stand for one.

A thought that is told by tokens comes before the grammar and is none of its business; one that is text (2506) is part
of the answer, and the grammar lets it come first. Blanks between two parts of a document are one space, or a line break
and its indent: without an end to them a model may never come to the next part. Arguments have one space at most.

mistral-common makes grammars too, which leave the arguments of most calls, blanks and thoughts free; what these here
allow, those do (tests hold it). Compiles nothing: whether a schema can be followed, the token model finds out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from magister.text.formats import Tags
from magister.text.tokenizer import Tokenizer
from magister.types import ChatRequest, OpenAt, Refused, Tool, ToolMode

_BLANKS = r"[ ]|\n([ ]{0,24}|\t{0,8})"
"""Between two tokens of JSON: one blank, or a new line and its indentation, by blanks or by tabs. Any more is what a
network writes that does not know JSON, until its room ends.
"""
_BLANK = r"[ ]"
"""The same within the arguments of a call, which nobody reads: mistral-common writes them on one line."""
_BEFORE = r"/[ ]|\n{1,2}/"
"""Before an answer that has a form."""
MOST_CALLS = 16
"""Of one answer: a network that was not trained on tools calls them until its room ends, and the last call is cut."""
_PLACE = re.compile(r"at (\d+)\(\d+\): (?:failed to compile JSON schema: )?")
"""Where llguidance finds a fault."""
_ADVICE = ". Enable '"
"""From here on it speaks of options that a request does not have."""

_OPEN = frozenset(
    {"additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf", "if", "$ref"}
)
"""Keywords by which an object may have properties other than those under `properties`."""


@dataclass(frozen=True)
class AnswerGrammar:
    """A grammar, and which fields of the request its lines come from."""

    lines: tuple[str, ...]
    fields: tuple[str, ...]
    """The field behind each line; empty where there is none."""

    @property
    def text(self) -> str:
        """What `Sampling.grammar` takes."""
        return "\n".join(self.lines)

    def blame(self, reason: str) -> Refused:
        """The refusal of this grammar, as one of the request's own field."""
        place = _PLACE.match(reason)
        asked = [field for field in self.fields if field]
        line = int(place[1]) - 1 if place else len(self.lines)
        field = self.fields[line] if line < len(self.lines) else ""
        if not field:
            # Of all of them together, such as a grammar that is too large.
            field = asked[0] if len(asked) == 1 else "tools"
        said = reason[place.end() if place else 0 :].partition(_ADVICE)[0]
        return Refused(field, f"cannot be followed: {said}")


def answer_grammar(request: ChatRequest, tokenizer: Tokenizer, tags: Tags, open_at: OpenAt) -> AnswerGrammar | None:
    """The grammar of a checked request's answer; None where it may be anything. `Refused` for a schema that is none."""
    mode, formed = request.tool_choice.mode, request.json_format is not None
    if not formed and not request.tools:
        return None
    rules: list[tuple[str, str]] = []
    if formed:
        rules.append((f"document: %json {_document(request)}", "json_format"))
    calls: list[str] = []
    for at, tool in enumerate(request.tools):
        if mode is not ToolMode.NONE and request.tool_choice.name in (None, tool.name):
            calls.append(f"call_{at}")
            rules.append((f"call_{at}: {_call(at, tool, tokenizer)}", f"tools[{at}].parameters"))
    if calls:
        several = request.tool_choice.parallel and mode is not ToolMode.NAMED
        rules.append((f"calls: ({' | '.join(calls)}){f'{{1,{MOST_CALLS}}}' if several else ''}", ""))
    bound = formed or mode in (ToolMode.REQUIRED, ToolMode.NAMED)
    if bound:
        answer = " | ".join(["BLANKS? document"] * formed + ["calls"] * bool(calls))
    else:
        answer = "text? calls?" if calls else "text?"
        rules.append(("text: /(?s:.+)/", ""))
    rules.append((f"BLANKS: {_BEFORE}", ""))
    if bound and tags is Tags.TEXT and open_at is OpenAt.START:
        answer = f"(thought BLANKS?)? ({answer})"
        rules.append((r"thought[lazy]: /[ \t\r\n]{0,8}<think>(?s:.*)<\/think>/", ""))
    lines, fields = zip((f"start: {answer}", ""), *rules, strict=True)
    return AnswerGrammar(lines, fields)


def _call(at: int, tool: Tool, tokenizer: Tokenizer) -> str:
    field = f"tools[{at}].parameters"
    if tool.parameters.get("type", "object") != "object":
        raise Refused(field, f"arguments are an object, and the schema's type is {tool.parameters['type']!r}")
    begin, args = (f"<[{tokenizer.id(special)}]>" for special in ("[TOOL_CALLS]", "[ARGS]"))
    given = f"(<[{tokenizer.id('[CALL_ID]')}]> /[a-zA-Z0-9]{{9}}/)? " if tokenizer.version == "v11" else ""
    return f'{begin} "{tool.name}" {given}{args} %json {_inline(_arguments(tool.parameters), field, _BLANK)}'


def _arguments(parameters: dict[str, Any]) -> dict[str, Any]:
    """The schema of what a function takes: no arguments but those it names, unless it speaks of others."""
    schema = {**parameters, "type": "object"}
    named = parameters.get("properties", {})
    closed = not parameters or ("properties" in parameters and _OPEN.isdisjoint(parameters))
    if closed and all(name in named for name in parameters.get("required", [])):
        schema["additionalProperties"] = False
    return schema


def _document(request: ChatRequest) -> str:
    assert request.json_format is not None
    schema = request.json_format.schema
    return _inline({"type": "object"} if schema is None else schema, "json_format", _BLANKS)


def _inline(schema: dict[str, Any], field: str, blanks: str) -> str:
    """The schema in one line, with our `blanks`. Its own word to llguidance, if it has one, is none of a schema's."""
    try:
        return json.dumps({**schema, "x-guidance": {"whitespace_pattern": blanks}}, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise Refused(field, f"is no JSON: {error}") from error
