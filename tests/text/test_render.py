"""The renderer: mistral-common's tokens, the instruction, continuation, and refusals that name their field."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import Any

import pytest
from mistral_common.protocol.instruct import chunk as chunks
from mistral_common.protocol.instruct import messages as mistral
from mistral_common.protocol.instruct import tool_calls as calls
from mistral_common.protocol.instruct.request import ChatCompletionRequest

from magister.text.formats import OPEN_TAG, detect_format
from magister.text.render import Renderer
from magister.text.tokenizer import TekkenPlan, make_tokenizer
from magister.types import (
    ChatRequest,
    Image,
    JsonFormat,
    Message,
    OpenAt,
    Refused,
    Role,
    Sampling,
    SystemPrompt,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
    assistant,
    system,
    user,
)


@functools.cache
def renderer(version: str = "v13", vision: bool = False) -> Renderer:
    tokenizer = make_tokenizer(TekkenPlan(ranks=2048, specials=64, version=version, vision=vision))
    return Renderer(tokenizer, detect_format(tokenizer))


@functools.cache
def magistral() -> Renderer:
    tokenizer = make_tokenizer(TekkenPlan(vision=False))
    return Renderer(tokenizer, detect_format(tokenizer))


def shown(*messages: Message, version: str = "v13", **fields: Any) -> str:
    """The prompt with its special tokens, for requests that replace the system prompt unless they say otherwise."""
    fields.setdefault("system_prompt", SystemPrompt.REPLACE)
    made = renderer(version)
    return made.tokenizer.show(made.render(ChatRequest(messages=messages, **fields)).ids)


ADD: dict[str, Any] = {"system_prompt": SystemPrompt.ADD}
INSTRUCTION = "First draft your thinking process (inner monologue) until you arrive at a response."
ENDING = "[/THINK]Here, provide a self-contained response."


def test_prompts_of_mistral_commons_documentation() -> None:
    render = magistral().render
    plain = render(
        ChatRequest(messages=(user("Hello, how are you?"),), system_prompt=SystemPrompt.REPLACE),
    )
    assert plain.ids == (1, 3, 22177, 1044, 2606, 1584, 1636, 1063, 4)
    full = render(ChatRequest(messages=(user("How many 'r' are there in strawberry ?"),)))
    assert full.ids[:5] == (1, 17, 10107, 19564, 2143)
    assert full.ids[-3:] == (33681, 3082, 4)
    assert len(full.ids) == 127


def test_reply_of_mistral_commons_documentation() -> None:
    said = assistant(Text("Let me think about it."), Thinking("There are 3 'r' in strawberry ?"), Text("$$3$$"))
    assert magistral().reply(said) == (
        *(12598, 1639, 3648, 2314, 1494, 1046),
        *(34, 6958, 1584, 1032, 1051, 1576, 1114, 1039, 1294, 51567, 33681, 3082, 35),
        *(19587, 1051, 19587, 2),
    )


def test_v13_layout() -> None:
    conversation = (
        system("S1", Thinking("TS"), "S2"),
        user("U1"),
        assistant("A1", ToolCall("1", "F1", "{}"), ToolCall("2", "F2", "{}")),
        Message(Role.TOOL, (ToolResult("2", "R2"),)),
        Message(Role.TOOL, (ToolResult("1", "R1"),)),
        assistant(Thinking("T1"), "A2"),
        user("U2"),
    )
    tool = Tool("F1", {"type": "object", "properties": {}}, "é")
    listed = json.dumps(
        [{"type": "function", "function": {"name": "F1", "description": "é", "parameters": tool.parameters}}],
        ensure_ascii=False,
    )
    assert shown(*conversation, tools=(tool,)) == (
        "<s>[SYSTEM_PROMPT]S1[THINK]TS[/THINK]S2[/SYSTEM_PROMPT]"
        f"[AVAILABLE_TOOLS]{listed}[/AVAILABLE_TOOLS][INST]U1[/INST]"
        "A1[TOOL_CALLS]F1[ARGS]{}[TOOL_CALLS]F2[ARGS]{}</s>"
        "[TOOL_RESULTS]R1[/TOOL_RESULTS][TOOL_RESULTS]R2[/TOOL_RESULTS]"
        "[THINK]T1[/THINK]A2</s>[INST]U2[/INST]"
    )


def test_several_results_in_one_message_are_several_results() -> None:
    made = user("U"), assistant(ToolCall("1", "F", "{}"), ToolCall("2", "G", '{"a":1}'))
    results = Message(Role.TOOL, (ToolResult("1", "R1"), ToolResult("2", "no such file", is_error=True)))
    assert shown(*made, results).endswith(
        '[TOOL_CALLS]F[ARGS]{}[TOOL_CALLS]G[ARGS]{"a": 1}</s>'
        '[TOOL_RESULTS]R1[/TOOL_RESULTS][TOOL_RESULTS]{"error": "no such file"}[/TOOL_RESULTS]'
    )


def test_our_tokens_are_mistral_commons() -> None:
    ours = ChatRequest(
        messages=(
            system("Be kind.", "And brief."),
            user("Hallo", "Wie viel ist 2 + 2?"),
            user("Antworte!"),
            assistant(Thinking("2 + 2 = 4\n"), "4", ToolCall("1", "note", '{"x":  [1, "ü"]}')),
            Message(Role.TOOL, (ToolResult("1", '{"ok":true}'),)),
            assistant("Noted."),
            user("Danke [THINK]"),
            assistant(Thinking("They thank", closed=False)),
        ),
        tools=(Tool("note", {"type": "object", "properties": {"x": {}}}),),
        system_prompt=SystemPrompt.REPLACE,
    )
    call = calls.ToolCall(id="1", function=calls.FunctionCall(name="note", arguments='{"x":  [1, "ü"]}'))
    thought = chunks.ThinkChunk(thinking="2 + 2 = 4\n")
    theirs: ChatCompletionRequest[Any] = ChatCompletionRequest(
        model="magistral",
        messages=[
            mistral.SystemMessage(content=[chunks.TextChunk(text="Be kind."), chunks.TextChunk(text="And brief.")]),
            mistral.UserMessage(
                content=[chunks.TextChunk(text="Hallo"), chunks.TextChunk(text="Wie viel ist 2 + 2?")],
            ),
            mistral.UserMessage(content="Antworte!"),
            mistral.AssistantMessage(content=[thought, chunks.TextChunk(text="4")], tool_calls=[call]),
            mistral.ToolMessage(content='{"ok":true}', tool_call_id="1"),
            mistral.AssistantMessage(content="Noted."),
            mistral.UserMessage(content="Danke [THINK]"),
            mistral.AssistantMessage(content=[chunks.ThinkChunk(thinking="They thank", closed=False)], prefix=True),
        ],
        tools=[
            calls.Tool(function=calls.Function(name="note", parameters={"type": "object", "properties": {"x": {}}}))
        ],
    )
    made = renderer()
    assert list(made.render(ours).ids) == made.tokenizer.mistral.encode_chat_completion(theirs).tokens


def test_blanks_at_the_end_of_an_answer_are_kept_where_mistral_common_strips_them() -> None:
    assert shown(user("U"), assistant("It is ")).endswith("[/INST]It is ")
    assert shown(user("U"), assistant("A  "), user("V")).endswith("[/INST]A  </s>[INST]V[/INST]")


def test_the_users_system_prompt_is_added_to_the_instruction() -> None:
    alone = shown(user("U"), **ADD)
    assert alone.startswith(f"<s>[SYSTEM_PROMPT]{INSTRUCTION}")
    assert alone.endswith(f"{ENDING}[/SYSTEM_PROMPT][INST]U[/INST]")
    added = shown(system("Be kind."), system("Be brief."), user("U"), **ADD)
    assert added.endswith(f"{ENDING}\n\nBe kind.\n\nBe brief.[/SYSTEM_PROMPT][INST]U[/INST]")
    replaced = shown(system("Be kind."), user("U"))
    assert replaced == "<s>[SYSTEM_PROMPT]Be kind.[/SYSTEM_PROMPT][INST]U[/INST]"
    assert shown(user("U")) == "<s>[INST]U[/INST]"


def test_a_users_system_prompt_with_a_thought_is_an_instruction_of_its_own() -> None:
    official = renderer().format.instruction
    assert shown(system(*official), user("U"), **ADD) == shown(user("U"), **ADD)
    own = shown(system("Think:", Thinking("..."), "Speak."), user("U"), **ADD)
    assert own == "<s>[SYSTEM_PROMPT]Think:[THINK]...[/THINK]Speak.[/SYSTEM_PROMPT][INST]U[/INST]"


def test_later_system_messages_stay_where_they_are() -> None:
    said = shown(user("U"), system("Now rhyme."), user("V"), **ADD)
    assert said.endswith("[INST]U[/INST][SYSTEM_PROMPT]Now rhyme.[/SYSTEM_PROMPT][INST]V[/INST]")


def test_an_empty_instruction_needs_no_system_prompt() -> None:
    nano = replace(renderer(), format=replace(renderer().format, instruction=()))
    assert nano.tokenizer.show(nano.render(ChatRequest(messages=(user("U"),))).ids) == "<s>[INST]U[/INST]"
    told = nano.render(ChatRequest(messages=(system("Be kind."), user("U"))))
    assert nano.tokenizer.show(told.ids) == "<s>[SYSTEM_PROMPT]Be kind.[/SYSTEM_PROMPT][INST]U[/INST]"


def test_2506_writes_its_thoughts_as_text() -> None:
    said = shown(user("U"), assistant(Thinking("\nT\n"), "\nA"), user("V"), version="v11", **ADD)
    assert said.startswith("<s>[SYSTEM_PROMPT]A user will ask you to solve a task.")
    assert said.endswith(
        "Don't mention that this is a summary.\n\nProblem:\n\n[/SYSTEM_PROMPT]"
        "[INST]U[/INST]<think>\nT\n</think>\nA</s>[INST]V[/INST]"
    )
    told = shown(system("Be kind."), user("U"), version="v11", **ADD)
    assert "this is a summary.\n\nBe kind.\n\nProblem:\n\n[/SYSTEM_PROMPT]" in told
    own = shown(system(f"Use {OPEN_TAG}."), user("U"), version="v11", **ADD)
    assert own == "<s>[SYSTEM_PROMPT]Use <think>.[/SYSTEM_PROMPT][INST]U[/INST]"


def test_call_ids_that_a_format_cannot_write_are_replaced_alike_in_calls_and_results() -> None:
    said = shown(
        user("U"),
        assistant(ToolCall("call_0123456789", "F", "{}")),
        Message(Role.TOOL, (ToolResult("call_0123456789", "R"),)),
        version="v11",
    )
    written = said.split("[CALL_ID]")[1].split("[ARGS]")[0]
    assert len(written) == 9
    assert said.endswith(f"[TOOL_RESULTS]{written}[TOOL_CONTENT]R[/TOOL_RESULTS]")


@pytest.mark.parametrize(
    ("last", "end", "open_at"),
    [
        (assistant(Thinking("T", closed=False)), "[THINK]T", OpenAt.THOUGHT),
        (assistant(Thinking("", closed=False)), "[THINK]", OpenAt.THOUGHT),
        (assistant(Thinking("T")), "[THINK]T[/THINK]", OpenAt.ANSWER),
        (assistant(Thinking("")), "[THINK][/THINK]", OpenAt.ANSWER),
        (assistant(Thinking("T"), "A"), "[THINK]T[/THINK]A", OpenAt.ANSWER),
        (assistant(Thinking("T", closed=False), ""), "[THINK]T", OpenAt.THOUGHT),
        (assistant("A"), "A", OpenAt.ANSWER),
        (user("V"), "[INST]U\n\nV[/INST]", OpenAt.START),
    ],
)
def test_a_final_assistant_message_is_continued(last: Message, end: str, open_at: OpenAt) -> None:
    prompt = renderer().render(ChatRequest(messages=(user("U"), last), system_prompt=SystemPrompt.REPLACE))
    assert prompt.open_at is open_at
    assert renderer().tokenizer.show(prompt.ids) == (
        f"<s>{end}" if last.role is Role.USER else f"<s>[INST]U[/INST]{end}"
    )


def test_earlier_thoughts_may_be_left_out_but_not_those_of_this_turn() -> None:
    conversation = (
        user("U"),
        assistant(Thinking("T1"), "A1"),
        user("V"),
        assistant(Thinking("T2", closed=False)),
        user("W"),
        assistant(Thinking("T3"), ToolCall("1", "F", "{}")),
        Message(Role.TOOL, (ToolResult("1", "R"),)),
        assistant(Thinking("T4", closed=False)),
    )
    tail = "[THINK]T3[/THINK][TOOL_CALLS]F[ARGS]{}</s>[TOOL_RESULTS]R[/TOOL_RESULTS][THINK]T4"
    assert shown(*conversation) == (
        "<s>[INST]U[/INST][THINK]T1[/THINK]A1</s>[INST]V[/INST][THINK]T2</s>[INST]W[/INST]" + tail
    )
    assert shown(*conversation, keep_thinking=False) == "<s>[INST]U[/INST]A1</s>[INST]V\n\nW[/INST]" + tail


def test_tools_are_left_out_where_none_may_be_called() -> None:
    tools = (Tool("f", {}),)
    assert "[AVAILABLE_TOOLS]" in shown(user("U"), tools=tools)
    assert shown(user("U"), tools=tools, tool_choice=ToolChoice(ToolMode.NONE)) == "<s>[INST]U[/INST]"


CALL = ToolCall("1", "f", "{}")
F = Tool("f", {})

REFUSED: list[tuple[tuple[Message, ...], dict[str, Any], str]] = [
    ((), {}, r"messages: must not be empty"),
    ((system("S"),), {}, r"messages\[0\]\.role: a conversation cannot end with system"),
    ((assistant("A"),), {}, r"messages\[0\]\.role: a conversation cannot begin with assistant"),
    ((Message(Role.TOOL, (ToolResult("1", "R"),)),), {}, r"messages\[0\]\.role: .* begin with tool"),
    ((system("S"), assistant("A")), {}, r"messages: needs a message of role user"),
    ((user("U"), Message(Role.TOOL, (ToolResult("1", "R"),))), {}, r"messages\[1\]\.role: tool cannot follow user"),
    ((user("U"), assistant("A"), system("S"), user("V")), {}, r"messages\[2\]\.role: system cannot follow assistant"),
    ((user(),), {}, r"messages\[0\]\.parts: must not be empty"),
    ((user("U"), assistant(""), user("V")), {}, r"messages\[1\]\.parts: must not be empty"),
    ((user(Thinking("T")),), {}, r"messages\[0\]\.parts\[0\]: a user message cannot hold a Thinking part"),
    ((system(Image(b"x")), user("U")), {}, r"messages\[0\]\.parts\[0\]: a system message cannot hold an? Image part"),
    ((user("U"), assistant("A", Image(b"x"))), {}, r"messages\[1\]\.parts\[1\]: an? assistant message cannot hold"),
    (
        (user("U"), assistant(Thinking("T", closed=False), "A")),
        {},
        r"messages\[1\]\.parts: after a thought that is not closed nothing",
    ),
    (
        (user("U"), assistant(Thinking("T", closed=False)), assistant("A")),
        {},
        r"messages\[1\]\.parts: after a thought that is not closed nothing",
    ),
    ((user("U"), assistant(CALL)), {}, r"messages\[1\]\.parts: tool calls cannot be continued"),
    ((user("U"), assistant(ToolCall("1", "a b", "{}")), user("V")), {}, r"messages\[1\]\.parts\[0\]\.name: 'a b'"),
    ((user("U"), assistant(CALL), user("V")), {}, r"messages: Not the same number of function calls and responses"),
    (
        (user("U"), assistant(CALL), Message(Role.TOOL, (ToolResult("2", "R"),))),
        {},
        r"messages: Unexpected tool call id 2",
    ),
    ((user("U"),), {"tools": (Tool("a\n", {}),)}, r"tools\[0\]\.name: 'a\\n' is not made of"),
    ((user("U"),), {"tools": (F, F)}, r"tools\[1\]\.name: 'f' is there twice"),
    ((user("U"),), {"tools": (Tool("f", {"type": "nonsense"}),)}, r"tools: Invalid tool schema"),
    ((user("U"),), {"tool_choice": ToolChoice(ToolMode.NAMED)}, r"tool_choice\.name: belongs"),
    ((user("U"),), {"tool_choice": ToolChoice(name="f")}, r"tool_choice\.name: belongs"),
    ((user("U"),), {"tool_choice": ToolChoice(ToolMode.REQUIRED)}, r"tool_choice\.mode: required, and there is no"),
    ((user("U"),), {"tools": (F,), "tool_choice": ToolChoice(ToolMode.NAMED, "g")}, r"tool_choice\.name: 'g' is none"),
    ((user(" " * 2_000_000),), {}, r"messages: .*Max stack size"),
]


@pytest.mark.parametrize(("messages", "fields", "error"), REFUSED)
def test_what_cannot_be_said_is_refused_by_name(
    messages: tuple[Message, ...], fields: dict[str, Any], error: str
) -> None:
    with pytest.raises(ValueError, match=f"^{error}"):
        renderer().render(ChatRequest(messages=messages, **fields))


JSON = JsonFormat()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"json_format": JSON, "tools": (F,), "tool_choice": ToolChoice(ToolMode.REQUIRED)}, "json_format"),
        ({"json_format": JSON, "tools": (F,), "tool_choice": ToolChoice(ToolMode.NAMED, "f")}, "json_format"),
        ({"json_format": JSON, "messages": (user("U"), assistant("{"))}, "json_format"),
        ({"json_format": JSON, "sampling": Sampling(grammar="start: /a/")}, "sampling.grammar"),
        ({"tools": (F,), "sampling": Sampling(grammar="start: /a/")}, "sampling.grammar"),
    ],
)
def test_forms_that_exclude_each_other_are_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused) as caught:
        renderer().render(ChatRequest(**{"messages": (user("U"),)} | fields))
    assert caught.value.field == field


def test_v7_is_spoken_to_but_offers_no_tools() -> None:
    assert shown(user("U"), assistant(Thinking("T"), "A"), user("V"), version="v7").endswith(
        "[INST]U[/INST]<think>T</think>A</s>[INST]V[/INST]"
    )
    with pytest.raises(Refused, match=r"^tools: the call syntax of tokenizer version v7"):
        shown(user("U"), tools=(F,), version="v7")


def test_2506_refuses_a_limit_it_cannot_keep() -> None:
    request = ChatRequest(messages=(user("U"),), sampling=Sampling(thinking_tokens=9))
    renderer().render(request)
    with pytest.raises(Refused, match=r"^sampling\.thinking_tokens"):
        renderer("v11").render(request)
