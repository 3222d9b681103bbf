"""The published google-genai, unmodified, against a running server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pydantic
import pytest
from google import genai
from google.genai import errors, types
from tests.server.puter_world import SETTINGS, World, serving

from magister.types import Image, Thinking, ToolCall, ToolChoice, ToolMode
from magister.wire.signature import verify

WORLD = World()


@pytest.fixture(scope="module", params=["v1", "v1beta"])
def client(request: Any) -> Iterator[genai.Client]:
    with serving(WORLD) as url:
        options = types.HttpOptions(base_url=url, api_version=request.param)
        with genai.Client(api_key="any", http_options=options) as found:
            yield found


def ask(client: genai.Client, contents: Any, **config: Any) -> types.GenerateContentResponse:
    return client.models.generate_content(model="nano", contents=contents, config=types.GenerateContentConfig(**config))


def test_whole(client: genai.Client) -> None:
    thinking = types.ThinkingConfig(include_thoughts=True, thinking_budget=1024)
    found = ask(client, "hi", thinking_config=thinking, temperature=0.5, top_k=40, seed=1, max_output_tokens=9)
    assert found.text == "schön: hi"
    assert found.candidates
    parts = found.candidates[0].content and found.candidates[0].content.parts
    assert parts
    assert (parts[0].text, parts[0].thought) == ("hm: hi", True)
    assert found.usage_metadata
    assert (found.usage_metadata.candidates_token_count, found.usage_metadata.thoughts_token_count) == (3, 2)
    assert WORLD.chat.asked[-1].sampling.thinking_tokens == 1024
    assert len(ask(client, "hi").candidates[0].content.parts) == 1  # type: ignore[index, union-attr, arg-type]


def test_streamed(client: genai.Client) -> None:
    chunks = list(client.models.generate_content_stream(model="nano", contents="hi"))
    assert "".join(chunk.text or "" for chunk in chunks) == "schön: hi"
    assert chunks[-1].candidates
    assert chunks[-1].candidates[0].finish_reason is types.FinishReason.STOP


def test_images(client: genai.Client) -> None:
    picture = types.Part.from_bytes(data=b"\x89PNG\r\n\x1a\n", mime_type="image/png")
    assert ask(client, ["look", picture]).text == "schön: look with an image"
    assert WORLD.chat.asked[-1].messages[-1].parts[1] == Image(data=b"\x89PNG\r\n\x1a\n")


def test_a_call_and_its_result(client: genai.Client) -> None:
    city = types.Schema(type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)})
    declared = types.FunctionDeclaration(name="weather", parameters=city)
    tools: Any = [types.Tool(function_declarations=[declared])]
    wanted = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=["weather"])
    found = ask(client, "call", tools=tools, tool_config=types.ToolConfig(function_calling_config=wanted))
    assert found.function_calls
    assert (found.function_calls[0].name, found.function_calls[0].args) == ("weather", {"city": "Köln"})
    request = WORLD.chat.asked[-1]
    assert request.tool_choice == ToolChoice(ToolMode.NAMED, "weather")
    assert request.tools[0].parameters == {"type": "object", "properties": {"city": {"type": "string"}}}
    assert found.candidates
    said = found.candidates[0].content
    result = types.Part.from_function_response(name="weather", response={"output": "sunny"})
    question = types.Content(role="user", parts=[types.Part(text="call")])
    ask(client, [question, said, types.Content(role="user", parts=[result])], tools=tools)
    replayed = WORLD.chat.asked[-1].messages[1].parts[-1]
    assert replayed == ToolCall("call_1", "weather", '{"city": "Köln"}')
    # The call carried the thought under seal; the client decoded it and encoded it again.
    assert WORLD.chat.asked[-1].messages[1].thinking == "hm: call"


def test_functions_that_the_client_calls_itself(client: genai.Client) -> None:
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"sunny in {city}"

    tools: Any = [weather]
    found = ask(client, "call", tools=tools)
    assert found.text == "schön: a result"
    assert '"result":"sunny in Köln"' in str(WORLD.chat.asked[-1].messages[-1])
    assert "Returns JSON by this schema" in WORLD.chat.asked[-1].tools[0].description


def test_two_turns_with_the_thought_replayed(client: genai.Client) -> None:
    shown = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(include_thoughts=True))
    chat = client.chats.create(model="nano", config=shown)
    for _ in chat.send_message_stream("one"):
        pass
    chat.send_message("two")
    thought = WORLD.chat.asked[-1].messages[1].parts[0]
    assert isinstance(thought, Thinking)
    assert verify(SETTINGS.signing_key, "hm: one", thought.signature or "")
    assert [message.role.value for message in WORLD.chat.asked[-1].messages] == ["user", "assistant", "user"]


@pytest.mark.parametrize("streams", [True, False])
def test_a_thought_that_was_never_shown_comes_back_under_seal(client: genai.Client, streams: bool) -> None:
    chat = client.chats.create(model="nano")
    said = list(chat.send_message_stream("one")) if streams else [chat.send_message("one")]
    assert "".join(one.text or "" for one in said) == "schön: one"
    chat.send_message("two")
    replayed = WORLD.chat.asked[-1].messages[1]
    assert (replayed.thinking, replayed.text) == ("hm: one", "schön: one")


def test_structured_output(client: genai.Client) -> None:
    class Answer(pydantic.BaseModel):
        number: int

    ask(client, "hi", response_mime_type="application/json", response_schema=Answer)
    wanted = WORLD.chat.asked[-1].json_format
    assert wanted is not None
    assert wanted.schema is not None
    assert wanted.schema["properties"]["number"]["type"] == "integer"
    ask(client, "hi", response_mime_type="application/json", response_json_schema={"type": "object"})
    wanted = WORLD.chat.asked[-1].json_format
    assert wanted is not None
    assert wanted.schema == {"type": "object"}


def test_counting_and_models(client: genai.Client) -> None:
    assert client.models.count_tokens(model="nano", contents="one two").total_tokens == 2
    assert [model.name for model in client.models.list()] == ["models/nano"]
    assert client.models.get(model="nano").input_token_limit == 4096


def test_errors(client: genai.Client) -> None:
    with pytest.raises(errors.ClientError) as missing:
        client.models.generate_content(model="other", contents="hi")
    assert (missing.value.code, missing.value.status) == (404, "NOT_FOUND")
    strict = types.SafetySetting(
        category=types.HarmCategory.HARM_CATEGORY_HARASSMENT, threshold=types.HarmBlockThreshold.BLOCK_ONLY_HIGH
    )
    with pytest.raises(errors.ClientError, match="safetySettings"):
        ask(client, "hi", safety_settings=[strict])
    with pytest.raises(errors.APIError, match="told to fail"):
        list(client.models.generate_content_stream(model="nano", contents="fail"))
