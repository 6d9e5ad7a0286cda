/** Write's work on a draft: read, go on, score; one thing at a time, and each can be stopped. */

import { isAbort } from "./api.js";
import { alternativesAt, continueFrom, readText, score } from "./continuation.js";
import { textOf } from "./tokens.js";

/** @typedef {import("./tokens.js").Token} Token */
/** @typedef {import("./tokens.js").Choice} Choice */

/**
 * @param {{api: Object<string, any>, models: Object<string, any>, draft: import("./draft.js").Draft,
 *   params: () => Object<string, any>}} context `params` gives the sampling parameters; what it throws is shown like any error
 * @param {{busy: (what: "writing"|"scoring"|null) => void, failed: (error: Error) => void, wrote: (outcome: Outcome) => void}} tell
 *
 * @typedef {Object} Outcome
 * @property {"stop"|"length"|"full"|"stopped"} reason full: the context has no room left; stopped: by the person
 * @property {number|null} speed tokens per second
 */
export function createWriter({ api, models, draft, params }, tell) {
  let running = null;

  /** Run `work` alone: whatever ran before is stopped first. */
  async function run(what, work) {
    running?.abort();
    const control = new AbortController();
    running = control;
    tell.busy(what);
    try {
      await work(control.signal);
    } catch (error) {
      if (!isAbort(error)) tell.failed(error);
      else if (running === control && what === "writing") tell.wrote({ reason: "stopped", speed: null });
    } finally {
      if (running === control) {
        running = null;
        tell.busy(null);
      }
    }
  }

  /** Make the draft what `text` says, if it says something else. */
  async function take(text, signal) {
    if (draft.tokens.length && textOf(draft.tokens) === text) return;
    draft.commit(await readText(api, text, { model: models.current, signal }));
  }

  /** `begin` puts the beginning into the draft as a step of its own, or returns one that is to become part of the answer's. */
  async function goOn(start, signal) {
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
      if (done) return finish(value, room);
      if (begun) draft.append(value);
      else draft.commit([...start, ...value]);
      begun = true;
    }
  }

  function finish({ reason, speed }, room) {
    if (reason === "stop") draft.end();
    const full = reason === "length" && room !== null && roomLeft(draft.tokens, models.context) <= 0;
    tell.wrote({ reason: full ? "full" : reason, speed });
  }

  return {
    /** Stop what runs. */
    stop: () => running?.abort(),
    /** Go on from the end of the draft, or of `text` where that is given. */
    write: (text = null) =>
      run("writing", async (signal) => {
        if (text !== null) await take(text, signal);
        await goOn(draft.tokens, signal);
      }),
    /** Put `choice` into place `index` and go on from there. */
    choose: (index, choice, top) =>
      run("writing", (signal) => {
        const { id, bytes, logprob } = choice;
        const before = draft.tokens[index];
        const source = before.id === id ? before.source : "chosen";
        return goOn([...draft.tokens.slice(0, index), { id, bytes, source, logprob, top }], signal);
      }),
    /** Drop what stands behind place `index` and go on from there. */
    keep: (index) => run("writing", (signal) => goOn(draft.tokens.slice(0, index + 1), signal)),
    /** Make tokens of `text` without writing on. */
    read: (text) => run("scoring", (signal) => take(text, signal)),
    /** Find the chance of every token. */
    score: (text = null) =>
      run("scoring", async (signal) => {
        if (text !== null) await take(text, signal);
        const { tokens } = draft;
        checkReadable(tokens, models.context);
        const scored = await score(api, tokens, { model: models.current, signal });
        if (draft.tokens === tokens) draft.annotate(scored);
      }),
    /** The likeliest tokens in a place. Throws ApiError, or Error where there are none. */
    alternatives(index, signal) {
      if (index === 0) throw new Error("Nothing stands before the first token, so the model has nothing to go by here.");
      return alternativesAt(api, draft.tokens, index, { model: models.current, signal });
    },
  };
}

/** Tokens that may still be written. Throws an Error that says what to do when there is no room. */
function roomFor(tokens, context) {
  if (context === null) return null;
  const room = roomLeft(tokens, context);
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

function roomLeft(tokens, context) {
  return context - tokens.length;
}
