/** The editor of examples that are shown to a language model before each text. */

import { h, replace, uniqueId } from "../../lib/dom.js";

const MOST = 128;
const HELP =
  "A few texts with their right labels, shown to the model before each of yours (few-shot). One or two of each label help most; they take room in the context.";

/**
 * @typedef {{text: string, label: string}} Example
 */

/** `element` is to be put into the page. */
export class ExamplesEditor {
  /** @type {{element: HTMLElement, text: HTMLTextAreaElement, label: HTMLSelectElement, remove: HTMLButtonElement}[]} */
  #rows = [];
  #list = h("ul", { class: "examples" });
  #error = h("p", { class: "error", role: "alert" });
  #count = h("span", { class: "muted" });
  #adder = h("button", { class: "button small", type: "button", onclick: () => this.#addEmpty() }, "Add an example");
  element = h(
    "details",
    { class: "more" },
    h("summary", null, "Examples ", this.#count),
    h("div", { class: "stack" }, h("p", { class: "help" }, HELP), this.#list, this.#error, h("div", null, this.#adder)),
  );

  /**
   * @param {Example[]} initial
   * @param {() => string[]} labels those that can be chosen now
   * @param {(examples: Example[]) => void} onChange
   */
  constructor(initial, labels, onChange) {
    this.labels = labels;
    this.onChange = onChange;
    this.element.open = initial.length > 0;
    for (const example of initial) this.#append(example);
  }

  /** All that stand there, whether they can be used or not. */
  get #values() {
    return this.#rows.map((row) => ({ text: row.text.value, label: row.label.value }));
  }

  /** Returns the examples, or null when one can't be used, which is told beside it. */
  read() {
    for (const [i, { text, label }] of this.#values.entries()) {
      const problem = !text.trim()
        ? `Example ${i + 1} has no text: write one, or remove it.`
        : !this.labels().includes(label) && `Example ${i + 1} needs one of the labels.`;
      if (problem) {
        this.tell(problem);
        this.#rows[i].text.focus();
        return null;
      }
    }
    return this.#values;
  }

  /** One more. */
  add(example) {
    this.element.open = true;
    this.#append(example);
  }

  /** Put others in their place. */
  set(examples) {
    this.#list.replaceChildren();
    this.#rows = [];
    this.#changed();
    for (const example of examples) this.#append(example);
  }

  /** The labels are others now. */
  refresh() {
    for (const row of this.#rows) this.#fill(row.label, row.label.value);
  }

  /** Show a mistake. */
  tell(text) {
    this.element.open = true;
    this.#error.textContent = text;
  }

  #addEmpty() {
    this.#append({ text: "", label: this.labels()[0] ?? "" }).text.focus();
  }

  #append({ text, label }) {
    const row = {
      text: h("textarea", { class: "input", rows: 2, id: uniqueId("example"), value: text, oninput: () => this.#changed() }),
      label: h("select", { class: "select", id: uniqueId("example"), onchange: () => this.#relabelled(row) }),
      remove: h("button", { class: "button quiet icon small", type: "button", onclick: () => this.#drop(row) }, "×"),
    };
    row.element = h("li", { class: "example" }, row.text, h("div", { class: "row" }, row.label, row.remove));
    this.#fill(row.label, label);
    this.#rows.push(row);
    this.#list.append(row.element);
    this.#changed();
    return row;
  }

  #drop(row) {
    this.#rows.splice(this.#rows.indexOf(row), 1);
    row.element.remove();
    this.#changed();
    (this.#rows.at(-1)?.remove ?? this.#adder).focus();
  }

  #relabelled(row) {
    this.#fill(row.label, row.label.value);
    this.#changed();
  }

  #fill(select, value) {
    const known = this.labels();
    const options = known.map((label) => h("option", { value: label }, label));
    if (!known.includes(value)) options.unshift(h("option", { value }, value === "" ? "choose…" : `${value} (no label any more)`));
    replace(select, options);
    select.value = value;
    select.setAttribute("aria-invalid", String(!known.includes(value)));
  }

  #changed() {
    this.#error.textContent = "";
    this.#count.textContent = this.#rows.length ? `(${this.#rows.length})` : "";
    this.#adder.disabled = this.#rows.length >= MOST;
    for (const [i, row] of this.#rows.entries()) {
      row.text.setAttribute("aria-label", `Text of example ${i + 1}`);
      row.label.setAttribute("aria-label", `Label of example ${i + 1}`);
      row.remove.setAttribute("aria-label", `Remove example ${i + 1}`);
    }
    this.onChange(this.#values);
  }
}
