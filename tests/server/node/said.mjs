// What every driver is asked to do; the words of tests/server/sdk/said.py.

export const base = process.argv[2];
export const QUESTION = "What is 7 + 5?";
export const LONG = "Use 2, 3, 7, 11 and 13 to make 517";
export const USER = { role: "user", content: QUESTION };
export const WEATHER = "weather";
export const CLOCK = "clock";
export const FORM = {
  type: "object",
  properties: { right: { type: "boolean" }, kind: { type: "string", enum: ["sum", "product"] } },
  required: ["right", "kind"],
  additionalProperties: false,
};
export const PARAMETERS = {
  type: "object",
  properties: { unit: { type: "string", enum: ["C", "F"] } },
  required: ["unit"],
  additionalProperties: false,
};
export const TOOLS = [WEATHER, CLOCK].map((name) => ({
  type: "function",
  function: { name, description: "tells", parameters: PARAMETERS },
}));

/** The class, status and message of what a call throws. */
export async function thrown(call, status = (error) => error.status) {
  try {
    await call();
  } catch (error) {
    return { kind: error.constructor.name, status: status(error), message: `${error.param ?? ""} ${error.message}` };
  }
  throw new Error("no error");
}

/** Reads so many pieces of a stream and leaves it. */
export async function leave(stream, pieces) {
  for await (const _ of stream) if (--pieces === 0) break;
}

/** Says it, once the server answers nobody: a stream that was left must end while this process lives. */
export async function tell(said) {
  for (let tries = 0; tries < 100; tries++) {
    const numbers = await (await fetch(`${base}/metrics`)).text();
    if (numbers.includes("magister_requests_in_flight 0.0")) {
      console.log(JSON.stringify(said));
      process.exit(0);
    }
    await new Promise((later) => setTimeout(later, 20));
  }
  throw new Error("the server is not at rest");
}
