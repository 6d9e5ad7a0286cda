/** The classify tab: labels for one text, or for many. */

import { h } from "../lib/dom.js";
import { keepOrTell } from "../lib/store.js";
import { radios } from "./classify/choice.js";
import { ManyTexts } from "./classify/many.js";
import { createSetup } from "./classify/setup.js";
import { createSingle } from "./classify/single.js";

const KEPT = "classify.many";

/**
 * @param {HTMLElement} element
 * @param {Object<string, any>} context {api, models, store, toast, h}
 */
export function mount(element, context) {
  const setup = createSetup(context, {
    onSample(text) {
      single.setText(text);
      choose("one");
    },
    onKind: () => single.clear(),
  });
  const single = createSingle(context, setup);
  const many = new ManyTexts(context, setup);
  const choice = radios("How many texts?", [["one", "One text"], ["many", "Many texts"]], choose);

  function choose(which) {
    choice.check(which);
    single.element.hidden = which !== "one";
    many.element.hidden = which !== "many";
    keepOrTell(context, KEPT, which === "many");
  }

  // A file that is let go beside its place would replace the whole page.
  for (const kind of ["dragover", "drop"]) {
    element.addEventListener(kind, (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault());
  }
  choose(context.store.get(KEPT, false) ? "many" : "one");
  element.append(
    h(
      "div",
      { class: "page stack" },
      h("h2", null, "Classify"),
      h("div", { class: "classify" }, setup.element, h("section", { class: "card stack", "aria-label": "Texts" }, choice.element, single.element, many.element)),
    ),
  );
}
