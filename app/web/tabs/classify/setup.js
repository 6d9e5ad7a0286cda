/** What is asked about every text: own labels put to a language model, or a classifier that was trained for its own. */

import { h } from "../../lib/dom.js";
import { keepOrTell } from "../../lib/store.js";
import { radios } from "./choice.js";
import { OwnLabels } from "./own.js";
import { TrainedLabels } from "./trained.js";
import { TEMPLATE } from "./wording.js";

const KEPT = "classify.setup";

/**
 * @param {Object<string, any>} context {models, store, toast}
 * @param {{onSample: (text: string) => void, onKind: () => void}} options told the text of a sample that a person has picked,
 *   and that another kind of labels was
 */
export function createSetup({ models, store, toast }, { onSample, onKind }) {
  const kept = { kind: null, classifier: null, labels: [], examples: [], template: TEMPLATE, ...store.get(KEPT, {}) };
  const keep = (changes) => {
    Object.assign(kept, changes);
    keepOrTell({ store, toast }, KEPT, kept);
  };
  const own = new OwnLabels(kept, keep, onSample);
  const trained = new TrainedLabels(kept, keep);
  const kinds = radios("What tells the texts apart?", [["own", "Own labels"], ["trained", "Trained classifier"]], (kind) => {
    keep({ kind });
    draw();
    onKind();
  });
  // Whoever has not chosen gets a classifier where there is one: it knows what it does.
  const isOwn = () => (kept.kind ?? (models.of("classify").length ? "trained" : "own")) === "own";

  function draw() {
    kinds.check(isOwn() ? "own" : "trained");
    own.element.hidden = !isOwn();
    trained.element.hidden = isOwn();
    own.drawModels(models);
    trained.drawModels(models);
  }

  models.subscribe(draw);
  draw();
  return {
    element: h("section", { class: "card stack classify-setup", "aria-label": "Labels" }, kinds.element, own.element, trained.element),
    /** Whether the labels are a person's own, so that examples can be added. */
    get isOwn() {
      return isOwn();
    },
    /** Returns what to ask, or null when something is missing, which is told beside it. */
    read: () => (isOwn() ? own.read(models) : trained.read()),
    /** Show an error beside the field that it names. Returns whether it names one of these. */
    showError: (error) => (isOwn() ? own : trained).showError(error),
    addExample: (example) => own.examples.add(example),
  };
}
