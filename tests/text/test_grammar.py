"""What a request demands of the answer's form: what its grammar admits, what it does not, and whom it blames."""

from __future__ import annotations

import functools
import random
from typing import Any

import llguidance
import pytest
from mistral_common.guidance.grammar_factory import GrammarFactory
from mistral_common.protocol.instruct.messages import UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest, ResponseFormat, ResponseFormats
from mistral_common.protocol.instruct.tool_calls import Function, FunctionName, NamedToolChoice, ToolChoiceEnum
from mistral_common.protocol.instruct.tool_calls import Tool as MistralTool

from magister.cli.compose import engine_vocabulary
from magister.cli.places import find
from magister.engine.grammar import Grammars
from magister.text import Renderer, TekkenPlan, detect_format, make_tokenizer
from magister.text.grammar import MOST_CALLS, answer_grammar
from magister.text.tokenizer import load_tokenizer
from magister.types import (
    ChatRequest,
    JsonFormat,
    OpenAt,
    Refused,
    Sampling,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    assistant,
    user,
)

ADD = Tool(
    "add",
    {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": -9, "maximum": 99}, "b": {"enum": ["x", "ü"]}},
        "required": ["a"],
        "additionalProperties": False,
    },
)
ADD_ALL = Tool(
    "add_all",
    {
        "properties": {"of": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}},
        "additionalProperties": False,
    },
)
TOOLS = (ADD, ADD_ALL)
PERSON = JsonFormat(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 5}},
        "required": ["name"],
        "additionalProperties": False,
    }
)
REQUIRED, NONE = ToolChoice(ToolMode.REQUIRED), ToolChoice(ToolMode.NONE)


@functools.cache
def renderer(version: str = "v13") -> Renderer:
    tokenizer = make_tokenizer(TekkenPlan(ranks=512, specials=64, vision=False, version=version))
    return Renderer(tokenizer, detect_format(tokenizer))


@functools.cache
def grammars(version: str) -> Grammars:
    return Grammars(engine_vocabulary(renderer(version).tokenizer))


def request(**fields: Any) -> ChatRequest:
    return ChatRequest(messages=(user("U"),), **fields)


