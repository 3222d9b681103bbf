// The published @heyputer/puter.js package. It has no word for a cancel: its streams are left by ending the program.

import { createRequire } from "node:module";
import { base, CLOCK, FORM, LONG, leave, TOOLS, USER } from "./said.mjs";

globalThis.PUTER_API_ORIGIN = base;
globalThis.PUTER_ORIGIN = base;
globalThis.puter_socket_enabled = false;
const { init } = createRequire(import.meta.url)("@heyputer/puter.js/src/init.cjs");
const puter = init("any");
const ask = (messages, more) => puter.ai.chat(messages, { model: "nano", ...more });
// Puter throws what the server said, as it is.
const thrown = async (call) => {
  try {
    await call();
  } catch (error) {
    const told = error.error ?? error;
    return { kind: told.code ?? error.code, status: told.status ?? error.status, message: JSON.stringify(error) };
  }
  throw new Error("no error");
};

const { message } = await ask([USER]);
const plain = { thinking: message.reasoning, text: message.content };
const streamed = { thinking: "", text: "", pieces: 0 };
for await (const part of await ask([USER], { stream: true })) {
  streamed.thinking += part.type === "reasoning" ? part.reasoning : "";
  streamed.text += part.type === "text" ? part.text : "";
  streamed.pieces++;
}
const prompt = (reply) => reply.usage.prompt_tokens ?? reply.usage.input_tokens;
const again = async (turn) => prompt(await ask([USER, turn, USER], { max_tokens: 1 }));
const turns = { replayed: await again(message), bare: await again({ role: "assistant", content: message.content }) };

// Puter has no word for a choice of tools, and nano calls none of itself: a call is made up here.
const made = { name: CLOCK, arguments: '{"unit": "F"}' };
const call = { role: "assistant", content: null, tool_calls: [{ id: "m5Bv5yfNa", type: "function", function: made }] };
const result = { role: "tool", tool_call_id: "m5Bv5yfNa", content: "12" };
const after = await ask([USER, call, result], { tools: TOOLS, max_tokens: 16 });
const called = { after: after.message.content || after.message.reasoning, prompt: prompt(after) };
const form = { type: "json_schema", json_schema: { name: "form", schema: FORM, strict: true } };
const formed = (await ask([USER], { response: form })).message.content;
const missing = await thrown(() => ask([USER], { model: "gpt-9" }));
const wrong = await thrown(() => ask([USER], { temperature: 9 }));
await leave(await ask([{ role: "user", content: LONG }], { stream: true }), 3);
// Not `tell`, which waits for the stream's end.
console.log(JSON.stringify({ plain, streamed, turns, called, formed, missing, wrong }));
process.exit(0);
