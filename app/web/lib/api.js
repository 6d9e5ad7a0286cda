/** The server's API: JSON requests, event streams, errors in words, and the key where one is needed. */

/** An answer other than success. `status` is 0 when the server could not be reached. `message` is for people. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   * @param {{param?: string|null, code?: string|null, retryAfter?: number|null, detail?: Object<string, any>}} [more]
   */
  constructor(status, message, more = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    /** The field at fault, if one is. */
    this.param = more.param ?? null;
    /** The kind of mistake, such as context_length_exceeded. */
    this.code = more.code ?? null;
    /** Seconds after which it is worth while to try again, if the server said. */
    this.retryAfter = more.retryAfter ?? null;
    /** The whole error object: n_prompt_tokens and n_ctx, for one. */
    this.detail = more.detail ?? {};
  }
}

/**
 * Whether an error only says that the request was aborted on purpose.
 * @param {unknown} error
 */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/**
 * The API of the server that this page came from.
 * @param {{current: () => string|null, ask: (wrong: boolean) => Promise<string|null>}} keys `ask` shows the dialog and
 *   returns a new key, or null when the person has none
 */
export function createApi(keys) {
  async function send(method, path, body, signal) {
    for (;;) {
      const key = keys.current();
      const response = await request(method, path, body, signal, key);
      if (response.ok) return response;
      const error = await readError(response);
      if (error.status !== 401) throw error;
      // Another request may have asked in the meantime.
      if (keys.current() === key && (await keys.ask(key !== null)) === null) throw error;
      signal?.throwIfAborted();
    }
  }

  async function json(method, path, body, signal) {
    const response = await send(method, path, body, signal);
    if (response.status === 204) return null;
    try {
      return await response.json();
    } catch (error) {
      if (isAbort(error)) throw error;
      throw unreadable();
    }
  }

  return {
    /** GET a path, relative to the page (`v1/models`). Returns its JSON. Throws ApiError, or AbortError by `signal`. */
    get: (path, { signal } = {}) => json("GET", path, undefined, signal),
    /** POST JSON. Returns the answer's JSON. Throws as `get` does. */
    post: (path, body, { signal } = {}) => json("POST", path, body, signal),
    /**
     * POST JSON that asks for a stream (`stream: true` is added). Yields the JSON of each event until [DONE]. Throws ApiError
     * for a refusal, an error midway and a stream that breaks off. Leaving the loop ends the request.
     */
    async *stream(path, body, { signal } = {}) {
      const response = await send("POST", path, { ...body, stream: true }, signal);
      yield* readEvents(response.body, signal);
    },
  };
}

async function request(method, path, body, signal, key) {
  const headers = {};
  if (key !== null) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const text = body === undefined ? undefined : JSON.stringify(body);
  try {
    // Against the page's own address: a proxy may have put it under a path.
    return await fetch(new URL(path, document.baseURI), { method, headers, body: text, signal, cache: "no-store" });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError(0, "The server can't be reached. Is it running? Check the connection and try again.", { code: "unreachable" });
  }
}

function unreadable() {
  return new ApiError(0, "The server's answer can't be read. Something between this page and the server may be changing it.", {
    code: "unreadable",
  });
}

async function readError(response) {
  const seconds = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  const retryAfter = Number.isFinite(seconds) ? seconds : null;
  let detail = null;
  try {
    detail = (await response.json()).error;
  } catch (error) {
    if (isAbort(error)) throw error;
  }
  if (typeof detail?.message !== "string") {
    const message = `The server answered ${response.status}${response.statusText ? ` (${response.statusText})` : ""} and gave no reason.`;
    return new ApiError(response.status, message, { retryAfter });
  }
  return toApiError(response.status, detail, retryAfter);
}

function toApiError(status, detail, retryAfter = null) {
  return new ApiError(status, detail.message, { param: detail.param, code: detail.code, retryAfter, detail });
}

async function* readEvents(stream, signal) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await readChunk(reader);
      if (done) throw brokenOff();
      const events = (text + value).split(/\r?\n\r?\n/);
      text = events.pop();
      for (const event of events) {
        const data = eventData(event);
        if (data === null) continue;
        if (data === "[DONE]") return;
        const parsed = parseEvent(data);
        if (parsed.error) throw toApiError(500, parsed.error);
        yield parsed;
        signal?.throwIfAborted();
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // ends the request if it still runs; an error here has been told already
  }
}

async function readChunk(reader) {
  try {
    return await reader.read();
  } catch (error) {
    throw isAbort(error) ? error : brokenOff();
  }
}

function brokenOff() {
  return new ApiError(0, "The connection broke off before the answer was complete.", { code: "broken_off" });
}

/** The data of one event; null for a comment, which only keeps the connection open. */
function eventData(event) {
  const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.length ? lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n") : null;
}

function parseEvent(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw unreadable();
  }
}
