/** The form of sampling parameters: each with a name people know, its range, and what it does in plain words. */

import { h, uniqueId } from "./dom.js";

/**
 * @typedef {Object} Field
 * @property {string} name as the API has it
 * @property {string} label
 * @property {string} help in plain words
 * @property {"range"|"number"|"lines"} kind range: a slider with a number; number: may be empty; lines: a text per line
 * @property {number|null} [initial]
 * @property {number} [min]
 * @property {number} [max]
 * @property {number} [step] 1: whole numbers only
 * @property {boolean} [more] stands under "More"
 */

/** @type {Field[]} */
export const SAMPLING_FIELDS = [
  {
    name: "temperature", label: "Temperature", kind: "range", min: 0, max: 2, step: 0.05, initial: 0.8,
    help: "How daring the choice of words is. 0 always takes the likeliest and repeats itself exactly; 1 follows the model; above 1 it gets wild.",
  },
  {
    name: "max_tokens", label: "Longest answer", kind: "number", min: 1, max: 100_000, step: 1, initial: 200,
    help: "In tokens, which are words and pieces of words: 100 of them make 60 to 75 English words. Empty: until the model ends or has no room left.",
  },
  {
    name: "top_p", label: "Top p", kind: "range", min: 0.01, max: 1, step: 0.01, initial: 1,
    help: "Choose only among the likeliest words that together hold this share of the probability. Lower is safer; 1 is off.",
  },
  {
    name: "top_k", label: "Top k", kind: "number", min: 0, max: 100_000, step: 1, initial: 0, more: true,
    help: "Choose only among this many of the likeliest tokens. 0 is off.",
  },
  {
    name: "min_p", label: "Min p", kind: "range", min: 0, max: 1, step: 0.01, initial: 0, more: true,
    help: "Leave out tokens less likely than this share of the likeliest one. A little (0.05) keeps high temperatures sensible; 0 is off.",
  },
  {
    name: "repetition_penalty", label: "Repetition penalty", kind: "number", min: 0.01, max: 10, step: 0.05, initial: 1, more: true,
    help: "Makes every token less likely that was there before. 1 is off; 1.1 to 1.3 helps a model that goes round in circles.",
  },
  {
    name: "presence_penalty", label: "Presence penalty", kind: "range", min: -2, max: 2, step: 0.1, initial: 0, more: true,
    help: "Above 0, new subjects are preferred: takes the same off every token that the answer has already. 0 is off.",
  },
  {
    name: "frequency_penalty", label: "Frequency penalty", kind: "range", min: -2, max: 2, step: 0.1, initial: 0, more: true,
    help: "Above 0, the same words come less often: takes more off a token each time it is used. 0 is off.",
  },
  {
    name: "seed", label: "Seed", kind: "number", min: -Number.MAX_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER, step: 1, initial: null, more: true,
    help: "The same number with the same text and settings gives the same answer again. Empty: a new one each time.",
  },
  {
    name: "stop", label: "Stop at", kind: "lines", max: 4, initial: null, more: true,
    help: "The answer ends before any of these texts. One a line, up to four.",
  },
]; // prettier-ignore

/**
 * A form whose values are remembered.
 * @param {{store: ReturnType<import("./store.js").createStore>, name: string, fields?: string[], initial?: Object<string, any>}}
 *   options `name`: under which the values are kept; `fields`: names of SAMPLING_FIELDS, all by default; `initial`: other
 *   first values
 * @returns {{element: HTMLElement, values: () => Object<string, any>,
 *   showError: (name: string, message: string) => boolean}} `values` has what the API takes, and throws an Error that names the field when one is wrong; `showError` puts the
 *   server's complaint beside the field and tells whether there is such a field
 */
