// The published @google/genai package.

import { FunctionCallingConfigMode as Mode, GoogleGenAI } from "@google/genai";
import { base, CLOCK, FORM, LONG, leave, PARAMETERS, QUESTION, tell, thrown, WEATHER } from "./said.mjs";

const ai = new GoogleGenAI({ apiKey: "any", httpOptions: { baseUrl: base } });
const model = "nano";
const user = { role: "user", parts: [{ text: QUESTION }] };
const shown = { thinkingConfig: { includeThoughts: true } };
const ask = (config, contents = QUESTION, of = model) =>
  ai.models.generateContent({ model: of, contents, config: { ...shown, ...config } });
const joined = (reply, thought) =>
  (reply.candidates?.[0]?.content?.parts ?? [])
    .filter((part) => Boolean(part.thought) === thought)
    .map((part) => part.text ?? "")
    .join("");

const whole = await ask();
const plain = { thinking: joined(whole, true), text: joined(whole, false) };
const streamed = { thinking: "", text: "", pieces: 0 };
for await (const chunk of await ai.models.generateContentStream({ model, contents: QUESTION, config: shown })) {
  streamed.thinking += joined(chunk, true);
  streamed.text += joined(chunk, false);
  streamed.pieces++;
}

const { content } = whole.candidates[0];
const count = async (turn) => (await ai.models.countTokens({ model, contents: [user, turn, user] })).totalTokens;
const spoken = { role: "model", parts: content.parts.filter((part) => !part.thought) };
const turns = { replayed: await count(content), bare: await count(spoken) };

const functionDeclarations = [WEATHER, CLOCK].map((name) => ({
  name,
  description: "tells",
  parametersJsonSchema: PARAMETERS,
}));
const choose = (choice) => ({ tools: [{ functionDeclarations }], toolConfig: { functionCallingConfig: choice } });
const first = await ask(choose({ mode: Mode.ANY }));
const named = await ask(choose({ mode: Mode.ANY, allowedFunctionNames: [CLOCK] }));
const parts = first.functionCalls.map((call) => ({
  functionResponse: { id: call.id, name: call.name, response: { output: "12" } },
}));
const after = await ask({ ...choose({ mode: Mode.NONE }), maxOutputTokens: 16 }, [
  user,
  first.candidates[0].content,
  { role: "user", parts },
]);
const called = {
  name: first.functionCalls[0].name,
  arguments: first.functionCalls[0].args,
  named: named.functionCalls[0].name,
  after: after.text,
  prompt: after.usageMetadata.promptTokenCount,
};
const formed = (await ask({ responseMimeType: "application/json", responseJsonSchema: FORM })).text;
const missing = await thrown(() => ask({}, QUESTION, "gemini-9"));
const wrong = await thrown(() => ask({ temperature: 9 }));
// Leaving this package's iterator leaves its connection open; its own word for a cancel is a signal.
const leaving = new AbortController();
const config = { ...shown, abortSignal: leaving.signal };
await leave(await ai.models.generateContentStream({ model, contents: LONG, config }), 3);
leaving.abort();
await tell({ plain, streamed, turns, called, formed, missing, wrong });
