/** Short messages at the edge of the page, read out by screen readers. */

import { h } from "./dom.js";

const SECONDS = { info: 5, success: 4, error: 12 };
const SECONDS_TO_ACT = 20; // at least, where there is something to press
const SECONDS_AFTER = 3; // at least, when whoever read it has left it

/**
 * A function that shows messages in `region`, which has to be an aria-live region.
 * @param {HTMLElement} region
 * @returns {(text: string, kind?: "info"|"success"|"error", action?: {label: string, run: () => void}) => void}
 */
export function createToast(region) {
  return (text, kind = "info", action = undefined) => {
    // What is still to be read need not be said twice.
    if (!action && [...region.children].some((shown) => shown.firstChild.textContent === text)) return;
    const close = () => toast.remove();
    const act = () => {
      close();
      action.run();
    };
    const toast = h(
      "div",
      { class: `toast ${kind}`, role: kind === "error" ? "alert" : null },
      h("span", null, text),
      action && h("button", { class: "button small", type: "button", onclick: act }, action.label),
      h("button", { class: "button quiet icon small", type: "button", "aria-label": "Close message", onclick: close }, "×"),
    );
    region.append(toast);
    while (region.children.length > 4) region.firstChild.remove();
    // Whoever reads it or is about to press a button in it must not lose it.
    const end = performance.now() + 1000 * (action ? Math.max(SECONDS_TO_ACT, SECONDS[kind]) : SECONDS[kind]);
    let timer = null;
    const hold = () => clearTimeout(timer);
    const resume = (least) => {
      hold();
      timer = setTimeout(close, Math.max(least * 1000, end - performance.now()));
    };
    resume(0);
    toast.addEventListener("pointerenter", hold);
    toast.addEventListener("focusin", hold);
    toast.addEventListener("pointerleave", () => resume(SECONDS_AFTER));
    toast.addEventListener("focusout", () => resume(SECONDS_AFTER));
  };
}
