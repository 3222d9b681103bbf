// The published openai package: chat completions and responses.

import OpenAI from "openai";
import { base, CLOCK, FORM, LONG, leave, PARAMETERS, QUESTION, tell, thrown, TOOLS, USER } from "./said.mjs";

const api = new OpenAI({ apiKey: "any", baseURL: `${base}/v1`, maxRetries: 0 });
const model = "nano";

async function chat() {
  const ask = (more) => api.chat.completions.create({ model, messages: [USER], ...more });
  const { message } = (await ask()).choices[0];
  const plain = { thinking: message.reasoning, text: message.content };
  const streamed = { thinking: "", text: "", pieces: 0 };
  for await (const chunk of await ask({ stream: true })) {
    streamed.thinking += chunk.choices[0].delta.reasoning ?? "";
    streamed.text += chunk.choices[0].delta.content ?? "";
    streamed.pieces++;
  }
  const again = async (turn) => (await ask({ messages: [USER, turn, USER], max_tokens: 1 })).usage.prompt_tokens;
  const turns = { replayed: await again(message), bare: await again({ role: "assistant", content: message.content }) };
  const first = (await ask({ tools: TOOLS, tool_choice: "required" })).choices[0].message;
  const [call] = first.tool_calls;
  const named = (await ask({ tools: TOOLS, tool_choice: { type: "function", function: { name: CLOCK } } })).choices[0];
  const results = first.tool_calls.map((one) => ({ role: "tool", tool_call_id: one.id, content: "12" }));
  const after = await ask({ messages: [USER, first, ...results], tools: TOOLS, tool_choice: "none", max_tokens: 16 });
  const called = {
    name: call.function.name,
    arguments: JSON.parse(call.function.arguments),
    named: named.message.tool_calls[0].function.name,
    after: after.choices[0].message.content,
    prompt: after.usage.prompt_tokens,
  };
  const form = { type: "json_schema", json_schema: { name: "form", schema: FORM, strict: true } };
  const formed = (await ask({ response_format: form })).choices[0].message.content;
  const missing = await thrown(() => ask({ model: "gpt-9" }));
  const wrong = await thrown(() => ask({ temperature: 9 }));
  await leave(await ask({ messages: [{ role: "user", content: LONG }], stream: true }), 3);
  return { plain, streamed, turns, called, formed, missing, wrong };
}

async function responses() {
  const ask = (more) => api.responses.create({ model, input: QUESTION, ...more });
  const answered = (reply) => ({
    thinking: reply.output.flatMap((item) => (item.type === "reasoning" ? item.content : [])).map((one) => one.text).join(""),
    text: reply.output_text,
  });
  const whole = await ask();
  const plain = answered(whole);
  const streamed = { thinking: "", text: "", pieces: 0 };
  for await (const event of await ask({ stream: true })) {
    if (event.type === "response.reasoning_text.delta") streamed.thinking += event.delta;
    if (event.type === "response.output_text.delta") streamed.text += event.delta;
    streamed.pieces++;
  }
  const again = async (turn) => (await ask({ input: [USER, ...turn, USER], max_output_tokens: 16 })).usage.input_tokens;
  const spoken = whole.output.filter((item) => item.type !== "reasoning");
  const turns = { replayed: await again(whole.output), bare: await again(spoken) };
  const tools = TOOLS.map((tool) => ({ type: "function", ...tool.function, parameters: PARAMETERS, strict: true }));
  const calls = (reply) => reply.output.filter((item) => item.type === "function_call");
  const first = await ask({ tools, tool_choice: "required" });
  const named = await ask({ tools, tool_choice: { type: "function", name: CLOCK } });
  const results = calls(first).map((one) => ({ type: "function_call_output", call_id: one.call_id, output: "12" }));
  const input = [USER, ...first.output, ...results];
  const after = await ask({ input, tools, tool_choice: "none", max_output_tokens: 16 });
  const called = {
    name: calls(first)[0].name,
    arguments: JSON.parse(calls(first)[0].arguments),
    named: calls(named)[0].name,
    after: after.output_text,
    prompt: after.usage.input_tokens,
  };
  const text = { format: { type: "json_schema", name: "form", schema: FORM, strict: true } };
  const formed = (await ask({ text })).output_text;
  const missing = await thrown(() => ask({ model: "gpt-9" }));
  const wrong = await thrown(() => ask({ temperature: 9 }));
  await leave(await ask({ input: LONG, stream: true }), 6);
  return { plain, streamed, turns, called, formed, missing, wrong };
}

await tell(process.argv[3] === "responses" ? await responses() : await chat());
