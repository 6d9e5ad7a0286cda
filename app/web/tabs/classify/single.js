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
  const id = uniqueId("text");
  let controller = null;
  const area = h("textarea", { class: "input", id, rows: 5, "aria-describedby": `${id}-error` });
  const error = h("p", { class: "error", id: `${id}-error`, role: "alert" });
  const button = h("button", { class: "button primary", type: "submit" }, "Classify");
  const result = h("div", { class: "stack", "aria-live": "polite" });

  async function run(event) {
    event.preventDefault();
    if (controller) return controller.abort();
    error.textContent = "";
    const text = area.value;
    const asked = setup.read();
    if (asked === null) return;
    if (!text.trim()) {
      error.textContent = "Write a text first.";
      return area.focus();
    }
    controller = new AbortController();
    button.textContent = "Stop";
    try {
      const [answer] = await askLabels(api, asked, [text], controller.signal);
      replace(result, show(answer, text));
    } catch (problem) {
      if (!isAbort(problem) && !setup.showError(problem)) error.textContent = problem.message;
    } finally {
      controller = null;
      button.textContent = "Classify";
    }
  }

  function show({ label, scores, truncated }, text) {
    return [
      h("h3", null, `${label} (${formatShare(scores[0][1])})`),
      scoreBars(scores),
      truncated && h("p", { class: "help" }, "The text is longer than the model can read at once: its end was left out."),
      setup.isOwn && scores.length > 1 && teach(text, scores),
    ];
  }

  /** Whoever knows better can tell the model. */
  function teach(text, scores) {
    const select = h("select", { class: "select", "aria-label": "The right label" }, scores.map(([label]) => h("option", { value: label }, label)));
    const add = () => setup.addExample({ text: text.trim(), label: select.value });
    return h("div", { class: "row" }, h("span", { class: "help" }, "The right label is"), select, h("button", { class: "button small", type: "button", onclick: add }, "Add as an example"));
  }

  const form = h(
    "form",
    { class: "stack", onsubmit: run },
    h("div", { class: "field" }, h("label", { for: id }, "Text"), area, error),
    h("div", { class: "row" }, button, h("span", { class: "help" }, "or Ctrl+Enter")),
  );
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !controller) form.requestSubmit();
  });
  return {
    element: h("div", { class: "stack" }, form, result),
    setText(text) {
      area.value = text;
      error.textContent = "";
      result.replaceChildren();
    },
    /** The result is of other labels than are asked for now. */
    clear: () => result.replaceChildren(),
  };
}
