/** Probabilities of labels as bars. */

import { h } from "../../lib/dom.js";
import { formatShare } from "../../lib/units.js";

const FIRST = 12; // more are shown when asked for

/**
 * @param {[string, number][]} scores label and probability, the likeliest first
 * @returns {HTMLElement}
 */
export function scoreBars(scores) {
  const list = h("ol", { class: "bars", "aria-label": "Labels by probability" }, scores.slice(0, FIRST).map(bar));
  const rest = scores.slice(FIRST);
  if (!rest.length) return list;
  const more = h("button", { class: "button small", type: "button" }, `Show ${rest.length} more`);
  more.addEventListener("click", () => {
    const added = rest.map(bar);
    list.append(...added);
    more.remove();
    added[0].tabIndex = -1;
    added[0].focus(); // the button that had it is gone
  });
  return h("div", { class: "stack" }, list, h("div", null, more));
}

function bar([label, share], place) {
  return h(
    "li",
    { class: place === 0 ? "bar best" : "bar" },
    h("span", { class: "bar-label" }, label),
    h("span", { class: "bar-track", "aria-hidden": "true" }, h("span", { class: "bar-fill", style: { inlineSize: `${100 * share}%` } })),
    h("span", { class: "bar-value" }, formatShare(share)),
  );
}
