/** The editor of examples that are shown to a language model before each text. */

import { h, replace, uniqueId } from "../../lib/dom.js";

const MOST = 128;

/**
 * @param {object} options
 * @param {{text: string, label: string}[]} options.initial
 * @param {() => string[]} options.labels those that can be chosen now
 * @param {(examples: {text: string, label: string}[]) => void} options.onChange
 */
export function createExamplesEditor({ initial, labels, onChange }) {
  const rows = [];
  const list = h("ul", { class: "examples" });
  const error = h("p", { class: "error", role: "alert" });
  const count = h("span", { class: "muted" });
  const adder = h("button", { class: "button small", type: "button", onclick: () => add({ text: "", label: labels()[0] ?? "" }).text.focus() }, "Add an example");
  const values = () => rows.map((row) => ({ text: row.text.value, label: row.label.value }));

  function changed() {
    error.textContent = "";
    count.textContent = rows.length ? `(${rows.length})` : "";
    adder.disabled = rows.length >= MOST;
    for (const [i, row] of rows.entries()) {
      row.text.setAttribute("aria-label", `Text of example ${i + 1}`);
      row.label.setAttribute("aria-label", `Label of example ${i + 1}`);
      row.remove.setAttribute("aria-label", `Remove example ${i + 1}`);
    }
    onChange(values());
  }

  function fill(select, value) {
    const known = labels();
    const options = known.map((label) => h("option", { value: label }, label));
    if (!known.includes(value)) options.unshift(h("option", { value }, value === "" ? "choose…" : `${value} (no label any more)`));
    replace(select, options);
    select.value = value;
    select.setAttribute("aria-invalid", String(!known.includes(value)));
  }

  function add({ text, label }) {
    const row = {
      text: h("textarea", { class: "input", rows: 2, id: uniqueId("example"), value: text, oninput: changed }),
      label: h("select", { class: "select", id: uniqueId("example"), onchange: () => (fill(row.label, row.label.value), changed()) }),
      remove: h("button", { class: "button quiet icon small", type: "button", onclick: () => drop(row) }, "×"),
    };
    row.element = h("li", { class: "example" }, row.text, h("div", { class: "row" }, row.label, row.remove));
    fill(row.label, label);
    rows.push(row);
    list.append(row.element);
    changed();
    return row;
  }

  function drop(row) {
    rows.splice(rows.indexOf(row), 1);
    row.element.remove();
    changed();
    (rows.at(-1)?.remove ?? adder).focus();
  }

  function tell(place, text) {
    details.open = true;
    error.textContent = text;
    rows[place]?.text.focus();
  }

  const details = h(
    "details",
    { class: "more", open: initial.length > 0 },
    h("summary", null, "Examples ", count),
    h(
      "div",
      { class: "stack" },
      h("p", { class: "help" }, "A few texts with their right labels, shown to the model before each of yours (few-shot). One or two of each label help most; they take room in the context."),
      list,
      error,
      h("div", null, adder),
    ),
  );
  for (const example of initial) add(example);

  return {
    element: details,
    /** Returns the examples, or null when one can't be used, which is told beside it. */
    read() {
      for (const [i, { text, label }] of values().entries()) {
        if (!text.trim()) return tell(i, `Example ${i + 1} has no text: write one, or remove it.`) ?? null;
        if (!labels().includes(label)) return tell(i, `Example ${i + 1} needs one of the labels.`) ?? null;
      }
      return values();
    },
    add(example) {
      details.open = true;
      add(example);
    },
    set(examples) {
      list.replaceChildren();
      rows.length = 0;
      changed();
      for (const example of examples) add(example);
    },
    /** The labels are others now. */
    refresh() {
      for (const row of rows) fill(row.label, row.label.value);
    },
    tell: (text) => tell(-1, text),
  };
}
