/** Asking for an answer: what is sent, how it comes in, and what it took. */

import { ApiError, isAbort } from "../../lib/api.js";
import { messagesUpTo } from "../../lib/conversation.js";

const CHAT = "v1/chat/completions";
const COUNT_LIMIT = 3000; // ms

/**
 * Write the answer into `message`, calling `onChange()` after each piece. It never throws: what went wrong is in
 * `message.error`, and `message.finish` says how it ended.
 *
 * @param {Object} options
 * @param {ReturnType<import("../../lib/api.js").createApi>} options.api
 * @param {import("../../lib/conversation.js").Conversation} options.conversation
 * @param {import("../../lib/conversation.js").Message} options.message an answer; what it has already is continued
 * @param {string|null} options.model
 * @param {Object<string, any>} options.params sampling parameters
 * @param {AbortSignal} options.signal
 * @param {() => void} options.onChange
 */
export async function writeAnswer({ api, conversation, message, model, params, signal, onChange }) {
  message.finish = null;
  message.error = null;
  const clock = { began: performance.now(), first: null, last: null };
  try {
    const body = await buildBody(api, conversation, message, model, params, signal);
    await readAnswer(openStream(api, body, signal), message, clock, onChange);
  } catch (error) {
    message.finish = isAbort(error) ? "stopped" : "failed";
    if (!isAbort(error)) message.error = describe(error);
  }
  if (message.finish === "stopped") await countStopped(api, message);
  onChange();
}

async function buildBody(api, conversation, message, model, params, signal) {
  let read = messagesUpTo(conversation, message);
  if (message.content === "") read = read.slice(0, -1);
  if (conversation.trim) {
    const all = read.length;
    read = await leaveOutOldest(api, conversation, read, { model, longest: params.max_tokens }, signal);
    if (read.length < all) message.from = read[0].id;
    else delete message.from;
  }
  const body = { messages: toMessages(conversation, read), ...params, stream_options: { include_usage: true } };
  if (model !== null) body.model = model;
  return body;
}

function toMessages(conversation, read) {
  const messages = conversation.system.trim() ? [{ role: "system", content: conversation.system }] : [];
  for (const { role, content } of read) {
    const last = messages.at(-1);
    if (content === "") continue; // an answer that failed
    // What was said twice for want of an answer is said in one: many templates want the roles to alternate.
    if (last?.role === role) last.content += `\n\n${content}`;
    else messages.push({ role, content });
  }
  return messages;
}

/** The most of the last messages that leave room for an answer. There are few ways to cut: it begins with the person's words. */
async function leaveOutOldest(api, conversation, read, { model, longest }, signal) {
  const starts = read.flatMap((message, index) => (message.role === "user" ? [index] : []));
  const fits = async (start) => {
    const body = { messages: toMessages(conversation, read.slice(start)), pieces: false };
    if (model !== null) body.model = model;
    const { count, max_model_len: context } = await api.post("tokenize", body, { signal });
    return count + Math.min(longest ?? 64, Math.floor(context / 4)) <= context;
  };
  let [low, high] = [0, starts.length - 1]; // the last is sent in any case: the server says by how much it is too long
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (await fits(starts[middle])) high = middle;
    else low = middle + 1;
  }
  return read.slice(starts[low]);
}

/** The stream; where the longest answer has no room, what room there is must do: it is a bound, not an order. */
async function* openStream(api, body, signal) {
  try {
    yield* api.stream(CHAT, body, { signal });
  } catch (error) {
    const room = error.detail?.n_ctx - error.detail?.n_prompt_tokens;
    if (error.code !== "context_length_exceeded" || body.max_tokens === undefined || !(room > 0)) throw error;
    yield* api.stream(CHAT, { ...body, max_tokens: room }, { signal });
  }
}

async function readAnswer(stream, message, clock, onChange) {
  const before = message.tokens ?? 0;
  for await (const event of stream) {
    message.model = event.model;
    const choice = event.choices[0];
    if (choice?.delta.content) {
      clock.last = performance.now();
      clock.first ??= clock.last;
      message.content += choice.delta.content;
      onChange();
    }
    if (choice?.finish_reason) message.finish = choice.finish_reason;
    if (event.usage) {
      const count = event.usage.completion_tokens;
      message.tokens = before + count;
      // What was there before is part of this prompt.
      message.promptTokens = event.usage.prompt_tokens - before;
      measure(message, clock, count);
    }
  }
}

function measure(message, { began, first, last }, count) {
  if (first === null) return;
  message.wait = (first - began) / 1000;
  // Of the whole time: pieces can arrive all at once, so that there is none between the first and the last.
  message.speed = count / ((last - began) / 1000);
}

/** A stopped stream never told its length. Not worth an error, nor a long wait: then there is no count. */
async function countStopped(api, message) {
  if (message.content === "") return;
  const signal = AbortSignal.timeout(COUNT_LIMIT);
  try {
    const body = { prompt: message.content, add_special_tokens: false, pieces: false };
    message.tokens = (await api.post("tokenize", body, { signal })).count;
  } catch (error) {
    if (!(error instanceof ApiError) && !signal.aborted) throw error;
    delete message.tokens;
  }
}

function describe(error) {
  if (!(error instanceof ApiError)) console.error(error);
  return {
    message: error.message,
    code: error.code ?? null,
    param: error.param ?? null,
    prompt: error.detail?.n_prompt_tokens,
    context: error.detail?.n_ctx,
  };
}
