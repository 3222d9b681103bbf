// puter.ai for pages, answered by the Magister server that this script came from. Written for Magister.
(() => {
  "use strict";

  const script = document.currentScript || document.querySelector('script[src*="/puter/v2"]');
  const home = script ? new URL(script.src).origin : location.origin;
  const saved = `magister.token ${home}`;

  const puter = {
    APIOrigin: home,
    authToken: recall(),
    setAuthToken(token) {
      puter.authToken = token || null;
      remember(puter.authToken);
    },
    setAPIOrigin(origin) {
      puter.APIOrigin = new URL(origin).origin;
    },
    auth: { signIn, isSignedIn: () => Boolean(puter.authToken), signOut: () => puter.setAuthToken(null) },
    ai: { chat, listModels },
  };

  // chat(prompt), then in any order: image(s), test mode, options. Or chat(messages), then the last two.
  async function chat(prompt, ...rest) {
    const first = rest[0];
    const images = Array.isArray(first) ? first : isImage(first) ? [first] : [];
    const { driver, ...options } = rest.find(isOptions) || {};
    const args = { ...options, messages: Array.isArray(prompt) ? prompt : [{ content: await contentOf(prompt, images) }] };
    if (images.length) args.vision = true;
    if (driver && !args.provider) args.provider = driver;
    const testMode = rest.includes(true);
    const response = await ask({ interface: "puter-chat-completion", driver: "ai-chat", method: "complete", test_mode: testMode, args });
    if ((response.headers.get("content-type") || "").startsWith("application/x-ndjson")) return lines(response.body);
    const { result } = await response.json();
    // Not enumerable, so that a result can be logged, compared and sent on as it is.
    const text = () => result.message.content;
    return Object.defineProperties(result, { toString: { value: text }, valueOf: { value: text } });
  }

  async function listModels(provider) {
    const response = await call("/puterai/chat/models/details", {
      headers: puter.authToken ? { authorization: `Bearer ${puter.authToken}` } : {},
    });
    const { models } = await response.json();
    return provider ? models.filter((model) => model.provider === provider) : models;
  }

  function isImage(value) {
    return typeof value === "string" || value instanceof Blob;
  }

  function isOptions(value) {
    return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Blob);
  }

  async function contentOf(prompt, images) {
    if (!images.length) return prompt;
    const urls = await Promise.all(images.map((image) => (image instanceof Blob ? dataUrl(image) : image)));
    return [prompt, ...urls.map((url) => ({ image_url: { url } }))];
  }

  function dataUrl(blob) {
    return new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(blob);
    });
  }

  // One JSON object a line. An error is given like any line, then thrown: nobody misses it.
  async function* lines(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    try {
      let rest = "";
      for (let done = false; !done; ) {
        const read = await reader.read();
        done = read.done;
        const whole = (rest + (done ? "\n" : read.value)).split("\n");
        rest = whole.pop();
        for (const line of whole) {
          if (!line.trim()) continue;
          const said = JSON.parse(line);
          if (typeof said.text === "string") Object.defineProperty(said, "toString", { value: () => said.text });
          yield said;
          if (said.type === "error") throw said;
        }
      }
    } finally {
      // Whoever stops reading stops the model.
      await reader.cancel().catch(() => {});
    }
  }

  // This content type needs no leave of the server's beforehand; the token goes within the body.
  function ask(body) {
    return call("/drivers/call", () => ({
      method: "POST",
      headers: { "content-type": "text/plain;actually=json" },
      body: JSON.stringify({ ...body, auth_token: puter.authToken }),
    }));
  }

  // Errors are thrown as the plain objects that the server sends. A page that may not call yet asks the user, once.
  async function call(path, request, again = true) {
    const response = await fetch(puter.APIOrigin + path, typeof request === "function" ? request() : request).catch(() => null);
    if (response && response.ok) return response;
    if (again && (response ? response.status === 401 : await isThere())) {
      await invite();
      const fresh = typeof request === "function" ? request : { ...request, headers: { authorization: `Bearer ${puter.authToken}` } };
      return call(path, fresh, false);
    }
    if (!response) throw { code: "network_error", message: `No answer from ${puter.APIOrigin}.` };
    throw await response.json().catch(() => ({ status: response.status, message: response.statusText }));
  }

  // A server that is there but whose answer may not be read does not know this page.
  function isThere() {
    return fetch(`${puter.APIOrigin}/puter/v2/`, { mode: "no-cors" }).then(() => true, () => false);
  }

  // Browsers open windows on a click only, so a small box asks for one.
  let inviting = null;
  function invite() {
    inviting ??= new Promise((resolve, reject) => {
      const box = document.createElement("dialog");
      box.id = "puter-sign-in";
      box.append(`This page wants to use the models at ${puter.APIOrigin}. `);
      const button = (text, act) => {
        const made = document.createElement("button");
        made.textContent = text;
        made.onclick = act;
        box.append(made);
      };
      const close = () => {
        box.remove();
        inviting = null;
      };
      button("Continue", () => signIn().then(resolve, reject).finally(close));
      button("Not now", () => {
        close();
        reject({ code: "auth_canceled", message: "Authentication canceled" });
      });
      document.documentElement.append(box);
      box.showModal();
    });
    return inviting;
  }

  let attempts = 0;
  function signIn() {
    const id = ++attempts;
    return new Promise((resolve, reject) => {
      const url = `${puter.APIOrigin}/action/sign-in?embedded_in_popup=true&msg_id=${id}`;
      const popup = window.open(url, "magister-sign-in", "popup,width=600,height=700");
      if (!popup) {
        reject({ error: "popup_blocked", message: "The sign-in window was blocked by the browser." });
        return;
      }
      const watch = setInterval(() => popup.closed && settle(reject, { error: "auth_window_closed", message: "The sign-in window was closed." }), 200);
      const settle = (how, value) => {
        clearInterval(watch);
        window.removeEventListener("message", hear);
        how(value);
      };
      const hear = (event) => {
        if (event.origin !== puter.APIOrigin || event.source !== popup) return;
        const { msg, msg_id, ...said } = event.data;
        if (msg === "requestOrigin") popup.postMessage({ msg: "originResponse" }, puter.APIOrigin);
        if (msg !== "puter.token" || msg_id !== id) return;
        if (said.success) puter.setAuthToken(said.token);
        settle(said.success ? resolve : reject, said);
      };
      window.addEventListener("message", hear);
    });
  }

  // Some pages may store nothing; they ask again next time.
  function recall() {
    try {
      return localStorage.getItem(saved);
    } catch {
      return null;
    }
  }

  function remember(token) {
    try {
      if (token) localStorage.setItem(saved, token);
      else localStorage.removeItem(saved);
    } catch {
      // Then it is known until the page is left.
    }
  }

  globalThis.puter = puter;
})();
