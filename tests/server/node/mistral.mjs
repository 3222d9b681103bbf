// The published @mistralai/mistralai package.

import { Mistral } from "@mistralai/mistralai";
import { base, CLOCK, FORM, LONG, leave, tell, thrown, TOOLS, USER } from "./said.mjs";

const client = new Mistral({ apiKey: "any", serverURL: base });
const model = "nano";
const ask = (more) => client.chat.complete({ model, messages: [USER], ...more });
const status = (error) => error.statusCode;
const text = (content) =>
  typeof content === "string" ? content : (content ?? []).map((one) => (one.type === "text" ? one.text : "")).join("");
const thinking = (content) =>
  typeof content === "string" ? "" : (content ?? []).flatMap((one) => one.thinking ?? []).map((one) => one.text).join("");

const { message } = (await ask()).choices[0];
const plain = { thinking: thinking(message.content), text: text(message.content) };
const streamed = { thinking: "", text: "", pieces: 0 };
for await (const event of await client.chat.stream({ model, messages: [USER] })) {
  const { content } = event.data.choices[0].delta;
  streamed.thinking += thinking(content);
  streamed.text += text(content);
  streamed.pieces++;
}

const again = async (turn) => (await ask({ messages: [USER, turn, USER], maxTokens: 1 })).usage.promptTokens;
const turns = {
  replayed: await again({ role: "assistant", ...message }),
  bare: await again({ role: "assistant", content: text(message.content) }),
};

const first = (await ask({ tools: TOOLS, toolChoice: "any" })).choices[0].message;
const named = (await ask({ tools: TOOLS, toolChoice: { type: "function", function: { name: CLOCK } } })).choices[0];
const results = first.toolCalls.map((call) => ({ role: "tool", toolCallId: call.id, content: "12" }));
const messages = [USER, { role: "assistant", ...first }, ...results];
const after = await ask({ messages, tools: TOOLS, toolChoice: "none", maxTokens: 16 });
const given = first.toolCalls[0].function;
const called = {
  name: given.name,
  arguments: typeof given.arguments === "string" ? JSON.parse(given.arguments) : given.arguments,
  named: named.message.toolCalls[0].function.name,
  after: text(after.choices[0].message.content),
  prompt: after.usage.promptTokens,
};
const responseFormat = { type: "json_schema", jsonSchema: { name: "form", schemaDefinition: FORM, strict: true } };
const formed = text((await ask({ responseFormat })).choices[0].message.content);
const missing = await thrown(() => ask({ model: "mistral-9" }), status);
const wrong = await thrown(() => ask({ temperature: 9 }), status);
await leave(await client.chat.stream({ model, messages: [{ role: "user", content: LONG }] }), 3);
await tell({ plain, streamed, turns, called, formed, missing, wrong });