def admits(asked: ChatRequest, ids: tuple[int, ...], version: str = "v13") -> bool:
    """Whether an answer of these tokens may be given, the end of the turn and all."""
    here = renderer(version)
    grammar = here.grammar(here.render(asked), asked)
    assert grammar is not None
    guide = grammars(version).compile(grammar.text).follow(OpenAt.ANSWER)
    for id_ in ids:
        if not guide.allowed()[id_ // 8] >> id_ % 8 & 1:
            return False
        guide.push(id_)
    return True


def said(*content: str | ToolCall, version: str = "v13") -> tuple[int, ...]:
    return renderer(version).reply(assistant(*content))


def call(name: str = "add", arguments: str = '{"a": 1}') -> ToolCall:
    return ToolCall("123456789", name, arguments)


CASES: list[tuple[dict[str, Any], list[tuple[Any, ...]], list[tuple[Any, ...]]]] = [
    (
        {"json_format": JsonFormat()},
        [("{}",), ('{"a": [1, {"b": null}]}',), ('\n\n{\n  "a": [\n\t\t1\n ]\n}',), (' {"a" : 1 }',)],
        [
            *[("[]",), ("1",), ("{} ",), ("Here: {}",), (call(),), ("   {}",), ("\n \n{}",)],
            *[('{"a"    : 1}',), ('{\n\n"a": 1}',), ('{\n \t"a": 1}',), (f'{{\n{" " * 25}"a": 1}}',)],
        ],
    ),
    (
        {"json_format": PERSON},
        [('{"name": "Zoë"}',), ('{"name":""}',)],
        [("{}",), ('{"name": 1}',), ('{"name": "Zoë", "age": 1}',), ('{"name": "Zachary"}',)],
    ),
    (
        {"tools": TOOLS},
        [("Hello.",), (call(),), ("Well {", call(), call("add_all", "{}")), (call("add_all", '{"of": [true]}'),), ()],
        [
            (call("sub"),),
            (call("add", "{}"),),
            (call("add", '{"a": 100}'),),
            (call("add_all", '{"of": [1]}'),),
            ("a", call("ad")),
        ],
    ),
    ({"tools": TOOLS, "tool_choice": ToolChoice(parallel=False)}, [("Hello.",), (call(),)], [(call(), call())]),
    (
        {"tools": TOOLS, "tool_choice": REQUIRED},
        [(call(),), (call(), call("add_all", "{}")), (call(),) * MOST_CALLS],
        [("Hello.",), ("a", call()), (), (call(),) * (MOST_CALLS + 1)],
    ),
    ({"tools": TOOLS, "tool_choice": ToolChoice(ToolMode.REQUIRED, parallel=False)}, [(call(),)], [(call(), call())]),
    (
        {"tools": TOOLS, "tool_choice": ToolChoice(ToolMode.NAMED, "add")},
        [(call(),)],
        [(call(), call()), (call("add_all", "{}"),), ("Hello.",)],
    ),
    ({"tools": TOOLS, "tool_choice": NONE}, [("Hello.",), ()], [(call(),)]),
    (
        {"tools": TOOLS, "json_format": PERSON},
        [('{"name": "Zoë"}',), (call(),)],
        [("Hello.",), ('{"name": "Zoë"}', call()), ("{}",)],
    ),
    ({"tools": TOOLS, "json_format": PERSON, "tool_choice": NONE}, [('{"name": "Zoë"}',)], [(call(),)]),
]


@pytest.mark.parametrize("version", ["v11", "v13"])
@pytest.mark.parametrize(("fields", "good", "bad"), CASES)
def test_what_is_admitted(
    fields: dict[str, Any], good: list[tuple[Any, ...]], bad: list[tuple[Any, ...]], version: str
) -> None:
    asked = request(**fields)
    for content in good:
        ids = said(*content, version=version) if content else (2,)
        assert admits(asked, ids, version), content
    for content in bad:
        ids = said(*content, version=version) if content else (2,)
        assert not admits(asked, ids, version), content


@pytest.mark.parametrize(("arguments", "admitted"), [('{"a": 1}', True), ('{ "a" :1}', True), ('{\n"a": 1}', False)])
def test_arguments_are_on_one_line(arguments: str, admitted: bool) -> None:
    made = renderer("v13").tokenizer
    begin, args, end = (made.id(special) for special in ("[TOOL_CALLS]", "[ARGS]", "</s>"))
    ids = (begin, *made.encode_text("add"), args, *made.encode_text(arguments), end)
    assert admits(request(tools=TOOLS, tool_choice=REQUIRED), ids) is admitted


def test_the_call_id_of_v11_may_be_left_out() -> None:
    made = renderer("v11").tokenizer
    whole = said(call(), version="v11")
    begin, end = whole.index(made.id("[CALL_ID]")), whole.index(made.id("[ARGS]"))
    asked = request(tools=TOOLS, tool_choice=REQUIRED)
    assert admits(asked, whole[:begin] + whole[end:], "v11")
    assert not admits(asked, whole[: begin + 1] + whole[end:], "v11")


def test_a_thought_that_is_text_comes_first() -> None:
    """2506: `<think>` is text, and so is what asks for a form afterwards."""
    for asked, answer in (
        (request(json_format=PERSON), '{"name": ""}'),
        (request(tools=TOOLS, tool_choice=REQUIRED), call()),
    ):
        for before in ("", "<think>{ I think }</think>", "\n<think></think>\n\n"):
            content = (before + answer,) if isinstance(answer, str) else (before, answer)
            assert admits(asked, said(*content, version="v11"), "v11"), content
        assert not admits(asked, said("<think>no end", version="v11"), "v11")
        assert not admits(asked, said("thought</think>", version="v11"), "v11")
    closed = ChatRequest(messages=(user("U"), assistant("<think>T</think>")), tools=TOOLS, tool_choice=REQUIRED)
    assert not admits(closed, said("<think>T</think>", call(), version="v11"), "v11"), "it has been said"


def test_without_tools_and_formats_anything_goes() -> None:
    for fields in ({}, {"tool_choice": NONE}, {"sampling": Sampling(grammar="start: /a/")}):
        asked = request(**fields)
        assert renderer().grammar(renderer().render(asked), asked) is None


def test_v7_forms_answers_and_forbids_calls_but_makes_none() -> None:
    assert admits(request(json_format=PERSON), said('{"name": ""}', version="v7"), "v7")
    assert admits(request(tools=TOOLS, tool_choice=NONE), said("Hello.", version="v7"), "v7")
    with pytest.raises(Refused, match=r"^tools: the call syntax"):
        renderer("v7").render(request(tools=TOOLS, tool_choice=REQUIRED))


BAD = {"type": "object", "properties": {"x": {"type": "string", "pattern": "(?=a)b"}}}


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"json_format": JsonFormat(BAD)}, "json_format", "look-around"),
        ({"json_format": JsonFormat({"type": "string", "format": "colour"})}, "json_format", "Unknown format: colour"),
        ({"json_format": JsonFormat({"not": {}})}, "json_format", r'Unimplemented keys: \["not"\]'),
        ({"json_format": JsonFormat({"enum": ["\ud800"]})}, "json_format", "hex escape"),
        ({"json_format": JsonFormat({"oneOf": [{}, {}]})}, "json_format", "oneOf constraints are not supported$"),
        ({"json_format": JsonFormat({"const": float("nan")})}, "json_format", "is no JSON"),
        ({"tools": (ADD, Tool("g", BAD))}, r"tools\[1\]\.parameters", "look-around"),
        ({"tools": (Tool("g", BAD), ADD), "json_format": PERSON}, r"tools\[0\]\.parameters", "look-around"),
        ({"tools": (ADD, ADD_ALL), "json_format": JsonFormat(BAD)}, "json_format", "look-around"),
        ({"tools": (Tool("g", {"type": "array"}),)}, r"tools\[0\]\.parameters", "arguments are an object"),
        ({"json_format": JsonFormat({"enum": ["x" * (1 << 20)]})}, "json_format", "characters"),
        ({"tools": (ADD, Tool("g", {"enum": ["x" * (1 << 20)]}))}, "tools", "characters"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_blamed(fields: dict[str, Any], field: str, reason: str) -> None:
    asked = request(**fields)
    with pytest.raises(Refused, match=rf"(?s)^{field}: .*{reason}"):
        _compile(asked)


def _compile(asked: ChatRequest) -> None:
    grammar = renderer().grammar(renderer().render(asked), asked)
    assert grammar is not None
    try:
        grammars("v13").compile(grammar.text)
    except Refused as error:
        raise grammar.blame(str(error).removeprefix("grammar: ")) from error


def mistral_request(asked: ChatRequest) -> ChatCompletionRequest[Any]:
    choice: Any = (
        ToolChoiceEnum(asked.tool_choice.mode.value)
        if asked.tool_choice.name is None
        else NamedToolChoice(function=FunctionName(name=asked.tool_choice.name))
    )
    form = ResponseFormat(type=ResponseFormats.json_object) if asked.json_format else ResponseFormat()
    return ChatCompletionRequest(
        messages=[UserMessage(content="U")],
        tools=[MistralTool(function=Function(name=tool.name, parameters=tool.parameters)) for tool in asked.tools]
        or None,
        tool_choice=choice,
        response_format=form,
        parallel_tool_calls=asked.tool_choice.parallel,
    )


@pytest.mark.parametrize("version", ["v11", "v13"])
@pytest.mark.parametrize(
    "fields", [fields for fields, _, _ in CASES if fields != {"json_format": JsonFormat()}], ids=str
)
def test_what_we_admit_mistral_common_admits(fields: dict[str, Any], version: str) -> None:
    """Random walks through our grammar, in the calls' syntax without ids, are walks through its own."""
    here, asked = renderer(version), request(**fields)
    factory = GrammarFactory(here.tokenizer.mistral)
    theirs = factory.get_grammar_for_chat_request(mistral_request(asked), factory.select_jinja_template())
    # Its grammar for v11 knows no thoughts.
    ours = answer_grammar(asked, here.tokenizer, here.format.tags, OpenAt.ANSWER)
    assert ours is not None
    grammar = grammars(version).compile(ours.text)
    never = {2, here.tokenizer.find("[CALL_ID]")}
    for seed in range(6):
        luck, guide = random.Random(seed), grammar.follow(OpenAt.ANSWER)
        ids: list[int] = []
        while len(ids) < 120:
            mask = guide.allowed()
            choices = [id_ for id_ in range(here.tokenizer.size) if mask[id_ // 8] >> id_ % 8 & 1]
            if 2 in choices and (len(choices) == 1 or luck.random() < 0.1):
                break
            ids.append(luck.choice([id_ for id_ in choices if id_ not in never]))
            guide.push(ids[-1])
        if theirs is not None:  # With tools and nothing demanded of them, it lets text be.
            matcher = llguidance.LLMatcher(factory.llg_tokenizer, theirs)
            assert matcher.try_consume_tokens(ids) == len(ids), here.tokenizer.show(ids)


@functools.cache
def nano() -> Renderer:
    tokenizer = load_tokenizer(find("nano") / "tekken.json")
    return Renderer(tokenizer, detect_format(tokenizer))


@pytest.mark.parametrize("said", ["", "{", '{"a"', '{"a":', '{"a": [', '{"a": [1,', '{"a": [1]', '{"a": 1,'])
@pytest.mark.parametrize("first", [" ", "\n", "\t"])
def test_blanks_between_tokens_end(said: str, first: str) -> None:
    """Nano knows no JSON: what it would go on with for ever is blanks, one at a time or as many as a token has."""
    asked, tokenizer = request(json_format=JsonFormat()), nano().tokenizer
    grammar = nano().grammar(nano().render(asked), asked)
    assert grammar is not None
    blank = {id_: piece for id_, piece in enumerate(tokenizer.vocabulary) if piece and not piece.strip(b" \t\r\n")}
    assert any(len(piece) > 2 for piece in blank.values())
    for choose in (min, max):
        guide = Grammars(engine_vocabulary(tokenizer)).compile(grammar.text).follow(OpenAt.ANSWER)
        for id_ in tokenizer.encode_text(said):
            guide.push(id_)
        run = b""
        while found := [id_ for id_ in blank if guide.allowed()[id_ // 8] >> id_ % 8 & 1]:
            fit = [id_ for id_ in found if blank[id_].startswith(first.encode())] or found
            id_ = choose(fit, key=lambda one: len(blank[one]))
            guide.push(id_)
            run += blank[id_]
            assert len(run) <= 25, run
        assert guide.error is None
        assert any(guide.allowed()), "there is something else to say"
