import time

from magister.types import (
    Annotation,
    Choice,
    Event,
    Finish,
    FinishReason,
    Message,
    Role,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    assistant,
    fold,
    system,
    user,
)


def test_fold_joins_deltas_by_choice_and_keeps_order() -> None:
    events: list[Event] = [
        ThinkingDelta(text="1+", choice=0),
        TextDelta(text="B", choice=1),
        ThinkingDelta(text="1", choice=0, closed=True),
        TextDelta(text="2", choice=0),
        ToolCallDelta(index=1, id="b", name="g", arguments="{}", choice=0),
        ToolCallDelta(index=0, id="a", name="f", arguments='{"x"', choice=0),
        ToolCallDelta(index=0, arguments=": 1}", choice=0),
        Annotation(kind="tally", data={"2": 3}, choice=0),
        Usage(prompt_tokens=5, completion_tokens=7, choice=0),
        Finish(reason=FinishReason.TOOL_CALLS, choice=0),
    ]
    first, second = fold(events).choices
    assert first.message == assistant(Thinking("1+1"), "2", ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "{}"))
    assert first.finish is FinishReason.TOOL_CALLS
    assert first.usage.completion_tokens == 7
    assert [note.kind for note in first.annotations] == ["tally"]
    assert second == Choice(message=Message(Role.ASSISTANT, (Text("B"),)))


def test_fold_of_nothing_has_no_choices() -> None:
    assert fold([]).choices == ()


def test_a_long_thought_or_call_is_folded_in_the_time_of_its_length() -> None:
    # Copying all that was said so far at each of them, as was done once, takes half a minute or more.
    thought: list[Event] = [ThinkingDelta(text="a")] * 150_000
    call: list[Event] = [
        ToolCallDelta(index=0, id="b", name="f"),
        *[ToolCallDelta(index=0, arguments="abcd")] * 300_000,
    ]
    began = time.process_time()
    assert len(fold(thought).message.thinking) == len(thought)
    assert fold(call).message.tool_calls == (ToolCall("b", "f", "abcd" * 300_000),)
    assert time.process_time() - began < 5


def test_a_broken_off_thought_is_open() -> None:
    message = fold([ThinkingDelta(text="so")]).message
    assert message.parts == (Thinking("so", closed=False),)


def test_messages_give_their_text_and_thought() -> None:
    message = assistant(Thinking("a"), "b", ToolCall("1", "f", "{}"))
    assert (message.thinking, message.text, len(message.tool_calls)) == ("a", "b", 1)
    assert user("x").role is Role.USER
    assert system("x").role is Role.SYSTEM
