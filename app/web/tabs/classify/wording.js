/** The editor of how a text is put to a language model. */

import { h, uniqueId } from "../../lib/dom.js";

/** The usual wording. */
export const TEMPLATE = "Text: {text}\nLabel: {label}";

/**
 * @param {object} options
 * @param {string} options.initial
 * @param {(template: string) => void} options.onChange
 */
export function createWordingEditor({ initial, onChange }) {
  const id = uniqueId("template");
  const area = h("textarea", { class: "input mono", id, rows: 3, spellcheck: "false", value: initial, "aria-describedby": `${id}-help ${id}-error` });
  const error = h("p", { class: "error", id: `${id}-error`, role: "alert" });

  function tell(text) {
    error.textContent = text;
    area.setAttribute("aria-invalid", String(text !== ""));
    if (!text) return;
    element.open = true;
    area.focus();
  }

  function set(value) {
    if (area.value !== value) area.value = value;
    tell("");
    onChange(value);
  }

  area.addEventListener("input", () => set(area.value));
  const help =
    "{text} stands for the text, once; {label} for a label, at the very end. The label that the model finds likeliest there wins, so write what would stand before it in a book.";
  const element = h(
    "details",
    { class: "more", open: initial !== TEMPLATE },
    h("summary", null, "Wording"),
    h(
      "div",
      { class: "field" },
      h("label", { for: id }, "How a text is put to the model"),
      area,
      h("p", { class: "help", id: `${id}-help` }, help),
      error,
      h("div", null, h("button", { class: "button small", type: "button", onclick: () => set(TEMPLATE) }, "Back to the usual")),
    ),
  );
  return {
    element,
    get template() {
      return area.value;
    },
    set,
    tell,
  };
}
