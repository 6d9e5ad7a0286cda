/** Own labels, put to a language model that was not trained for them. */

import { h } from "../../lib/dom.js";
import { ExamplesEditor } from "./examples.js";
import { LabelsEditor } from "./labels.js";
import { SAMPLES } from "./samples.js";
import { createWordingEditor } from "./wording.js";

/** `element` is to be put into the page. */
export class OwnLabels {
  #asked = h("p", { class: "help" });
  #error = h("p", { class: "error", role: "alert" });

  /**
   * @param {{labels: string[], examples: import("./examples.js").Example[], template: string}} kept what is known from before
   * @param {(changes: object) => void} keep
   * @param {(text: string) => void} onSample told the text of a sample that a person has picked
   */
  constructor(kept, keep, onSample) {
    this.onSample = onSample;
    this.labels = new LabelsEditor(kept.labels, (labels) => {
      keep({ labels });
      this.examples.refresh();
    });
    this.examples = new ExamplesEditor(kept.examples, () => this.labels.labels, (examples) => keep({ examples }));
    this.wording = createWordingEditor({ initial: kept.template, onChange: (template) => keep({ template }) });
    const samples = SAMPLES.map((sample) => h("button", { class: "button small", type: "button", onclick: () => this.#fill(sample) }, sample.name));
    this.element = h(
      "div",
      { class: "stack" },
      this.labels.element,
      h("div", { class: "row" }, h("span", { class: "help" }, "Try:"), samples),
      this.examples.element,
      this.wording.element,
      this.#asked,
      this.#error,
    );
  }

  /** The models, or the choice among them, are others. */
  drawModels(models) {
    const writing = models.of("generate");
    const none = models.list.length > 0 && writing.length === 0;
    const name = models.current ?? (writing.length === 1 ? writing[0].id : "the server’s model");
    this.#asked.textContent = none
      ? "This server has no language model, only classifiers: take “Trained classifier”."
      : `Asked of ${name}, which was not trained for this: take the probabilities as a hint.`;
  }

  /** Returns what to ask, or null when something is missing, which is told beside it. */
  read(models) {
    this.#error.textContent = "";
    this.wording.tell("");
    const examples = this.labels.check() ? this.examples.read() : null;
    if (examples === null) return null;
    const setup = { labels: [...this.labels.labels], examples, template: this.wording.template };
    return models.current === null ? setup : { ...setup, model: models.current };
  }

  /** Show an error beside the field that it names. Returns whether it names one of these. */
  showError({ param, message }) {
    const field = /^\w*/.exec(param ?? "")[0];
    if (field === "model") this.#error.textContent = message;
    else if (field === "labels") this.labels.tell(message);
    else if (field === "examples") this.examples.tell(message);
    else if (field === "template") this.wording.tell(message);
    else return false;
    return true;
  }

  #fill(sample) {
    this.labels.set(sample.labels);
    this.examples.set(sample.examples);
    this.wording.set(sample.template);
    this.onSample(sample.text);
  }
}
