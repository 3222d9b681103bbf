"""Google's dialect, field by field: what is read, what is refused by name, what is written."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from magister.types import (
    ChatRequest,
    Effort,
    Event,
    EventToken,
    Finish,
    FinishReason,
    Image,
    JsonFormat,
    Message,
    Refused,
    Role,
    SystemPrompt,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolMode,
    ToolResult,
    Usage,
    assistant,
    fold,
    system,
    user,
)
from magister.wire import google
from magister.wire.dialect import Asked, Card, Stamp
from magister.wire.fault import BadRequest, Fault, Kind
from magister.wire.signature import seal, sign

KEY = b"key"
STAMP = Stamp(id="a" * 32, created=1, model="nano", signing_key=KEY)
PNG = b"\x89PNG\r\n\x1a\n0"


def body(**fields: Any) -> bytes:
    return json.dumps({"contents": [{"parts": [{"text": "hi"}]}], **fields}).encode()


def asked(**fields: Any) -> Asked:
    return google.read_request(body(**fields), "nano", signing_key=KEY)


def configured(**fields: Any) -> Asked:
    return asked(generationConfig=fields)


def refused(**fields: Any) -> Fault:
    with pytest.raises(BadRequest) as caught:
        google.read_request(body(**fields), "nano")
    return caught.value.fault


def test_the_path_names_the_model_and_the_stream() -> None:
    found = google.read_request(body(model="models/nano"), "nano", True)
    assert (found.chat.model, found.stream, found.chat.messages) == ("nano", True, (user("hi"),))
    assert refused(model="models/other").field == "model"


def test_a_conversation_with_everything() -> None:
    turns = [
        {"role": "user", "parts": [{"text": "look"}, {"inlineData": {"mimeType": "image/png", "data": _b64(PNG)}}]},
        {"role": "user", "parts": {"fileData": {"fileUri": "https://example.org/x.png", "mimeType": "image/png"}}},
        {"role": "model", "parts": [{"text": "h", "thought": True}]},
        {"role": "model", "parts": [{"text": "m", "thought": True, "thoughtSignature": "c2ln"}]},
        {"role": "model", "parts": [{"text": "I "}, {"text": "ask"}, {"text": "", "thoughtSignature": "c2ln"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a_b": 1}}, "thoughtSignature": "c2ln"}]},
        {"role": "function", "parts": [{"functionResponse": {"name": "f", "response": {"output": "42"}}}]},
        {"role": "user", "parts": [{"text": "so?"}]},
    ]
    found = asked(contents=turns, systemInstruction={"parts": {"text": "be brief"}})
    assert found.chat.messages == (
        system("be brief"),
        user("look", Image(data=PNG)),
        user(Image(url="https://example.org/x.png")),
        assistant(Thinking("hm", signature="c2ln"), "I ask", ToolCall("call_0", "f", '{"a_b": 1}')),
        Message(Role.TOOL, (ToolResult("call_0", "42"),)),
        user("so?"),
    )


def test_responses_find_their_calls_by_id_and_by_name() -> None:
    calls = [{"functionCall": {"name": "f", "id": "x"}}, {"functionCall": {"name": "f"}}]
    answers = [
        {"functionResponse": {"name": "f", "response": {"error": {"code": 1}}}},
        {"functionResponse": {"name": "f", "id": "call_1", "response": {"result": 2}}},
    ]
    turns = [{"parts": [{"text": "q"}]}, {"role": "model", "parts": calls}, {"role": "user", "parts": answers}]
    results = asked(contents=turns).chat.messages[-1].parts
    assert results == (ToolResult("x", '{"code":1}', is_error=True), ToolResult("call_1", '{"result":2}'))
    alone = [{"parts": [{"functionResponse": {"name": "f", "response": {}}}]}]
    assert refused(contents=alone).field == "contents[0].parts[0].functionResponse.name"


def test_every_setting_has_its_effect() -> None:
    found = configured(
        temperature=0.5, topP=0.9, topK=40.0, maxOutputTokens=9, stopSequences=["x"], candidateCount=2, seed=7,
        presencePenalty=0.1, frequencyPenalty=-0.1, responseLogprobs=True, logprobs=3,
    )  # fmt: skip
    sampling = found.chat.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens) == (0.5, 0.9, 40, 9)
    assert (sampling.stop, sampling.n, sampling.seed) == (("x",), 2, 7)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.1, -0.1)
    assert (sampling.logprobs, sampling.top_logprobs) == (True, 3)
    assert found.given == {
        "temperature", "top_p", "top_k", "max_tokens", "stop", "n", "seed", "presence_penalty", "frequency_penalty",
        "logprobs", "top_logprobs",
    }  # fmt: skip
    assert asked().given == frozenset()


@pytest.mark.parametrize(
    ("said", "effort", "tokens", "shown"),
    [
        ({}, None, None, False),
        ({"includeThoughts": True}, None, None, True),
        ({"include_thoughts": True, "thinking_budget": 1024}, None, 1024, True),
        ({"thinkingBudget": -1}, None, None, False),
        ({"thinkingBudget": 0}, Effort.NONE, None, False),
        ({"thinkingLevel": "LOW"}, Effort.LOW, None, False),
        ({"thinking_level": "high"}, Effort.HIGH, None, False),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED", "thinkingBudget": 5}, None, 5, False),
    ],
)
def test_thinking(said: dict[str, Any], effort: Effort | None, tokens: int | None, shown: bool) -> None:
    found = configured(thinkingConfig=said)
    assert (found.chat.effort, found.chat.sampling.thinking_tokens, found.show_thinking) == (effort, tokens, shown)
    assert ("thinking_tokens" in found.given) == (tokens is not None)


def test_snake_case_is_the_same_but_within_what_is_the_clients_own() -> None:
    schema = {"type": "OBJECT", "properties": {"first_name": {"type": "STRING", "min_length": "2"}}}
    snake = {
        "system_instruction": {"parts": [{"text": "s"}]},
        "generation_config": {"top_p": 0.5, "response_mime_type": "application/json", "response_schema": schema},
        "tools": [{"function_declarations": [{"name": "f", "parameters_json_schema": {"a_b": 1}}]}],
        "tool_config": {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["f"]}},
        "labels": {"my_label": "x"},
    }
    found = asked(**snake)
    assert found.chat.json_format is not None
    assert found.chat.json_format.schema == {
        "type": "object", "properties": {"first_name": {"type": "string", "minLength": 2}}
    }  # fmt: skip
    assert found.chat.tools == (Tool("f", {"a_b": 1}),)
    assert found.chat.tool_choice == ToolChoice(ToolMode.NAMED, "f")
    assert (found.chat.sampling.top_p, found.labels) == (0.5, {"my_label": "x"})


def test_a_schema_becomes_json_schema() -> None:
    schema = {
        "type": "OBJECT",
        "nullable": True,
        "required": ["b"],
        "propertyOrdering": ["b", "a"],
        "properties": {
            "a": {"type": "INTEGER", "format": "int32", "example": 3},
            "b": {"type": "STRING", "enum": ["x"], "nullable": True, "format": "enum"},
            "c": {"anyOf": [{"type": "NUMBER"}, {"type": "ARRAY", "items": {"type": "STRING"}, "maxItems": 2}]},
        },
    }
    found = configured(responseMimeType="application/json", responseSchema=schema).chat.json_format
    assert found is not None
    assert found.schema == {
        "type": ["object", "null"],
        "required": ["b"],
        "properties": {
            "b": {"type": ["string", "null"], "enum": ["x", None]},
            "a": {"type": "integer", "examples": [3]},
            "c": {"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "string"}, "maxItems": 2}]},
        },
    }
    assert list(found.schema["properties"]) == ["b", "a", "c"]
    assert configured(responseMimeType="application/json").chat.json_format == JsonFormat()


@pytest.mark.parametrize(
    ("mode", "names", "shown", "choice"),
    [
        ("AUTO", [], "fgh", ToolChoice()),
        ("VALIDATED", ["f", "h"], "fh", ToolChoice()),
        ("NONE", [], "fgh", ToolChoice(ToolMode.NONE)),
        ("ANY", [], "fgh", ToolChoice(ToolMode.REQUIRED)),
        ("ANY", ["g"], "fgh", ToolChoice(ToolMode.NAMED, "g")),
        ("ANY", ["g", "h"], "gh", ToolChoice(ToolMode.REQUIRED)),
    ],
)
def test_tool_choice(mode: str, names: list[str], shown: str, choice: ToolChoice) -> None:
    config = {"functionCallingConfig": {"mode": mode, "allowedFunctionNames": names}}
    found = asked(tools=[{"functionDeclarations": [{"name": name} for name in "fgh"]}], toolConfig=config).chat
    assert ("".join(tool.name for tool in found.tools), found.tool_choice) == (shown, choice)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"contents": []}, "contents"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "contents[0].role"),
        ({"contents": [{"parts": []}]}, "contents[0].parts"),
        ({"contents": [{"parts": [{"text": "x", "inline_data": {"mime_type": "a", "data": ""}}]}]},
         "contents[0].parts[0]"),
        ({"contents": [{"parts": [{"inline_data": {"mime_type": "audio/mp3", "data": "AA=="}}]}]},
         "contents[0].parts[0].inline_data.mime_type"),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "#"}}]}]},
         "contents[0].parts[0].inlineData.data"),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "gs://x"}}]}]}, "contents[0].parts[0].fileData.fileUri"),
        ({"contents": [{"parts": [{"text": "x", "audioMetadata": {"a": 1}}]}]}, "contents[0].parts[0].audioMetadata"),
        ({"contents": [{"parts": [{"executableCode": {"code": "1"}}]}]}, "contents[0].parts[0].executableCode"),
        ({"contents": [{"parts": [{"text": "x", "thought": True}]}]}, "contents[0].parts[0].thought"),
        ({"contents": [{"role": "model", "parts": [{"fileData": {"fileUri": "https://x/y"}}]}]},
         "contents[0].parts[0].fileData"),
        ({"contents": [{"parts": [{"text": 1}]}]}, "contents[0].parts[0].text"),
        ({"generationConfig": {"temperature": 2.5}}, "generationConfig.temperature"),
        ({"generation_config": {"top_k": 1.5}}, "generation_config.top_k"),
        ({"generationConfig": {"candidateCount": 9}}, "generationConfig.candidateCount"),
        ({"generationConfig": {"logprobs": 2}}, "generationConfig.logprobs"),
        ({"generationConfig": {"stopSequences": list("abcdef")}}, "generationConfig.stopSequences"),
        ({"generationConfig": {"responseSchema": {}}}, "generationConfig.responseSchema"),
        ({"generationConfig": {"responseMimeType": "text/x.enum"}}, "generationConfig.responseMimeType"),
        ({"generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}}, "generationConfig.responseModalities[1]"),
        ({"generationConfig": {"speech_config": {"a": 1}}}, "generationConfig.speech_config"),
        ({"generationConfig": {"thinkingConfig": {"thinkingBudget": 5, "thinkingLevel": "LOW"}}},
         "generationConfig.thinkingConfig.thinkingBudget"),
        ({"safetySettings": [{"category": "A", "threshold": "OFF"}, {"threshold": "BLOCK_LOW_AND_ABOVE"}]},
         "safetySettings[1].threshold"),
        ({"tools": [{"googleSearch": {}}]}, "tools[0].googleSearch"),
        ({"tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJEKT"}}]}]},
         "tools[0].functionDeclarations[0].parameters.type"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, "toolConfig.functionCallingConfig.mode"),
        ({"cachedContent": "x"}, "cachedContent"),
        ({"continuationToken": "x"}, "continuationToken"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"store": True}, "store"),
        ({"generationConfig": {"top_p": 1, "topP": 1}}, "topP"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    told = refused(**fields)
    assert told.field == field
    assert told.kind is Kind.INVALID
    assert told.message.startswith(f"{field}: ")


def test_unknown_fields_are_told_as_such() -> None:
    for fields, field in (
        ({"typo": 1}, "typo"),
        ({"generation_config": {"top_typo": 1}}, "generation_config.top_typo"),
        ({"generationConfig": {"responseSchema": {"typo": 1}}}, "generationConfig.responseSchema.typo"),
    ):
        told = refused(**fields)
        assert (told.kind, told.field) == (Kind.UNKNOWN_FIELD, field)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b'{"contents": 1}'])
def test_what_is_no_body(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        google.read_request(raw, "nano")


def test_what_asks_for_nothing_is_accepted() -> None:
    found = asked(
        tools=[], safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}], store=False,
        cachedContent=None, generationConfig={"responseModalities": ["TEXT", "text"], "audioTimestamp": False,
        "mediaResolution": "MEDIA_RESOLUTION_UNSPECIFIED", "speechConfig": None},
    )  # fmt: skip
    assert found.chat == asked().chat


def test_counting() -> None:
    inner = {"model": "models/nano", "contents": [{"parts": [{"text": "hi"}]}]}
    whole = json.dumps({"generateContentRequest": inner}).encode()
    assert google.read_count_request(whole, "nano").chat == google.read_count_request(body(), "nano").chat
    assert google.write_count(7) == b'{"totalTokens":7}'
    with pytest.raises(BadRequest, match=r"^generateContentRequest\.contents\[0\]\.parts: "):
        google.read_count_request(b'{"generateContentRequest": {"contents": [{}]}}')
    with pytest.raises(BadRequest, match=r"^contents: "):
        google.read_count_request(b'{"contents": [{}], "generateContentRequest": {}}')


def frames(data: bytes) -> list[Any]:
    assert data.endswith(b"\r\n\r\n")
    assert b":\r\n" not in data
    return [json.loads(frame.removeprefix(b"data: ")) for frame in data.split(b"\r\n\r\n")[:-1]]


def _frames(data: bytes) -> list[Any]:
    return frames(data) if data else []


def test_a_stream_frame_by_frame() -> None:
    writer = google.write_events(configured(thinkingConfig={"includeThoughts": True}), STAMP)
    said = writer.write([ThinkingDelta(text="h"), ThinkingDelta(text="m"), ThinkingDelta(text="", closed=True)])
    said += writer.write([TextDelta(text="h")])
    said += writer.write([ToolCallDelta(index=0, name="f"), ToolCallDelta(index=0, arguments='{"a":\n1}')])
    usage = Usage(prompt_tokens=3, thinking_tokens=4, completion_tokens=6, cached_tokens=1)
    said += writer.write([usage, Finish(reason=FinishReason.TOOL_CALLS)]) + writer.end()

    def frame(*parts: Any, **more: Any) -> Any:
        return {"content": {"parts": list(parts), "role": "model"}, **more, "index": 0}

    first, second, last = frames(said)
    about = {"modelVersion": "nano", "responseId": "a" * 32}
    thought = {"text": "hm", "thought": True, "thoughtSignature": sign(KEY, "hm")}
    assert first == {"candidates": [frame(thought)], **about}
    assert second == {"candidates": [frame({"text": "h"})], **about}
    call = {"functionCall": {"id": "call_aaaaaaaaaaaaaaaa_0_0", "name": "f", "args": {"a": 1}}}
    assert last["candidates"] == [frame(call | {"thoughtSignature": seal(KEY, "hm")}, finishReason="STOP")]
    assert last["usageMetadata"] == {
        "promptTokenCount": 3, "candidatesTokenCount": 2, "thoughtsTokenCount": 4, "totalTokenCount": 9,
        "cachedContentTokenCount": 1,
    }  # fmt: skip


def test_hidden_thoughts_are_counted_and_not_shown() -> None:
    events: list[Event] = [
        ThinkingDelta(text="hm", closed=True), TextDelta(text="hi"),
        Usage(thinking_tokens=2, completion_tokens=3), Finish(reason=FinishReason.LENGTH),
    ]  # fmt: skip
    writer = google.write_events(asked(), STAMP)
    assert writer.write(events[:1]) == b""
    (streamed,) = frames(writer.write(events[1:]) + writer.end())
    assert streamed == json.loads(google.write_reply(asked(), fold(events), STAMP))
    assert streamed["candidates"][0]["content"]["parts"] == [{"text": "hi", "thoughtSignature": seal(KEY, "hm")}]
    assert streamed["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert streamed["usageMetadata"]["thoughtsTokenCount"] == 2


def test_a_thoughts_end_by_itself_brings_its_signature() -> None:
    writer = google.write_events(configured(thinkingConfig={"includeThoughts": True}), STAMP)
    writer.write([ThinkingDelta(text="hm")])
    (last,) = frames(writer.write([ThinkingDelta(text="", closed=True)]))
    signed = {"text": "", "thought": True, "thoughtSignature": sign(KEY, "hm")}
    assert last["candidates"][0]["content"]["parts"] == [signed]
    cut: list[Event] = [ThinkingDelta(text="hm"), Finish(reason=FinishReason.LENGTH)]
    for shown in (True, False):
        wanted = configured(thinkingConfig={"includeThoughts": shown})
        assert b"thoughtSignature" not in google.write_events(wanted, STAMP).write(cut)
        assert b"thoughtSignature" not in google.write_reply(wanted, fold(cut), STAMP)


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("calls", [0, 2])
def test_what_was_said_comes_back_with_its_thought(shown: bool, calls: int) -> None:
    events: list[Event] = [ThinkingDelta(text="hm", closed=True), TextDelta(text="so")]
    events += [ToolCallDelta(index=at, id=f"c{at}", name="f", arguments='{"a": 1}') for at in range(calls)]
    events += [Usage(), Finish(reason=FinishReason.TOOL_CALLS if calls else FinishReason.END)]
    wanted = configured(thinkingConfig={"includeThoughts": shown})
    writer = google.write_events(wanted, STAMP)
    streamed = [frame["candidates"][0]["content"] for event in events for frame in _frames(writer.write([event]))]
    whole = json.loads(google.write_reply(wanted, fold(events), STAMP))["candidates"][0]["content"]
    assert sum("functionCall" in part and "thoughtSignature" in part for part in whole["parts"]) == min(calls, 1)
    for turns in (streamed, [whole]):
        read = asked(contents=[{"parts": [{"text": "q"}]}, *turns]).chat.messages[1]
        assert (read.thinking, read.text, read.tool_calls) == ("hm", "so", fold(events).message.tool_calls)


def test_a_thought_under_seal_has_only_our_key() -> None:
    def replayed(*parts: Any) -> Message:
        return asked(contents=[{"parts": [{"text": "q"}]}, {"role": "model", "parts": list(parts)}]).chat.messages[1]

    call: Any = {"functionCall": {"name": "f"}}
    ours, foreign = seal(KEY, "ÿÿÿ hm?>"), seal(b"other", "hm")
    standard = ours.replace("-", "+").replace("_", "/")
    for sealed in (ours, standard):
        assert replayed({**call, "thoughtSignature": sealed}).thinking == "ÿÿÿ hm?>"
    assert replayed({"text": "", "thought": True, "thoughtSignature": ours}, {"text": "so"}).thinking == "ÿÿÿ hm?>"
    assert replayed({**call, "thoughtSignature": foreign}).thinking == ""
    assert replayed({"text": "so", "thoughtSignature": "c2ln"}) == assistant("so")
    shown: Any = {"text": "h", "thought": True}
    assert replayed(shown, {**call, "thoughtSignature": ours}).thinking == "h"
    counted = json.dumps({"contents": [{"role": "model", "parts": [{**call, "thoughtSignature": ours}]}]}).encode()
    assert google.read_count_request(counted, "nano", signing_key=KEY).chat.messages[0].thinking == "ÿÿÿ hm?>"


def test_an_end_by_itself_still_has_a_part() -> None:
    writer = google.write_events(asked(), STAMP)
    writer.write([TextDelta(text="hi")])
    (last,) = frames(writer.write([Finish(reason=FinishReason.END)]))
    assert last["candidates"][0]["content"]["parts"] == [{"text": ""}]


def test_the_cost_comes_once_with_the_last_choice() -> None:
    writer = google.write_events(configured(candidateCount=2), STAMP)
    first = writer.write([TextDelta(text="a"), Usage(prompt_tokens=2), Finish(reason=FinishReason.END)])
    second = writer.write([TextDelta(text="b", choice=1), Usage(completion_tokens=5, choice=1)])
    last = writer.write([Finish(reason=FinishReason.END, choice=1)])
    assert "usageMetadata" not in frames(first)[0]
    assert [one["index"] for frame in frames(second + last) for one in frame["candidates"]] == [1, 1]
    assert frames(last)[0]["usageMetadata"]["totalTokenCount"] == 7
    assert writer.end() == b""


def test_broken_arguments_and_loops_have_their_reasons() -> None:
    broken: list[Event] = [ToolCallDelta(index=0, name="f", arguments='{"a'), Finish(reason=FinishReason.TOOL_CALLS)]
    (candidate,) = json.loads(google.write_reply(asked(), fold(broken), STAMP))["candidates"]
    assert candidate["finishReason"] == "MALFORMED_FUNCTION_CALL"
    assert "'f'" in candidate["finishMessage"]
    loop = fold([TextDelta(text="a"), Finish(reason=FinishReason.REPETITION)])
    assert google.read_reply(google.write_reply(asked(), loop, STAMP)) == loop


def test_logprobs_of_every_token() -> None:
    def token(number: int, said: bytes) -> EventToken:
        top = (TokenLogprob(number, -0.5, said), TokenLogprob(9, -2.0, b"z"))
        return EventToken(id=number, bytes=said, logprob=-0.5, sampled_logprob=-0.5, top=top)

    wanted = configured(responseLogprobs=True, logprobs=2)
    events: list[Event] = [
        TextDelta(text="hi", tokens=(token(1, b"h"), token(2, b"i"))),
        Finish(reason=FinishReason.END),
    ]
    reply = fold(events)
    body = google.write_reply(wanted, reply, STAMP)
    (candidate,) = json.loads(body)["candidates"]
    assert candidate["logprobsResult"]["chosenCandidates"][1] == {
        "token": "i", "tokenId": 2, "logProbability": -0.5
    }  # fmt: skip
    assert len(candidate["logprobsResult"]["topCandidates"][0]["candidates"]) == 2
    assert candidate["avgLogprobs"] == -0.5
    assert google.read_reply(body) == reply
    assert "logprobsResult" not in json.loads(google.write_reply(asked(), reply, STAMP))["candidates"][0]


@pytest.mark.parametrize("shown", [True, False])
def test_logprobs_of_a_hidden_thought_are_hidden(shown: bool) -> None:
    def token(said: bytes, logprob: float) -> EventToken:
        return EventToken(id=1, bytes=said, logprob=logprob, sampled_logprob=logprob)

    wanted = configured(responseLogprobs=True, thinkingConfig={"includeThoughts": shown})
    events: list[Event] = [
        ThinkingDelta(text="hm", closed=True, tokens=(token(b"hm", -4.0), token(b"[/THINK]", 0.0))),
        TextDelta(text="a", tokens=(token(b"a", -1.0),)),
        TextDelta(text="b", tokens=(token(b"b", -2.0),)),
        Usage(thinking_tokens=2, completion_tokens=4),
        Finish(reason=FinishReason.END),
    ]
    (whole,) = json.loads(google.write_reply(wanted, fold(events), STAMP))["candidates"]
    writer = google.write_events(wanted, STAMP)
    streamed = [frame["candidates"][0] for event in events for frame in _frames(writer.write([event]))]
    told = whole["logprobsResult"]["chosenCandidates"]
    assert [one["token"] for one in told] == (["hm", "[/THINK]"] if shown else []) + ["a", "b"]
    assert [one for part in streamed for one in part.get("logprobsResult", {}).get("chosenCandidates", ())] == told
    # The average is of all frames, though the last one tells no token.
    assert streamed[-1]["avgLogprobs"] == whole["avgLogprobs"] == (-1.75 if shown else -1.5)


@pytest.mark.parametrize("kind", list(Kind))
def test_errors_say_and_are_read_back(kind: Kind) -> None:
    fault = Fault(kind=kind, message="no", field="contents[0]", retry_after=2.5)
    told = google.write_error(fault, "r1")
    error = json.loads(told.body)["error"]
    assert (error["code"], error["message"]) == (told.status, "no")
    assert error["status"].isupper()
    assert told.headers == (("retry-after", "3"),)
    assert google.read_error(told.status, told.body) == fault


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (429, b'{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}', Kind.RATE),
        (404, b'{"error":{"message":"x","details":[{"@type":"x","retryDelay":"?s"}, 3]}}', Kind.NO_MODEL),
        (504, b"<html>", Kind.UPSTREAM),
        (418, b"[]", Kind.INVALID),
        (500, b"{}", Kind.FAILED),
    ],
)
def test_errors_of_other_servers(status: int, said: bytes, kind: Kind) -> None:
    assert google.read_error(status, said).kind is kind


def test_a_stream_that_fails_says_so_and_is_read_so() -> None:
    writer = google.write_events(asked(), STAMP)
    said = writer.write([TextDelta(text="h"), Finish(reason=FinishReason.ERROR, error="gone")])
    text, failed = frames(said)
    assert text["candidates"][0]["content"]["parts"] == [{"text": "h"}]
    # The Python client finds an error by these first bytes.
    assert said.split(b"\r\n\r\n")[1].startswith(b'data: {"error":')
    assert failed["error"]["message"] == "gone"
    reader = google.read_events()
    with pytest.raises(Exception, match="gone"):
        reader.feed(said)


def test_models_in_pages() -> None:
    cards = [Card(name=name, created=1, context=4096) for name in ("a", "b", "c")]
    first = json.loads(google.write_models(cards, {"pageSize": "2"}))
    assert [model["name"] for model in first["models"]] == ["models/a", "models/b"]
    second = json.loads(google.write_models(cards, {"pageSize": "2", "pageToken": first["nextPageToken"]}))
    assert [model["name"] for model in second["models"]] == ["models/c"]
    assert "nextPageToken" not in second
    assert json.loads(google.write_model(cards[0])) == first["models"][0]
    for query in ({"pageSize": "x"}, {"pageToken": "z"}):
        with pytest.raises(BadRequest):
            google.write_models(cards, query)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("system_prompt", {"system_prompt": SystemPrompt.REPLACE}),
    ("keep_thinking", {"keep_thinking": False}),
    ("effort", {"effort": Effort.MAX}),
    ("json_format.name", {"json_format": JsonFormat(name="mine")}),
    ("tool_choice.parallel", {"tool_choice": ToolChoice(parallel=False)}),
    ("messages[1].role", {"messages": (user("a"), system("b"))}),
    ("messages[2]", {"messages": (user("a"), assistant("b"), assistant("c"))}),
    ("messages[1].parts", {"messages": (user("a"), assistant("b", Thinking("c")))}),
    ("messages[1].parts[0].closed", {"messages": (user("a"), assistant(Thinking("c", closed=False)))}),
    ("messages[1].parts[0].arguments", {"messages": (user("a"), assistant(ToolCall("1", "f", "[]")))}),
    ("messages[1].parts[0].call_id", {"messages": (user("a"), Message(Role.TOOL, (ToolResult("1", "x"),)))}),
    ("messages[0].parts[0]", {"messages": (user(Image(data=b"?")),)}),
    ("messages[0].parts[0]", {"messages": (user(Thinking("x")),)}),
    ("messages[0].parts", {"messages": (Message(Role.USER, ()),)}),
    ("messages[1].parts[0].text", {"messages": (user("a"), assistant(Text("")))}),
]


@pytest.mark.parametrize(("field", "changes"), REFUSED)
def test_what_google_cannot_say_is_refused(field: str, changes: dict[str, Any]) -> None:
    chat = msgspec.structs.replace(asked().chat, **changes)
    with pytest.raises(Refused) as caught:
        google.write_request(Asked(chat=chat, show_thinking=False))
    assert caught.value.field == field


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_what_google_signs_goes_back_where_it_looks_for_it() -> None:
    call = {"functionCall": {"id": "c1", "name": "f", "args": {}}, "thoughtSignature": "c2ln"}
    content = {"role": "model", "parts": [{"text": "hm", "thought": True}, call]}
    heard = google.read_reply(json.dumps({"candidates": [{"content": content, "finishReason": "STOP"}]}).encode())
    assert heard.message == assistant(Thinking("hm", signature="c2ln"), ToolCall("c1", "f", "{}"))
    chat = ChatRequest(messages=(user("q"), heard.message), model="nano")
    assert json.loads(google.write_request(Asked(chat=chat)))["contents"][1]["parts"][1] == call
