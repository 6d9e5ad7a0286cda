/** What else could stand in a token's place: the likeliest tokens with bars, each of which can be chosen. */

import { isAbort } from "./api.js";
import { h, replace } from "./dom.js";
import { roving } from "./roving.js";
import { label, percent, spoken, surprise } from "./tokens.js";

/** @typedef {import("./tokens.js").Token} Token */
/** @typedef {import("./tokens.js").Choice} Choice */

const MARGIN = 8;

/**
 * A pop-over beside a token. Closed by Escape or a click elsewhere; the browser gives the focus back.
 * @param {{choose: (index: number, choice: Choice, top: Choice[]) => void, keep: (index: number) => void,
 *   load: (index: number, signal: AbortSignal) => Promise<Choice[]>}} options `choose`: the person wants this one of `top`;
 *   `keep`: the text is to go on from behind the token; `load` asks for the choices of a place where none are known
 * @returns {{element: HTMLElement, open: (index: number, token: Token, anchor: HTMLElement) => void}}
 */
export function createAlternatives({ choose, keep, load }) {
  const element = h("div", { class: "alternatives", popover: "auto", role: "dialog", "aria-label": "What could stand here" });
  roving(element, ".alternative");
  let loading = null;
  element.addEventListener("beforetoggle", (event) => {
    if (event.newState === "closed") loading?.abort();
  });

  const closing = (act) => () => {
    element.hidePopover();
    act();
  };

  async function fill(index, token, anchor) {
    const footer = foot(token, closing(() => keep(index)));
    const draw = (top, part) => {
      replace(element, head(token, top), part, footer);
      put(element, anchor);
    };
    const show = (top) => {
      draw(top, list(token, top, (choice) => closing(() => choose(index, choice, top))));
      focusFirst(element, [".alternative[aria-current]", ".alternative"]);
    };
    const say = (part) => {
      draw(null, part);
      focusFirst(element, [".alternatives-foot button"]); // there is no other
    };
    if (token.hidden) return say(null);
    if (token.top) return show(token.top);
    draw(null, h("p", { class: "muted", role: "status" }, "Asking the model…"));
    loading = new AbortController();
    try {
      show(await load(index, loading.signal));
    } catch (error) {
      if (!isAbort(error)) say(h("p", { class: "error", role: "alert" }, error.message));
    }
  }

  function open(index, token, anchor) {
    loading?.abort();
    anchor.focus(); // where the focus is to come back to
    if (!element.matches(":popover-open")) element.showPopover();
    return fill(index, token, anchor);
  }

  return { element, open };
}

/** Focus what the first selector that finds something finds. */
function focusFirst(element, selectors) {
  selectors.map((one) => element.querySelector(one)).find(Boolean)?.focus();
}

function head(token, top) {
  const rank = top ? top.findIndex((choice) => choice.id === token.id) : -1;
  const logprob = token.logprob ?? top?.[rank]?.logprob ?? null;
  const facts = [
    logprob === null ? null : percent(Math.exp(logprob)),
    logprob === null ? null : `surprise ${surprise(logprob).toFixed(1)} bits`,
    rank >= 0 ? `the model’s choice no. ${rank + 1}` : top && !token.hidden ? `not among its first ${top.length}` : null,
  ];
  return h(
    "div",
    { class: "alternatives-head" },
    h("code", { class: "token-label" }, token.hidden ? "start" : label(token)),
    h("span", { class: "help" }, facts.filter(Boolean).join(" · ")),
  );
}

/** The choices, and the token itself where it is not among them; then what all others have together. `pick` makes what a press does. */
function list(token, top, pick) {
  const rows = [...top];
  if (!token.hidden && typeof token.logprob === "number" && !top.some((choice) => choice.id === token.id)) rows.push(token);
  const rest = 1 - rows.reduce((sum, choice) => sum + Math.exp(choice.logprob), 0);
  return h(
    "ol",
    { class: "alternatives-list" },
    rows.map((choice) => h("li", null, row(choice, choice.id === token.id, pick(choice)))),
    h("li", { class: "help" }, `All other tokens together: ${percent(Math.max(0, rest))}`),
  );
}

function row(choice, here, pick) {
  const probability = Math.exp(choice.logprob);
  return h(
    "button",
    {
      class: "alternative",
      type: "button",
      tabindex: -1,
      "aria-current": here ? "true" : null,
      "aria-label": `${spoken(choice)}, ${percent(probability)}${here ? ", stands there now" : ""}`,
      title: here ? "It stands there now: choose it to have the rest written anew" : "Put it there and go on",
      onclick: pick,
    },
    h("span", { class: "alternative-text mono" }, label(choice)),
    h("span", { class: "share-bar" }, h("span", { style: { "--share": probability } })),
    h("span", { class: "alternative-share" }, percent(probability)),
  );
}

function foot(token, onKeep) {
  const what = token.hidden ? "Write anew from the start" : "Keep it and write on from here";
  return h(
    "div",
    { class: "row alternatives-foot" },
    h("button", { class: "button small", type: "button", onclick: onKeep }, what),
    token.hidden && h("span", { class: "help" }, "This mark begins the text; nothing else can stand here."),
  );
}

/** Below the anchor, or above where there is more room; never out of sight. (Narrow screens: the style sheet's business.) */
function put(element, anchor) {
  const rects = anchor.getClientRects();
  const at = rects[0] ?? anchor.getBoundingClientRect();
  const { width, height } = element.getBoundingClientRect();
  const view = document.documentElement;
  const below = view.clientHeight - at.bottom;
  const top = below >= height + MARGIN || below >= at.top ? at.bottom + 4 : at.top - height - 4;
  const left = Math.min(at.left, view.clientWidth - width - MARGIN);
  element.style.setProperty("--top", `${Math.max(MARGIN, Math.min(top, view.clientHeight - height - MARGIN))}px`);
  element.style.setProperty("--left", `${Math.max(MARGIN, left)}px`);
}
