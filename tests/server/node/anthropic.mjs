// The published @anthropic-ai/sdk package.

import Anthropic from "@anthropic-ai/sdk";
import { base, CLOCK, FORM, LONG, leave, PARAMETERS, tell, thrown, TOOLS, USER } from "./said.mjs";

const api = new Anthropic({ apiKey: "any", baseURL: base, maxRetries: 0 });
const model = "nano";
const room = { model, max_tokens: 500, messages: [USER] };
const ask = (more) => api.messages.create({ ...room, ...more });
const text = (message) => message.content.map((block) => block.text ?? "").join("");
const thinking = (message) => message.content.map((block) => block.thinking ?? "").join("");
const calls = (message) => message.content.filter((block) => block.type === "tool_use");

const whole = await ask();
const plain = { thinking: thinking(whole), text: text(whole) };
const streamed = { thinking: "", text: "", pieces: 0 };
const stream = api.messages.stream(room);
stream.on("thinking", (piece) => (streamed.thinking += piece));
stream.on("text", (piece) => (streamed.text += piece));
stream.on("streamEvent", () => streamed.pieces++);
await stream.finalMessage();

const count = async (content) =>
  (await api.messages.countTokens({ model, messages: [USER, { role: "assistant", content }, USER] })).input_tokens;
const turns = {
  replayed: await count(whole.content),
  bare: await count(whole.content.filter((block) => block.type === "text")),
};

const tools = TOOLS.map((tool) => ({ name: tool.function.name, description: "tells", input_schema: PARAMETERS }));
const first = await ask({ tools, tool_choice: { type: "any" } });
const named = await ask({ tools, tool_choice: { type: "tool", name: CLOCK } });
const content = calls(first).map((call) => ({ type: "tool_result", tool_use_id: call.id, content: "12" }));
const messages = [USER, { role: "assistant", content: first.content }, { role: "user", content }];
const after = await ask({ messages, tools, tool_choice: { type: "none" }, max_tokens: 16 });
const called = {
  name: calls(first)[0].name,
  arguments: calls(first)[0].input,
  named: calls(named)[0].name,
  after: text(after),
  prompt: after.usage.input_tokens + after.usage.cache_read_input_tokens,
};
const formed = text(await ask({ output_config: { format: { type: "json_schema", schema: FORM } } }));
const missing = await thrown(() => ask({ model: "claude-9" }));
const wrong = await thrown(() => ask({ temperature: 9 }));
await leave(await ask({ messages: [{ role: "user", content: LONG }], stream: true }), 5);
await tell({ plain, streamed, turns, called, formed, missing, wrong });
