// The sign-in window: says who asks, and hands a token to that page or program and to nobody else.
"use strict";

const asked = new URLSearchParams(location.search);
const at = (id) => document.getElementById(id);
const redirect = at("who").dataset.redirect; // from the server, which let loopback through only
const page = window.opener;
let origin = null;

function ask(name, whose) {
  origin = whose;
  at("who").textContent = name;
  at("yes").disabled = false;
}

function tell(message) {
  const said = { msg: "puter.token", msg_id: Number(asked.get("msg_id")), ...message };
  // A page from a file has no origin that could be named.
  page.postMessage(said, origin === "null" ? "*" : origin);
}

async function consent() {
  const headers = { "content-type": "application/json" };
  if (at("key")) headers.authorization = `Bearer ${at("key").value}`;
  const answer = await fetch("/puter/consent", { method: "POST", headers, body: JSON.stringify({ origin }) });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.message);
  return said;
}

at("yes").addEventListener("click", async () => {
  try {
    const { token, username, app_uid } = await consent();
    if (redirect) {
      location.assign(`${redirect}?token=${encodeURIComponent(token)}`);
      return;
    }
    tell({ success: true, token, username, app_uid });
    window.close();
  } catch (error) {
    at("wrong").textContent = error.message;
  }
});

at("no").addEventListener("click", () => {
  if (page && origin) tell({ success: false, error: "auth_canceled", message: "The user refused." });
  window.close();
});

if (redirect) {
  ask(`A program on this machine, at ${new URL(redirect).host}.`, new URL(redirect).origin);
} else if (page) {
  window.addEventListener("message", (event) => {
    // Whatever the message says, only the browser's word for where it came from counts.
    if (event.source !== page || event.data?.msg !== "originResponse" || origin !== null) return;
    const file = event.origin === "null";
    ask(file ? "A page opened from a file, and with it every such page." : `Pages of ${event.origin}.`, event.origin);
  });
  page.postMessage({ msg: "requestOrigin" }, "*");
} else {
  at("who").textContent = "Nobody: no page opened this window. (Isolated pages cannot; they set a key with puter.setAuthToken.)";
}
