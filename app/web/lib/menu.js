/** A button with a few actions below it. */

import { h } from "./dom.js";

/**
 * @param {string} label
 * @param {{label: string, run: () => void}[]} items
 * @returns {HTMLElement}
 */
export function createMenu(label, items) {
  const close = () => {
    details.open = false;
    summary.focus();
  };
  const act = (run) => () => {
    close();
    run();
  };
  const summary = h("summary", { class: "button quiet" }, label);
  const list = h(
    "div",
    { class: "menu-items" },
    items.map(({ label: text, run }) => h("button", { class: "button quiet", type: "button", onclick: act(run) }, text)),
  );
  const details = h("details", { class: "menu" }, summary, list);
  details.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && details.open) close();
  });
  details.addEventListener("focusout", (event) => {
    if (!details.contains(event.relatedTarget)) details.open = false;
  });
  return details;
}