export function createParams({ store, name, fields, initial = {} }) {
  const shown = SAMPLING_FIELDS.filter((field) => !fields || fields.includes(field.name)).map((field) => ({
    ...field,
    initial: field.name in initial ? initial[field.name] : field.initial,
  }));
  const kept = store.get(`params.${name}`, {});
  const controls = new Map(
    shown.map((field) => [field.name, createControl(field, field.name in kept ? kept[field.name] : field.initial, changed)]),
  );

  function changed() {
    const texts = {};
    for (const [key, control] of controls) if (control.problem() === null) texts[key] = control.value();
    store.set(`params.${name}`, texts);
  }

  function values() {
    const result = {};
    for (const control of controls.values()) {
      const problem = control.problem();
      if (problem !== null) throw new Error(`${control.field.label}: ${problem}`);
      const value = control.value();
      if (value !== null) result[control.field.name] = value;
    }
    return result;
  }

  function reset() {
    for (const control of controls.values()) control.set(control.field.initial);
    changed();
  }

  const showError = (key, message) => showAt(controls.get(key), message);
  const element = arrange([...controls.values()], reset);
  return { element, values, showError };
}

/** The form: the controls, those that few people need behind "More". */
function arrange(controls, reset) {
  const of = (more) => controls.filter(({ field }) => Boolean(field.more) === more).map((control) => control.element);
  const rest = of(true);
  return h(
    "div",
    { class: "params stack" },
    of(false),
    rest.length > 0 && h("details", { class: "more" }, h("summary", null, "More"), h("div", { class: "stack" }, rest)),
    h("div", null, h("button", { class: "button small", type: "button", onclick: reset }, "Reset these")),
  );
}

/** Put a complaint beside a control, where it can be seen. False: there is no such control. */
function showAt(control, message) {
  if (control === undefined) return false;
  control.show(message);
  const details = control.element.closest("details");
  if (details) details.open = true;
  return true;
}

function createControl(field, first, changed) {
  const [id, help, error] = [uniqueId("param"), uniqueId("param-help"), uniqueId("param-error")];
  const common = { id, class: "input", "aria-describedby": `${help} ${error}`, name: field.name };
  const range = { min: field.min, max: field.max, step: field.step };
  const input = field.kind === "lines" ? h("textarea", { ...common, rows: 2 }) : h("input", { ...common, ...range, type: "number" });
  const slider =
    field.kind === "range" ? h("input", { type: "range", class: "slider", "aria-label": `${field.label}, slider`, ...range }) : null;
  const mistake = h("p", { class: "error", id: error, role: "alert" });

  const show = (message) => {
    mistake.textContent = message ?? "";
    if (message) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  };
  const set = (value) => {
    input.value = Array.isArray(value) ? value.join("\n") : (value ?? "");
    if (slider) slider.value = input.value;
    show(null);
  };
  const onInput = () => {
    show(problemOf(field, input));
    if (slider && input.validity.valid) slider.value = input.value;
    changed();
  };
  input.addEventListener("input", onInput);
  slider?.addEventListener("input", () => {
    input.value = slider.value;
    onInput();
  });
  set(first);

  const label = h("label", { for: id }, field.label);
  const element = h(
    "div",
    { class: `field param ${field.kind}` },
    field.kind === "lines" ? [label, input] : h("div", { class: "param-row" }, label, slider, input),
    h("p", { class: "help", id: help }, field.help),
    mistake,
  );
  return { field, element, set, show, value: () => valueOf(field, input), problem: () => problemOf(field, input) };
}

function valueOf(field, input) {
  if (field.kind === "lines") {
    const lines = input.value.split("\n").filter((line) => line !== "");
    return lines.length ? lines : null;
  }
  return input.value.trim() === "" ? null : Number(input.value);
}

/** What is wrong with what was typed, in words; null when nothing is. */
function problemOf(field, input) {
  if (field.kind === "lines") {
    return (valueOf(field, input)?.length ?? 0) > field.max ? `at most ${field.max} lines` : null;
  }
  if (input.validity.badInput) return "this is not a number";
  const value = valueOf(field, input);
  if (value === null) return field.kind === "range" ? `enter a number from ${field.min} to ${field.max}` : null;
  if (value < field.min || value > field.max) return `must be from ${field.min} to ${field.max}`;
  return field.step === 1 && !Number.isInteger(value) ? "must be a whole number" : null;
}
