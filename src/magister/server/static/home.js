// The chat box of the page at /: asks /v1/chat/completions and shows thought and answer as they come.
"use strict";

const talk = document.getElementById("talk");
const form = document.getElementById("ask");
const question = document.getElementById("question");
const stop = document.getElementById("stop");
const messages = [];
let running = null;

function show(kind, text) {
  const element = document.createElement("div");
  element.className = "said " + kind;
  element.textContent = text;
  talk.append(element);
  element.scrollIntoView({ block: "end" });
  return element;
}

function thoughtBox() {
  const details = document.createElement("details");
  details.className = "thought";
  details.open = true;
  const summary = document.createElement("summary");
  summary.textContent = "Thinking";
  const pre = document.createElement("pre");
  details.append(summary, pre);
  talk.append(details);
  return { details, summary, pre, began: performance.now() };
}

// Yields the JSON of each `data:` line, however the bytes are cut.
async function* frames(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
    }
  }
}

async function ask(text) {
  messages.push({ role: "user", content: text });
  show("user", text);
  const body = { model: document.getElementById("model").value, messages, stream: true };
  const effort = document.getElementById("effort").value;
  if (effort) body.reasoning_effort = effort;
  const headers = { "content-type": "application/json" };
  const key = document.getElementById("key");
  if (key && key.value) headers.authorization = "Bearer " + key.value;
  const said = { role: "assistant", content: "", reasoning: "" };
  let thought = null, answer = null, ended = false, full = false;
  const fold = () => {
    if (!thought || ended) return;
    ended = true;
    thought.summary.textContent = "Thought for " + ((performance.now() - thought.began) / 1000).toFixed(1) + " s";
    thought.details.open = false;
  };
  const response = await fetch("/v1/chat/completions", {
    method: "POST", headers, body: JSON.stringify(body), signal: running.signal,
  });
  if (!response.ok) {
    const told = await response.json().catch(() => ({}));
    throw new Error((told.error && told.error.message) || "The server answered " + response.status);
  }
  for await (const frame of frames(response)) {
    if (frame.error) throw new Error(frame.error.message);
    if (frame.choices.length && frame.choices[0].finish_reason === "length") full = true;
    const delta = frame.choices.length ? frame.choices[0].delta : {};
    if (delta.reasoning) {
      thought = thought || thoughtBox();
      said.reasoning += delta.reasoning;
      thought.pre.textContent = said.reasoning;
    }
    if (delta.content) {
      fold();
      answer = answer || show("assistant", "");
      said.content += delta.content;
      answer.textContent = said.content;
    }
  }
  fold();
  if (!said.reasoning) delete said.reasoning;
  messages.push(said);
  if (full) show("wrong", "It ends here: there is no more room. A new conversation has all of it.");
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (!text || running) return;
  question.value = "";
  running = new AbortController();
  stop.hidden = false;
  const kept = messages.length;
  try {
    await ask(text);
  } catch (error) {
    messages.length = kept;
    show("wrong", error.name === "AbortError" ? "Stopped." : error.message);
  } finally {
    running = null;
    stop.hidden = true;
    question.focus();
  }
});

question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    form.requestSubmit();
  }
});

stop.addEventListener("click", () => running && running.abort());
document.getElementById("clear").addEventListener("click", () => {
  if (running) running.abort();
  messages.length = 0;
  talk.replaceChildren();
});
