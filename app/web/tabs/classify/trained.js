/** A classifier that was trained for labels of its own. */

import { h, replace, uniqueId } from "../../lib/dom.js";

const COMMANDS = [
  "homegrown finetune classify \\",
  "  reviews.csv \\",
  "  --text-field review \\",
  "  --label-field stars \\",
  "  --out runs/reviews",
  "homegrown serve \\",
  "  --model runs/reviews/model",
];

/** `element` is to be put into the page. */
export class TrainedLabels {
  #id = uniqueId("classifier");
  #select = h("select", { class: "select", id: this.#id, "aria-describedby": `${this.#id}-help ${this.#id}-error` });
  #error = h("p", { class: "error", id: `${this.#id}-error`, role: "alert" });
  #field = h(
    "div",
    { class: "field" },
    h("label", { for: this.#id }, "Classifier"),
    this.#select,
    h("p", { class: "help", id: `${this.#id}-help` }, "It has labels of its own, learned from examples."),
  );
  #none = h(
    "div",
    { class: "stack" },
    h("p", null, "This server has no trained classifier."),
    h("p", { class: "help" }, "Make one from a table of texts and their labels, and serve it:"),
    h("pre", { class: "code", tabindex: "0" }, COMMANDS.join("\n")),
  );
  element = h("div", { class: "stack" }, this.#field, this.#none, this.#error);

  /**
   * @param {{classifier: string|null}} kept what is known from before
   * @param {(changes: object) => void} keep
   */
  constructor(kept, keep) {
    this.kept = kept;
    this.#select.addEventListener("change", () => keep({ classifier: this.#select.value }));
  }

  /** The models are others. */
  drawModels(models) {
    const names = models.of("classify").map((model) => model.id);
    this.#field.hidden = names.length === 0;
    this.#none.hidden = names.length > 0 || models.list.length === 0;
    replace(this.#select, names.map((name) => h("option", { value: name }, name)));
    if (names.length) this.#select.value = names.includes(this.kept.classifier) ? this.kept.classifier : names[0];
  }

  /** Returns what to ask, or null when there is no classifier, which is told. */
  read() {
    const model = this.#select.value;
    this.#error.textContent = model ? "" : "There is no classifier to ask: take “Own labels”.";
    return model ? { model } : null;
  }

  /** Show an error beside the field that it names. Returns whether it names one of these. */
  showError({ param, message }) {
    if (param === "model") this.#error.textContent = message;
    return param === "model";
  }
}
