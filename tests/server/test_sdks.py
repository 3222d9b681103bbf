"""The published SDKs, unmodified, against `magister serve` with nano: every one says and gets the same."""

from __future__ import annotations

import base64
import importlib
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image
from tests.server.sdk import said as asked
from tests.server.sdk.said import Said
from tests.server.served import ask, at_rest, counted

NODE = Path(__file__).parent / "node"
BOTH = {"missing": "NotFoundError", "wrong": "BadRequestError"}


class Driver(NamedTuple):
    """One SDK."""

    run: tuple[str, ...]
    """A module of tests.server.sdk, or a script in tests/server/node with its arguments."""
    errors: dict[str, str]
    """The SDK's own classes of errors, or the server's codes where it has no classes."""


DRIVERS = {
    "python-openai-chat": Driver(("openai_chat",), BOTH),
    "python-openai-responses": Driver(("openai_responses",), BOTH),
    "python-anthropic": Driver(("anthropic_messages",), BOTH),
    "python-google": Driver(("google_genai",), dict.fromkeys(BOTH, "ClientError")),
    "python-mistral": Driver(("mistral_chat",), dict.fromkeys(BOTH, "SDKError")),
    "node-openai-chat": Driver(("openai.mjs", "chat"), BOTH),
    "node-openai-responses": Driver(("openai.mjs", "responses"), BOTH),
    "node-anthropic": Driver(("anthropic.mjs",), BOTH),
    "node-google": Driver(("google.mjs",), dict.fromkeys(BOTH, "ApiError")),
    "node-mistral": Driver(("mistral.mjs",), dict.fromkeys(BOTH, "SDKError")),
    "node-puter": Driver(("puter.mjs",), {"missing": "model_not_found", "wrong": "bad_request"}),
}
PIXELS = 140
"""Across and down; five by five tokens of an image, four line breaks and its end."""


