/** What Write asks of the server. All of it by token ids: the text of a token need not lead back to the same token. */

import { decode } from "./tokens.js";

/** @typedef {import("./tokens.js").Token} Token */
/** @typedef {import("./tokens.js").Choice} Choice */

/** Alternatives that are asked for in each place. */
export const ALTERNATIVES = 10;

/**
 * A text as the model reads it. Throws ApiError.
 * @param {Object<string, any>} api
 * @param {string} text
 * @param {{model: string|null, signal?: AbortSignal}} options
 * @returns {Promise<Token[]>}
 */
export async function readText(api, text, { model, signal }) {
  const answer = await api.post("tokenize", { prompt: text, model }, { signal });
  const tokens = answer.tokens.map((id, at) => ({ id, bytes: answer.pieces[at], source: "given", logprob: null, top: null }));
  if (tokens.length === 0) tokens.push(...(await readBeginning(api, { model, signal })));
  else if (isHidden(tokens, text)) tokens[0].hidden = true;
  return tokens;
}

/** Whether the first token is none of the text's: a mark that the model wants in front. */
function isHidden([first, ...rest], text) {
  return !text.startsWith(decode(first.bytes)) && decode(rest.flatMap((token) => token.bytes)) === text;
}

/** What an empty text begins with. The server tells its name, and the name (a special token's) tells the id. */
async function readBeginning(api, { model, signal }) {
  const body = { prompt: "", model, max_tokens: 0, echo: true, logprobs: 0 };
  const { logprobs } = (await api.post("v1/completions", body, { signal })).choices[0];
  const name = decode(logprobs.bytes.flat());
  const { tokens, pieces } = await api.post("tokenize", { prompt: name, model, add_special_tokens: false }, { signal });
  return tokens.map((id, at) => ({ id, bytes: pieces[at], source: "given", hidden: true, logprob: null, top: null }));
}

/**
 * Let the model go on. Yields the tokens as they come; returns how it ended. Throws ApiError, AbortError by `signal`.
 * @param {Object<string, any>} api
 * @param {Token[]} tokens
 * @param {{model: string|null, params: Object<string, any>, signal?: AbortSignal}} options
 * @returns {AsyncGenerator<Token[], {reason: "stop"|"length", speed: number|null}>}
 */
export async function* continueFrom(api, tokens, { model, params, signal }) {
  const body = { ...params, prompt: tokens.map((token) => token.id), model, logprobs: ALTERNATIVES };
  let last = null;
  for await (const event of api.stream("generate", body, { signal })) {
    if (event.logprobs.length) yield event.logprobs.map(fromReport);
    last = event;
  }
  return { reason: last.finish_reason, speed: last.timings.tokens_per_second };
}

function fromReport({ id, bytes, logprob, top_logprobs: top }) {
  return { id, bytes, source: "model", logprob, top };
}

/**
 * The likeliest tokens in place `at`, best first. Throws ApiError.
 * @param {Object<string, any>} api
 * @param {Token[]} tokens
 * @param {number} at at least 1: before the first token there is nothing to go by
 * @param {{model: string|null, signal?: AbortSignal}} options
 * @returns {Promise<Choice[]>}
 */
export async function alternativesAt(api, tokens, at, { model, signal }) {
  const body = { prompt: tokens.slice(0, at).map((token) => token.id), model, max_tokens: 1, temperature: 0, logprobs: ALTERNATIVES };
  // Were the end of the text the likeliest, the answer would have no token, and no place for alternatives.
  const answer = await api.post("generate", { ...body, ignore_eos: true }, { signal });
  return answer.logprobs[0].top_logprobs;
}

/**
 * The same tokens, each with its chance under this model (alternatives that another one gave are forgotten); the very first
 * has none. Throws ApiError.
 * @param {Object<string, any>} api
 * @param {Token[]} tokens
 * @param {{model: string|null, signal?: AbortSignal}} options
 * @returns {Promise<Token[]>}
 */
export async function score(api, tokens, { model, signal }) {
  const body = { prompt: tokens.map((token) => token.id), model, max_tokens: 0, echo: true, logprobs: 0 };
  const { logprobs } = (await api.post("v1/completions", body, { signal })).choices[0];
  return tokens.map((token, at) => ({ ...token, logprob: logprobs.token_logprobs[at], top: null }));
}
