/** What is asked about every text: own labels put to a language model, or a classifier that was trained for its own. */

import { h, replace, uniqueId } from "../../lib/dom.js";
import { radios } from "./choice.js";
import { createExamplesEditor } from "./examples.js";
import { createLabelsEditor } from "./labels.js";
import { SAMPLES } from "./samples.js";
import { createWordingEditor, TEMPLATE } from "./wording.js";

const KEPT = "classify.setup";
const COMMANDS = [
  "homegrown finetune classify \\",
  "  reviews.csv \\",
  "  --text-field review \\",
  "  --label-field stars \\",
  "  --out runs/reviews",
  "homegrown serve \\",
  "  --model runs/reviews/model",
];

/**
 * @param {Object<string, any>} context {models, store, toast}
 * @param {{onSample: (text: string) => void, onKind: () => void}} options told the text of a sample that a person has picked,
 *   and that another kind of labels was
 */
export function createSetup({ models, store, toast }, { onSample, onKind }) {
  const kept = { kind: null, classifier: null, labels: [], examples: [], template: TEMPLATE, ...store.get(KEPT, {}) };
  const keep = (changes) => {
    Object.assign(kept, changes);
    try {
      store.set(KEPT, kept);
    } catch (error) {
      toast(error.message, "error");
    }
  };
  const own = createOwn(kept, keep, onSample);
  const trained = createTrained(kept, keep);
  const kinds = radios("What tells the texts apart?", [["own", "Own labels"], ["trained", "Trained classifier"]], (kind) => {
    keep({ kind });
    draw();
    onKind();
  });
  const kindOf = () => kept.kind ?? (models.of("classify").length ? "trained" : "own");

  function draw() {
    kinds.check(kindOf());
    own.element.hidden = kindOf() !== "own";
    trained.element.hidden = kindOf() !== "trained";
    own.drawModels(models);
    trained.drawModels(models);
  }

  models.subscribe(draw);
  draw();
  return {
    element: h("section", { class: "card stack classify-setup", "aria-label": "Labels" }, kinds.element, own.element, trained.element),
    /** Whether the labels are a person's own, so that examples can be added. */
    get isOwn() {
      return kindOf() === "own";
    },
    /** Returns what to ask, or null when something is missing, which is told beside it. */
    read: () => (kindOf() === "own" ? own.read(models) : trained.read()),
    /** Show an error beside the field that it names. Returns whether it names one of these. */
    showError: (error) => (kindOf() === "own" ? own.showError(error) : trained.showError(error)),
    addExample: own.addExample,
  };
}

function createOwn(kept, keep, onSample) {
  const labels = createLabelsEditor({
    initial: kept.labels,
    onChange(list) {
      keep({ labels: list });
      examples.refresh();
    },
  });
  const examples = createExamplesEditor({
    initial: kept.examples,
    labels: () => labels.labels,
    onChange: (list) => keep({ examples: list }),
  });
  const wording = createWordingEditor({ initial: kept.template, onChange: (template) => keep({ template }) });
  const asked = h("p", { class: "help" });
  const error = h("p", { class: "error", role: "alert" });
  const parts = { labels, examples, template: wording, model: { tell: (text) => (error.textContent = text) } };
  const samples = SAMPLES.map((sample) => {
    const fill = () => {
      labels.set(sample.labels);
      examples.set(sample.examples);
      wording.set(sample.template);
      onSample(sample.text);
    };
    return h("button", { class: "button small", type: "button", onclick: fill }, sample.name);
  });
  return {
    element: h("div", { class: "stack" }, labels.element, h("div", { class: "row" }, h("span", { class: "help" }, "Try:"), samples), examples.element, wording.element, asked, error),
    drawModels(models) {
      const writing = models.of("generate");
      const none = models.list.length > 0 && writing.length === 0;
      asked.textContent = none
        ? "This server has no language model, only classifiers: take “Trained classifier”."
        : `Asked of ${models.current ?? (writing.length === 1 ? writing[0].id : "the server’s model")}, which was not trained for this: take the probabilities as a hint.`;
    },
    read(models) {
      parts.model.tell("");
      wording.tell("");
      const given = labels.check() ? examples.read() : null;
      if (given === null) return null;
      const setup = { labels: [...labels.labels], examples: given, template: wording.template };
      return models.current === null ? setup : { ...setup, model: models.current };
    },
    showError(problem) {
      const part = parts[/^\w*/.exec(problem.param ?? "")[0]];
      part?.tell(problem.message);
      return part !== undefined;
    },
    addExample: examples.add,
  };
}

function createTrained(kept, keep) {
  const id = uniqueId("classifier");
  const select = h("select", { class: "select", id, "aria-describedby": `${id}-help ${id}-error` });
  const error = h("p", { class: "error", id: `${id}-error`, role: "alert" });
  const field = h("div", { class: "field" }, h("label", { for: id }, "Classifier"), select, h("p", { class: "help", id: `${id}-help` }, "It has labels of its own, learned from examples."));
  const none = h(
    "div",
    { class: "stack" },
    h("p", null, "This server has no trained classifier."),
    h("p", { class: "help" }, "Make one from a table of texts and their labels, and serve it:"),
    h("pre", { class: "code", tabindex: "0" }, COMMANDS.join("\n")),
  );
  select.addEventListener("change", () => keep({ classifier: select.value }));
  return {
    element: h("div", { class: "stack" }, field, none, error),
    drawModels(models) {
      const classifiers = models.of("classify").map((model) => model.id);
      field.hidden = classifiers.length === 0;
      none.hidden = classifiers.length > 0 || models.list.length === 0;
      replace(select, classifiers.map((name) => h("option", { value: name }, name)));
      if (classifiers.length) select.value = classifiers.includes(kept.classifier) ? kept.classifier : classifiers[0];
    },
    read() {
      error.textContent = select.value ? "" : "There is no classifier to ask: take “Own labels”.";
      return select.value ? { model: select.value } : null;
    },
    showError(problem) {
      if (problem.param === "model") error.textContent = problem.message;
      return problem.param === "model";
    },
  };
}
