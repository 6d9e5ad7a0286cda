/** One text: its labels as bars. */

import { isAbort } from "../../lib/api.js";
import { h, replace, uniqueId } from "../../lib/dom.js";
import { formatShare } from "../../lib/units.js";
import { askLabels } from "./ask.js";
import { scoreBars } from "./bars.js";

/**
 * @param {Object<string, any>} context {api}
 * @param {ReturnType<import("./setup.js").createSetup>} setup
 */
export function createSingle({ api }, setup) {
  const { element, form, area, error, button, result } = createView();
  let controller = null;

  async function run() {
    error.textContent = "";
    const text = area.value;
    const asked = setup.read();
    if (asked === null) return;
    if (!text.trim()) {
      error.textContent = "Write a text first.";
      return area.focus();
    }
    const { signal } = (controller = new AbortController());
    button.textContent = "Stop";
    try {
      const [answer] = await askLabels(api, asked, [text], signal);
      if (!signal.aborted) replace(result, show(answer, text, setup));
    } catch (problem) {
      if (!isAbort(problem) && !setup.showError(problem)) error.textContent = problem.message;
    } finally {
      controller = null;
      button.textContent = "Classify";
    }
  }

  function setText(text) {
    area.value = text;
    clear();
  }

  /** The result, or the one that is on its way, is of something else than is asked for now. */
  function clear() {
    controller?.abort();
    error.textContent = "";
    result.replaceChildren();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (controller) controller.abort();
    else run();
  });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !controller) form.requestSubmit();
  });
  return { element, setText, clear };
}

function createView() {
  const id = uniqueId("text");
  const area = h("textarea", { class: "input", id, rows: 5, "aria-describedby": `${id}-error` });
  const error = h("p", { class: "error", id: `${id}-error`, role: "alert" });
  const button = h("button", { class: "button primary", type: "submit" }, "Classify");
  button.addEventListener("click", (event) => {
    if (event.detail > 1) event.preventDefault(); // the second of two clicks was not meant to stop what the first began
  });
  const result = h("div", { class: "stack", "aria-live": "polite" });
  const form = h(
    "form",
    { class: "stack" },
    h("div", { class: "field" }, h("label", { for: id }, "Text"), area, error),
    h("div", { class: "row" }, button, h("span", { class: "help" }, "or Ctrl+Enter")),
  );
  return { element: h("div", { class: "stack" }, form, result), form, area, error, button, result };
}

function show({ label, scores, truncated }, text, setup) {
  return [
    h("h3", null, `${label} (${formatShare(scores[0][1])})`),
    scoreBars(scores),
    truncated && h("p", { class: "help" }, "The text is longer than the model can read at once: its end was left out."),
    setup.isOwn && scores.length > 1 && teach(text, scores, setup),
  ];
}

/** Whoever knows better can tell the model. */
function teach(text, scores, setup) {
  const select = h("select", { class: "select", "aria-label": "The right label" }, scores.map(([label]) => h("option", { value: label }, label)));
  const add = () => setup.addExample({ text: text.trim(), label: select.value });
  return h("div", { class: "row" }, h("span", { class: "help" }, "The right label is"), select, h("button", { class: "button small", type: "button", onclick: add }, "Add as an example"));
}
