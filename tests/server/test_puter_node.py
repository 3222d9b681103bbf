"""The published @heyputer/puter.js and @google/genai in Node, unmodified, against a running server."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.puter_world import World, serving

NODE = Path(__file__).parent / "node"
pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and (NODE / "node_modules" / "@heyputer").is_dir()),
    reason="needs node and `npm ci` in tests/server/node",
)


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with serving(World()) as url:
        yield url


def node(script: str, base: str) -> Any:
    """What a script says with `tell(value)`."""
    head = f"""
        const base = {json.dumps(base)};
        const tell = (value) => console.log("TOLD " + JSON.stringify(value));
    """
    done = subprocess.run(
        ["node", "--input-type=module", "-e", head + script], cwd=NODE, capture_output=True, text=True, timeout=60
    )
    told = [line.removeprefix("TOLD ") for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert done.returncode == 0, done.stderr
    assert told, done.stderr
    return json.loads(told[-1])


PUTER = """
    import { createRequire } from "node:module";
    globalThis.PUTER_API_ORIGIN = base;
    globalThis.PUTER_ORIGIN = base;
    globalThis.puter_socket_enabled = false;
    const { init } = createRequire(process.cwd() + "/x.js")("@heyputer/puter.js/src/init.cjs");
    const puter = init("any");
    const said = {};
    const model = "mistralai/magistral-small-2509";
"""


def test_puter(base: str) -> None:
    script = (
        PUTER
        + """
    const whole = await puter.ai.chat("hi", { model });
    said.whole = [whole.message.content, whole.message.reasoning, `${whole}`, whole.model];
    const stream = await puter.ai.chat("hi", { model, stream: true, temperature: 0, max_tokens: 5 });
    said.types = [];
    said.text = "";
    for await (const part of stream) { said.types.push(part.type); said.text += part?.text ?? ""; }
    const tools = [{ type: "function", function: { name: "weather", description: "d",
                     parameters: { type: "object", properties: { city: { type: "string" } } } } }];
    const first = await puter.ai.chat("call", { tools });
    const [made] = first.message.tool_calls;
    said.call = [made.function.name, JSON.parse(made.function.arguments).city, first.finish_reason];
    const after = await puter.ai.chat([{ role: "user", content: "call" }, first.message,
      { role: "tool", tool_call_id: made.id, content: "sunny" }], { tools });
    said.after = after.message.content;
    said.image = (await puter.ai.chat("look", "data:image/png;base64,iVBORw0KGgo=")).message.content;
    said.test = await puter.ai.chat("hi", true);
    said.models = await puter.ai.listModels();
    said.user = await puter.auth.getUser();
    said.usage = await puter.auth.getMonthlyUsage();
    try { await puter.ai.chat("hi", { verbosity: "low" }); } catch (error) { said.error = error; }
    try { await puter.ai.chat("hi", { model: "gpt-9" }); } catch (error) { said.missing = error; }
    for await (const part of await puter.ai.chat("fail", { stream: true })) said.failed = part;
    tell(said);
    process.exit(0);
    """
    )
    said = node(script, base)
    assert said["whole"] == ["schön: hi", "hm: hi", "schön: hi", "nano"]
    assert said["types"][0] == "reasoning"
    assert said["types"][-1] == "usage"
    assert said["text"] == "schön: hi"
    assert said["call"] == ["weather", "Köln", "tool_calls"]
    assert said["after"] == "schön: a result"
    assert said["image"] == "schön: look with an image"
    assert said["test"]["test_mode"] is True
    assert [model["id"] for model in said["models"]] == ["nano"]
    assert {"username", "uuid"} <= set(said["user"])
    assert said["usage"]["allowanceInfo"]["remaining"] > 0
    assert said["error"]["error"]["field"] == "verbosity"
    assert said["missing"]["code"] == "model_not_found"
    assert (said["failed"]["type"], said["failed"]["message"]) == ("error", "told to fail")


def test_google(base: str) -> None:
    script = """
    import { GoogleGenAI, Type, FunctionCallingConfigMode } from "@google/genai";
    const ai = new GoogleGenAI({ apiKey: "any", httpOptions: { baseUrl: base } });
    const model = "nano", said = {};
    const shown = { thinkingConfig: { includeThoughts: true, thinkingBudget: 1024 } };
    const whole = await ai.models.generateContent({ model, contents: "hi", config: shown });
    said.whole = [whole.text, whole.candidates[0].content.parts[0].thought, whole.usageMetadata];
    said.stream = "";
    for await (const chunk of await ai.models.generateContentStream({ model, contents: "hi" }))
      said.stream += chunk.text ?? "";
    const weather = { name: "weather", parameters: { type: Type.OBJECT, properties: { city: { type: Type.STRING } } } };
    const config = { tools: [{ functionDeclarations: [weather] }],
                     toolConfig: { functionCallingConfig: { mode: FunctionCallingConfigMode.ANY } } };
    const called = await ai.models.generateContent({ model, contents: "call", config });
    said.call = called.functionCalls;
    const answer = { functionResponse: { name: "weather", id: said.call[0].id, response: { output: "sunny" } } };
    const back = await ai.models.generateContent({ model, config: { tools: config.tools }, contents: [
      { role: "user", parts: [{ text: "call" }] }, called.candidates[0].content, { role: "user", parts: [answer] }] });
    said.back = back.text;
    const chat = ai.chats.create({ model, config: shown });
    for await (const chunk of await chat.sendMessageStream({ message: "one" }));
    await chat.sendMessage({ message: "two" });
    said.history = chat.getHistory(true).map((turn) => turn.role);
    const format = { responseMimeType: "application/json", responseSchema: { type: Type.OBJECT, properties: {} } };
    said.format = (await ai.models.generateContent({ model, contents: "hi", config: format })).text;
    said.count = (await ai.models.countTokens({ model, contents: "one two" })).totalTokens;
    said.models = [];
    for await (const one of await ai.models.list()) said.models.push(one.name);
    try { await ai.models.generateContent({ model: "other", contents: "x" }); }
    catch (error) { said.error = [error.status, error.message]; }
    try { for await (const one of await ai.models.generateContentStream({ model, contents: "fail" })); }
    catch (error) { said.failed = error.message; }
    tell(said);
    """
    said = node(script, base)
    text, thought, usage = said["whole"]
    assert (text, thought) == ("schön: hi", True)
    assert (usage["candidatesTokenCount"], usage["thoughtsTokenCount"], usage["totalTokenCount"]) == (3, 2, 8)
    assert said["stream"] == "schön: hi"
    assert said["call"] == [{"id": "call_1", "name": "weather", "args": {"city": "Köln"}}]
    assert said["back"] == "schön: a result"
    assert said["history"][0] == "user"
    assert said["history"][-1] == "model"
    assert said["format"] == "schön: hi"
    assert (said["count"], said["models"]) == (2, ["models/nano"])
    assert said["error"][0] == 404
    assert "told to fail" in said["failed"]
