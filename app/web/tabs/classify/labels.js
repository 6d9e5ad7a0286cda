/** The editor of labels: each a chip that can be removed, with a line behind them to add more. */

import { h, replace, uniqueId } from "../../lib/dom.js";

const MOST = 128;
const LONGEST = 200;

/**
 * @param {object} options
 * @param {string[]} options.initial
 * @param {(labels: string[]) => void} options.onChange
 */
export function createLabelsEditor({ initial, onChange }) {
  let labels = [...initial];
  const id = uniqueId("labels");
  const chips = h("ul", { class: "chips", "aria-label": "Labels" });
  const error = h("p", { class: "error", id: `${id}-error`, role: "alert" });
  const input = h("input", {
    class: "input",
    id,
    autocomplete: "off",
    enterkeyhint: "enter",
    placeholder: "A label, then Enter",
    "aria-describedby": `${id}-help ${id}-error`,
  });

  function tell(text) {
    error.textContent = text;
    input.setAttribute("aria-invalid", String(text !== ""));
  }

  function change(next) {
    labels = next;
    draw();
    onChange(labels);
  }

  function draw() {
    chips.hidden = labels.length === 0;
    replace(chips, labels.map((label) => h("li", { class: "chip" }, h("span", null, label), removeButton(label))));
  }

  function removeButton(label) {
    const remove = () => {
      change(labels.filter((other) => other !== label));
      input.focus();
    };
    return h("button", { class: "chip-remove", type: "button", "aria-label": `Remove label ${label}`, onclick: remove }, "×");
  }

  /** Returns whether all of the text has become labels. */
  function add(text) {
    const next = [...labels];
    for (const label of text.split(/[,\r\n]+/).map((part) => part.trim()).filter(Boolean)) {
      const problem = problemOf(label, next);
      if (problem) {
        tell(problem);
        return false;
      }
      next.push(label);
    }
    tell("");
    input.value = "";
    if (next.length > labels.length) change(next);
    return true;
  }

  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" || event.key === ",") {
      event.preventDefault();
      add(input.value);
    } else if (event.key === "Backspace" && input.value === "") {
      chips.querySelector("li:last-child button")?.focus();
    }
  });
  input.addEventListener("input", () => {
    if (!input.value.trim()) input.value = ""; // the space behind a comma
    tell("");
  });
  input.addEventListener("paste", (event) => {
    const text = event.clipboardData?.getData("text") ?? "";
    if (!/[,\r\n]/.test(text)) return;
    event.preventDefault();
    if (!add(input.value + text)) input.value += text.replace(/[\r\n]+/g, ", ");
  });
  draw();

  return {
    element: h(
      "div",
      { class: "field" },
      h("label", { for: id }, "Labels"),
      chips,
      input,
      h("p", { class: "help", id: `${id}-help` }, "Words that say what a text is, such as sport, politics. A comma or Enter ends each."),
      error,
    ),
    get labels() {
      return labels;
    },
    set(next) {
      tell("");
      input.value = "";
      change([...next]);
    },
    /** What is still being written becomes a label too. Returns whether the labels can be asked about. */
    check() {
      if (!add(input.value)) input.focus();
      else if (labels.length < 2) {
        tell(labels.length ? "One label is no choice: add another." : "Name at least two labels to choose from.");
        input.focus();
      } else return true;
      return false;
    },
    tell,
  };
}

function problemOf(label, labels) {
  if (labels.includes(label)) return `“${label}” is there already.`;
  if (label.length > LONGEST) return `A label may have ${LONGEST} characters; this one has ${label.length}.`;
  return labels.length >= MOST ? `There can be ${MOST} labels; remove one first.` : null;
}