@pytest.fixture(params=DRIVERS)
def sdk(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name.startswith("node-") and not (shutil.which("node") and (NODE / "node_modules" / "openai").is_dir()):
        pytest.skip("needs node and npm (Debian: nodejs npm), then `make setup`")
    return name


@cache
def heard(name: str, base: str) -> Said:
    """What an SDK told; it is asked once, and left in the middle of its last stream."""
    head, *more = DRIVERS[name].run
    left = counted(base, "magister_disconnects_total")
    if not head.endswith(".mjs"):
        drive: Callable[[str], Said] = importlib.import_module(f"tests.server.sdk.{head}").drive
        said = drive(base)
    else:
        done = subprocess.run(["node", head, base, *more], cwd=NODE, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
    assert at_rest(base), "a client that left is still answered"
    assert counted(base, "magister_disconnects_total") == left + 1
    return said


@cache
def truth(base: str) -> tuple[str, str, int]:
    """The thought, the answer and the thought's tokens, by plain HTTP."""
    messages = [{"role": "user", "content": asked.QUESTION}]
    reply = ask(base, "/v1/chat/completions", {"model": "nano", "messages": messages})
    message = reply["choices"][0]["message"]
    assert len(message["reasoning"]) > 3
    return message["reasoning"], message["content"], reply["usage"]["completion_tokens_details"]["reasoning_tokens"]


def test_the_long_question_is_long_enough_to_be_left(nano: str) -> None:
    messages = [{"role": "user", "content": asked.LONG}]
    usage = ask(nano, "/v1/chat/completions", {"model": "nano", "messages": messages})["usage"]
    assert usage["completion_tokens"] > 500


def test_whole_and_streamed_replies_are_the_same(sdk: str, nano: str) -> None:
    said, (thinking, text, _) = heard(sdk, nano), truth(nano)
    assert said["plain"] == {"thinking": thinking, "text": text}
    assert (said["streamed"]["thinking"], said["streamed"]["text"]) == (thinking, text)
    # How many depends on how busy the machine is; that they come before the end, the stream that was left has shown.
    assert said["streamed"]["pieces"] >= 1


def test_thinking_that_is_replayed_is_thinking_in_the_prompt(sdk: str, nano: str) -> None:
    turns = heard(sdk, nano)["turns"]
    assert turns["replayed"] - turns["bare"] == truth(nano)[2]


def test_tools_are_called_and_their_results_come_back(sdk: str, nano: str) -> None:
    called = heard(sdk, nano)["called"]
    assert called["after"]
    if sdk == "node-puter":
        # It cannot ask for a call, so one was made up: it and its result are in the prompt, and no thought.
        assert called["prompt"] > heard("python-openai-chat", nano)["turns"]["bare"]
        return
    assert called["name"] in (asked.WEATHER, asked.CLOCK)
    assert set(called["arguments"]) == {"unit"}
    assert called["arguments"]["unit"] in ("C", "F")
    assert called["named"] == asked.CLOCK
    # All SDKs have said the same, so the prompt with the call, its thought and its result has one size.
    assert called["prompt"] == heard("python-openai-chat", nano)["called"]["prompt"]
    assert called["prompt"] > heard("python-openai-chat", nano)["turns"]["bare"]


def test_an_answer_has_the_form_that_was_asked_for(sdk: str, nano: str) -> None:
    formed = json.loads(heard(sdk, nano)["formed"])
    assert sorted(formed) == ["kind", "right"]
    assert isinstance(formed["right"], bool)
    assert formed["kind"] in ("sum", "product")


def test_errors_are_the_sdks_own_and_name_the_field(sdk: str, nano: str) -> None:
    said, errors = heard(sdk, nano), DRIVERS[sdk].errors
    missing, wrong = said["missing"], said["wrong"]
    assert (missing["kind"], missing["status"]) == (errors["missing"], 404)
    assert "is not loaded here" in missing["message"]
    assert (wrong["kind"], wrong["status"]) == (errors["wrong"], 400)
    assert "temperature: must be from 0 to" in wrong["message"]


def test_completions(nano: str) -> None:
    import openai

    with openai.OpenAI(base_url=f"{nano}/v1", api_key="any", max_retries=0) as client:
        api: Any = client.completions
        ids = ask(nano, "/tokenize", {"model": "nano", "prompt": "1 2 3 4"})["tokens"]
        words, numbers = (api.create(model="nano", prompt=prompt, max_tokens=8) for prompt in ("1 2 3 4", ids))
        assert words.choices[0].text == numbers.choices[0].text
        assert words.usage.prompt_tokens == len(ids)
        pieces = list(api.create(model="nano", prompt="1 2 3 4", max_tokens=8, stream=True))
        assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == words.choices[0].text
        echoed = api.create(model="nano", prompt="1 2 3 4", max_tokens=8, echo=True, logprobs=1).choices[0]
        assert echoed.text == "1 2 3 4" + words.choices[0].text
        assert len(echoed.logprobs.token_logprobs) == len(echoed.logprobs.tokens) >= len(ids)
        with pytest.raises(openai.NotFoundError, match="not loaded here"):
            api.create(model="gpt-9", prompt="1")
        with pytest.raises(openai.BadRequestError, match="suffix"):
            api.create(model="nano", prompt="1", suffix="2")
        left = counted(nano, "magister_disconnects_total")
        stream = api.create(model="nano", prompt="1 2 3 4", max_tokens=900, stream=True, logit_bias={"2": -100})
        next(iter(stream))
        stream.close()
        assert at_rest(nano)
        assert counted(nano, "magister_disconnects_total") == left + 1


def test_what_another_model_answers_for_says_so(nano: str) -> None:
    import openai

    with openai.OpenAI(base_url=f"{nano}/v1", api_key="any", max_retries=0) as client:
        create: Any = client.chat.completions.with_raw_response.create
        for name in ("magistral-small-2509", "mistralai/magistral-small-2509", "mistral/magistral-small-2509"):
            raw = create(model=name, messages=[{"role": "user", "content": "hi"}], max_tokens=1)
            assert raw.parse().model == "nano"
            assert any("nano" in value and "magistral" in value for value in raw.headers.values())


@cache
def picture() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((PIXELS, PIXELS), 50).convert("RGB").save(out, "PNG")
    return out.getvalue()


def openai_eyes(base: str, image: bool) -> int:
    import openai

    url = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    parts: Any = [{"type": "image_url", "image_url": {"url": url}}] * image + [{"type": "text", "text": "what"}]
    with openai.OpenAI(base_url=f"{base}/v1", api_key="any", max_retries=0) as client:
        reply = client.chat.completions.create(
            model="eyes", messages=[{"role": "user", "content": parts}], max_tokens=4
        )
    assert reply.usage is not None
    return reply.usage.prompt_tokens


def responses_eyes(base: str, image: bool) -> int:
    import openai

    url = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    parts: Any = [{"type": "input_image", "image_url": url, "detail": "auto"}] * image
    parts += [{"type": "input_text", "text": "what"}]
    with openai.OpenAI(base_url=f"{base}/v1", api_key="any", max_retries=0) as client:
        reply = client.responses.create(model="eyes", input=[{"role": "user", "content": parts}], max_output_tokens=16)
    assert reply.usage is not None
    return reply.usage.input_tokens


def anthropic_eyes(base: str, image: bool) -> int:
    import anthropic

    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(picture()).decode()}
    parts: Any = [{"type": "image", "source": source}] * image + [{"type": "text", "text": "what"}]
    with anthropic.Anthropic(base_url=base, api_key="any", max_retries=0) as client:
        reply = client.messages.create(model="eyes", max_tokens=4, messages=[{"role": "user", "content": parts}])
    return reply.usage.input_tokens + (reply.usage.cache_read_input_tokens or 0)


def google_eyes(base: str, image: bool) -> int:
    from google import genai
    from google.genai import types

    parts: Any = [types.Part.from_bytes(data=picture(), mime_type="image/png")] * image + ["what"]
    with genai.Client(api_key="any", http_options=types.HttpOptions(base_url=base)) as client:
        config = types.GenerateContentConfig(max_output_tokens=4)
        reply = client.models.generate_content(model="eyes", contents=parts, config=config)
    assert reply.usage_metadata is not None
    return reply.usage_metadata.prompt_token_count or 0


def mistral_eyes(base: str, image: bool) -> int:
    from mistralai.client import Mistral

    url = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    parts: Any = [{"type": "image_url", "image_url": url}] * image + [{"type": "text", "text": "what"}]
    with Mistral(api_key="any", server_url=base) as client:
        reply = client.chat.complete(model="eyes", messages=[{"role": "user", "content": parts}], max_tokens=4)
    return reply.usage.prompt_tokens or 0


@pytest.mark.parametrize("eyes", [openai_eyes, responses_eyes, anthropic_eyes, google_eyes, mistral_eyes])
def test_images_are_seen(eyes: Callable[[str, bool], int], seeing: str) -> None:
    across = PIXELS // 28
    assert eyes(seeing, True) - eyes(seeing, False) == across * (across + 1)
