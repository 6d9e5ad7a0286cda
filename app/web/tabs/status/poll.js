/** Asks for something again and again while it is looked at. */

import { isAbort } from "../../lib/api.js";

const EVERY = 1000; // milliseconds
const PATIENCE = 8000; // an answer that takes longer counts as none

/**
 * @param {object} options
 * @param {(signal: AbortSignal) => Promise<any>} options.ask
 * @param {(answer: any) => void} options.onAnswer
 * @param {(error: Error) => boolean} options.onError returns whether to go on asking
 * @returns {{start: () => void, stop: () => void}} both may be called at any time; nothing is asked while the window is hidden
 */
export function createPoll({ ask, onAnswer, onError }) {
  let wanted = false;
  let controller = null;
  let timer = null;

  async function turn() {
    const own = new AbortController();
    controller = own;
    let late = false;
    const patience = startPatience(() => {
      late = true;
      own.abort();
    });
    let go = true;
    try {
      const answer = await ask(own.signal);
      if (controller === own) onAnswer(answer);
    } catch (error) {
      if (controller === own && (late || !isAbort(error))) go = onError(late ? new Error("The server takes too long to answer.") : error);
    } finally {
      patience.end();
    }
    if (controller !== own) return; // stopped meanwhile
    controller = null;
    wanted &&= go;
    if (wanted) timer = setTimeout(begin, EVERY);
  }

  function begin() {
    clearTimeout(timer);
    if (wanted && !document.hidden && controller === null) turn();
  }

  document.addEventListener("visibilitychange", begin);
  return {
    start() {
      wanted = true;
      begin();
    },
    stop() {
      wanted = false;
      clearTimeout(timer);
      controller?.abort();
      controller = null;
    },
  };
}

/** Calls `onLost` after a while, unless it is ended before. */
function startPatience(onLost) {
  let timer = null;
  const begin = () => {
    timer = setTimeout(() => {
      // It may be a person who takes so long: over the key.
      if (document.querySelector("dialog[open]")) begin();
      else onLost();
    }, PATIENCE);
  };
  begin();
  return { end: () => clearTimeout(timer) };
}
