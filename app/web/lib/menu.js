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
  // Safari gives a pressed button no focus: without a place for it here it would leave, and the menu would be gone before
  // the click.
  const list = h(
    "div",
    { class: "menu-items", tabindex: -1 },
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
