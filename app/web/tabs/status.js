/** The status tab: what the server does, each second while one looks. */

import { h, replace } from "../lib/dom.js";
import { formatLong } from "../lib/units.js";
import { createPoll } from "./status/poll.js";
import { createEngineFacts, createLatency, createLoad, createMemory, createModelList, createSpeed, createTotals } from "./status/views.js";

const STATES = {
  loading: ["Loading", "The model is still loading. Requests are refused until it is there."],
  ready: ["Ready", null],
  draining: ["Shutting down", "The server finishes what it has begun, takes nothing new, and then ends."],
  restarting: ["Restarting", "The engine has died and is being started again. Requests are refused until it is back."],
  failed: ["Failed", "The engine could not be started. The server’s log says why."],
  closed: ["Ended", "The engine has ended."],
};

/** @type {ReturnType<typeof createPoll>} */
let poll;
let shown = false;

/**
 * @param {HTMLElement} element
 * @param {Object<string, any>} context {api, models, store, toast, h}
 */
export function mount(element, { api, models: served }) {
  const views = [createLoad(), createSpeed(), createLatency(), createMemory(), createTotals(), createModelList(), createEngineFacts()];
  const [load, speed, latency, memory, totals, models, engine] = views.map((view) => view.element);
  const body = h(
    "div",
    { class: "stack", hidden: true },
    h("div", { class: "status-top" }, load, speed),
    latency,
    h("div", { class: "status-pair" }, memory, totals),
    models,
    engine,
  );
  const head = createHead(() => poll.start());
  element.append(h("div", { class: "page stack" }, h("h2", null, "Status"), head.element, body));
  poll = createPoll({
    ask: (signal) => api.get("status", { signal }),
    onAnswer(status) {
      body.hidden = false;
      head.showStatus(status);
      for (const view of views) view.update(status);
    },
    onError: (error) => head.showError(error),
  });
  // There are models after a key was entered elsewhere on the page.
  served.subscribe(() => shown && poll.start());
}

/** The tab has come into view. */
export function show() {
  shown = true;
  poll.start();
}

/** The tab has left. */
export function hide() {
  shown = false;
  poll.stop();
}

/** The line that says how the server is, and whether the figures are fresh. */
function createHead(retry) {
  const dot = h("span", { class: "status-dot", dataset: { state: "unknown" }, "aria-hidden": "true" });
  const word = h("strong", null, "Asking the server…");
  const uptime = h("span", { class: "muted" });
  const trouble = h("p", { class: "error-box", hidden: true });
  let seen = null; // when the last figures came

  function say(state, title, problem, button = null) {
    dot.dataset.state = state;
    if (word.textContent !== title) word.textContent = title;
    trouble.hidden = problem === null;
    const told = problem ?? "";
    if (trouble.dataset.told !== told) replace(trouble, told, button && [" ", button]); // said once, not each second
    trouble.dataset.told = told;
  }

  return {
    // The time since the start is outside of what is read out: it changes each second.
    element: h("div", { class: "stack" }, h("p", { class: "row" }, dot, h("span", { role: "status" }, word), uptime), h("div", { role: "status", class: "status-trouble" }, trouble)),
    showStatus(status) {
      seen = new Date();
      const [title, problem] = STATES[status.state];
      uptime.textContent = `up ${formatLong(status.uptime_seconds)}`;
      say(status.state, title, problem);
    },
    /** Returns whether asking again makes sense. */
    showError(error) {
      const when = seen === null ? "" : ` The figures below are of ${seen.toLocaleTimeString()}.`;
      uptime.textContent = "";
      if (error.status === 401) {
        const button = h("button", { class: "button small", type: "button", onclick: retry }, "Enter a key");
        say("closed", "No key", "Without a key this server tells nothing.", button);
        return false;
      }
      const away = !error.status;
      const what = away ? "The server does not answer." : error.message;
      say("closed", away ? "No answer" : "Not available", `${what}${when} The page asks again each second, and goes on by itself when it can.`);
      return true;
    },
  };
}
