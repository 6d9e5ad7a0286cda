/** Write's work on a draft: read, go on, score; one thing at a time, and each can be stopped. */

import { isAbort } from "./api.js";
import { alternativesAt, continueFrom, readText, score } from "./continuation.js";
import { textOf } from "./tokens.js";

/** @typedef {import("./tokens.js").Token} Token */
/** @typedef {import("./tokens.js").Choice} Choice */

/**
 * @typedef {Object} Outcome
 * @property {"stop"|"length"|"full"|"stopped"} reason full: the context has no room left; stopped: by the person
 * @property {number|null} speed tokens per second
 */

/** Does what the person asks with a draft. What goes wrong is told by `failed`; only `alternatives` throws. */
export class Writer {
  #context;
  #tell;
  #running = null;

  /**
   * @param {{api: Object<string, any>, models: Object<string, any>, draft: import("./draft.js").Draft,
   *   params: () => Object<string, any>}} context `params` gives the sampling parameters; what it throws is told like any error
   * @param {{busy: (what: "writing"|"scoring"|null) => void, failed: (error: Error) => void,
   *   wrote: (outcome: Outcome) => void}} tell
   */
  constructor(context, tell) {
    this.#context = context;
    this.#tell = tell;
  }

  /** Stop what runs. */
  stop() {
    this.#running?.abort();
  }

  /**
   * Go on from the end of the draft, or of `text` where that is given.
   * @param {string|null} [text]
   */
  write(text = null) {
    return this.#run("writing", async (signal) => {
      if (text !== null) await this.#take(text, signal);
      await this.#goOn(this.#tokens, signal);
    });
  }

  /**
   * Put `choice`, one of `top`, into place `index` and go on from there.
   * @param {number} index
   * @param {Choice} choice
   * @param {Choice[]} top
   */
  choose(index, choice, top) {
    const { id, bytes, logprob } = choice;
    const before = this.#tokens[index];
    const source = before.id === id ? before.source : "chosen";
    const start = [...this.#tokens.slice(0, index), { id, bytes, source, logprob, top }];
    return this.#run("writing", (signal) => this.#goOn(start, signal));
  }

  /**
   * Drop what stands behind place `index` and go on from there.
   * @param {number} index
   */
  keep(index) {
    return this.#run("writing", (signal) => this.#goOn(this.#tokens.slice(0, index + 1), signal));
  }

  /**
   * Make tokens of `text` without writing on.
   * @param {string} text
   */
  read(text) {
    return this.#run("scoring", (signal) => this.#take(text, signal));
  }

  /**
   * Find the chance of every token of the draft, or of `text` where that is given.
   * @param {string|null} [text]
   */
  score(text = null) {
    return this.#run("scoring", async (signal) => {
      if (text !== null) await this.#take(text, signal);
      const { api, models, draft } = this.#context;
      const { tokens } = draft;
      checkReadable(tokens, models.context);
      const scored = await score(api, tokens, { model: models.current, signal });
      if (draft.tokens === tokens) draft.annotate(scored);
    });
  }

  /**
   * The likeliest tokens in a place. Throws ApiError, or Error where there are none.
   * @param {number} index
   * @param {AbortSignal} signal
   * @returns {Promise<Choice[]>}
   */
  async alternatives(index, signal) {
    if (index === 0) throw new Error("Nothing stands before the first token, so the model has nothing to go by here.");
    const { api, models } = this.#context;
    return alternativesAt(api, this.#tokens, index, { model: models.current, signal });
  }

  /** @returns {Token[]} */
  get #tokens() {
    return this.#context.draft.tokens;
  }

  /** Run `work` alone: whatever ran before is stopped first. */
  async #run(what, work) {
    this.#running?.abort();
    const control = new AbortController();
    this.#running = control;
    this.#tell.busy(what);
    try {
      await work(control.signal);
    } catch (error) {
      if (!isAbort(error)) this.#tell.failed(error);
      else if (this.#running === control && what === "writing") this.#tell.wrote({ reason: "stopped", speed: null });
    } finally {
      if (this.#running === control) {
        this.#running = null;
        this.#tell.busy(null);
      }
    }
  }

  /** Make the draft what `text` says, if it says something else. */
  async #take(text, signal) {
    const { api, models, draft } = this.#context;
    if (draft.tokens.length && textOf(draft.tokens) === text) return;
    draft.commit(await readText(api, text, { model: models.current, signal }));
  }

  /** Go on from `start`. Where that is not the draft itself, it becomes one step of the draft together with the answer. */
  async #goOn(start, signal) {
    const { api, models, draft, params } = this.#context;
    const asked = params();
    const room = roomFor(start, models.context);
    if (room !== null) asked.max_tokens = Math.min(asked.max_tokens ?? room, room);
    if (draft.ended && start.length === draft.tokens.length) asked.min_tokens = 1; // it would only end once more
    const answer = continueFrom(api, start, { model: models.current, params: asked, signal });
    let begun = start !== draft.tokens;
    if (begun) draft.commit(start);
    for (;;) {
      const { value, done } = await answer.next();
      signal.throwIfAborted();
      if (done) return this.#finish(value);
      if (begun) draft.append(value);
      else draft.commit([...start, ...value]);
      begun = true;
    }
  }

  #finish({ reason, speed }) {
    const { models, draft } = this.#context;
    if (reason === "stop") draft.end();
    const full = reason === "length" && models.context !== null && draft.tokens.length >= models.context;
    this.#tell.wrote({ reason: full ? "full" : reason, speed });
  }
}

/** Tokens that may still be written. Throws an Error that says what to do when there is no room. */
function roomFor(tokens, context) {
  if (context === null) return null;
  const room = context - tokens.length;
  if (room > 0) return room;
  throw new Error(
    `The text has ${tokens.length} tokens, and this model reads at most ${context}. ` +
      "Choose a token further up and write on from there, or edit the text and cut its beginning.",
  );
}

function checkReadable(tokens, context) {
  if (context === null || tokens.length <= context) return;
  throw new Error(`The text has ${tokens.length} tokens, and this model reads at most ${context}. Edit it and cut a part to have it scored.`);
}
