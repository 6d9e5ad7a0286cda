/** The editor of labels: each a chip that can be removed, with a line behind them to add more. */

import { h, replace, uniqueId } from "../../lib/dom.js";

const MOST = 128;
const LONGEST = 200;
const HELP = "Words that say what a text is, such as sport, politics. A comma or Enter ends each.";

/** `element` is to be put into the page; `labels` are what it holds. */
export class LabelsEditor {
  #id = uniqueId("labels");
  #chips = h("ul", { class: "chips", "aria-label": "Labels" });
  #error = h("p", { class: "error", id: `${this.#id}-error`, role: "alert" });
  #input = h("input", {
    class: "input",
    id: this.#id,
    autocomplete: "off",
    enterkeyhint: "enter",
    placeholder: "A label, then Enter",
    "aria-describedby": `${this.#id}-help ${this.#id}-error`,
    onkeydown: (event) => this.#onKey(event),
    oninput: () => this.#onInput(),
    onpaste: (event) => this.#onPaste(event),
  });
  element = h(
    "div",
    { class: "field" },
    h("label", { for: this.#id }, "Labels"),
    this.#chips,
    this.#input,
    h("p", { class: "help", id: `${this.#id}-help` }, HELP),
    this.#error,
  );

  /**
   * @param {string[]} initial
   * @param {(labels: string[]) => void} onChange
   */
  constructor(initial, onChange) {
    this.labels = [...initial];
    this.onChange = onChange;
    this.#draw();
  }

  /** Put others in their place. */
  set(labels) {
    this.tell("");
    this.#input.value = "";
    this.#change([...labels]);
  }

  /** What is still being written becomes a label too. Returns whether the labels can be asked about. */
  check() {
    if (this.#add(this.#input.value)) {
      if (this.labels.length >= 2) return true;
      this.tell(this.labels.length ? "One label is no choice: add another." : "Name at least two labels to choose from.");
    }
    this.#input.focus();
    return false;
  }

  /** Show a mistake; an empty text takes it away. */
  tell(text) {
    this.#error.textContent = text;
    this.#input.setAttribute("aria-invalid", String(text !== ""));
  }

  #change(labels) {
    this.labels = labels;
    this.#draw();
    this.onChange(labels);
  }

  #draw() {
    this.#chips.hidden = this.labels.length === 0;
    replace(this.#chips, this.labels.map((label) => h("li", { class: "chip" }, h("span", null, label), this.#removeButton(label))));
  }

  #removeButton(label) {
    const remove = () => {
      this.#change(this.labels.filter((other) => other !== label));
      this.#input.focus();
    };
    return h("button", { class: "chip-remove", type: "button", "aria-label": `Remove label ${label}`, onclick: remove }, "×");
  }

  /** Returns whether all of the text has become labels. */
  #add(text) {
    const labels = [...this.labels];
    for (const label of text.split(/[,\r\n]+/).map((part) => part.trim()).filter(Boolean)) {
      const problem = problemOf(label, labels);
      if (problem) {
        this.tell(problem);
        return false;
      }
      labels.push(label);
    }
    this.tell("");
    this.#input.value = "";
    if (labels.length > this.labels.length) this.#change(labels);
    return true;
  }

  #onKey(event) {
    if (event.isComposing) return;
    if (event.key === "Enter" || event.key === ",") {
      event.preventDefault();
      this.#add(this.#input.value);
    } else if (event.key === "Backspace" && this.#input.value === "") {
      this.#chips.querySelector("li:last-child button")?.focus();
    }
  }

  #onInput() {
    if (!this.#input.value.trim()) this.#input.value = ""; // the space behind a comma
    this.tell("");
  }

  #onPaste(event) {
    const text = event.clipboardData?.getData("text") ?? "";
    if (!/[,\r\n]/.test(text)) return;
    event.preventDefault();
    if (!this.#add(this.#input.value + text)) this.#input.value += text.replace(/[\r\n]+/g, ", ");
  }
}

function problemOf(label, labels) {
  if (labels.includes(label)) return `“${label}” is there already.`;
  if (label.length > LONGEST) return `A label may have ${LONGEST} characters; this one has ${label.length}.`;
  return labels.length >= MOST ? `There can be ${MOST} labels; remove one first.` : null;
}
