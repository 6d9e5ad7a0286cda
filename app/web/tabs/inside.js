/** Look inside: what happens in a transformer when it reads a short text. */

import { isAbort } from "../lib/api.js";
import { Attention } from "../lib/attention.js";
import { h, onPress, setEnabled, uniqueId } from "../lib/dom.js";
import { createLens } from "../lib/lens.js";
import { keepOrTell } from "../lib/store.js";
import { label } from "../lib/tokens.js";

const KEPT = "inside.text";
const MOST_CHARACTERS = 2000; // far more than the server's 128 tokens
const EXAMPLES = [
  "The old man looked at the sea and the sea looked at the old",
  "Alice met Tom in the garden. Tom said to Alice",
  "One, two, three, four, five,",
];

/**
 * @param {HTMLElement} element
 * @param {Object<string, any>} context {api, models, store, toast, h}
 */
export function mount(element, context) {
  const view = createView();
  const looker = new Looker(context, view);
  element.append(view.element);
  view.form.addEventListener("submit", (event) => {
    event.preventDefault();
    looker.look();
  });
  onPress(view.go);
  view.text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!event.repeat) looker.look();
  });
  view.examples.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    view.text.value = button.textContent;
    looker.look();
  });
  view.text.value = context.store.get(KEPT, EXAMPLES[0]);
}

/** Asks the server about the text, and shows what it says. */
class Looker {
  #context;
  #view;
  #running = null;
  #shown = null; // what was asked last: {text, model}
  #attention = new Attention({ load: (layer) => this.#load(layer) });
  #lens = createLens();

  constructor(context, view) {
    [this.#context, this.#view] = [context, view];
    view.results.append(this.#attention.element, this.#lens.element);
  }

  async look() {
    this.#running?.abort();
    const control = new AbortController();
    this.#running = control;
    const { api, models } = this.#context;
    const asked = { text: this.#view.text.value, model: models.current };
    this.#busy(true);
    try {
      const seen = await inspect(api, asked, control.signal);
      this.#shown = asked;
      keepOrTell(this.#context, KEPT, asked.text);
      this.#show(seen);
    } catch (error) {
      if (!isAbort(error)) this.#fail(error);
    } finally {
      if (this.#running === control) this.#busy(false);
    }
  }

  async #load(layer) {
    const { api, toast } = this.#context;
    try {
      return (await api.post("inspect", { ...this.#shown, layers: [layer] })).attention[0];
    } catch (error) {
      toast(`Layer ${layer + 1} can’t be shown: ${error.message}`, "error");
      return null;
    }
  }

  #busy(is) {
    const { go, error, results, status } = this.#view;
    setEnabled(go, !is);
    results.setAttribute("aria-busy", String(is));
    if (!is) return;
    error.textContent = "";
    status.textContent = "Looking… The first time takes a few seconds.";
  }

  #fail(error) {
    this.#view.status.textContent = "";
    this.#view.error.textContent = error.message;
    if (error.param === "text") this.#view.text.setAttribute("aria-invalid", "true");
  }

  #show(seen) {
    const { status, text, results } = this.#view;
    const n = seen.tokens.length;
    status.textContent = `${seen.model}: ${n} token${n === 1 ? "" : "s"}, ${seen.layers} layers, ${seen.heads} heads in each. ${pieces(seen.tokens)}`;
    text.removeAttribute("aria-invalid");
    results.hidden = false;
    this.#attention.show(seen);
    this.#lens.show(seen);
  }
}

/** All layers at once; where one answer has no room for them the first alone, the others when they are chosen. */
async function inspect(api, asked, signal) {
  try {
    return await api.post("inspect", asked, { signal });
  } catch (error) {
    if (error.param !== "layers") throw error;
    return api.post("inspect", { ...asked, layers: [0] }, { signal });
  }
}

function pieces(tokens) {
  const names = tokens.slice(0, 8).map((token) => `“${label(token)}”`);
  return `The model reads it as ${names.join(" ")}${tokens.length > names.length ? " …" : ""}`;
}

function createView() {
  const [error, status] = [h("p", { class: "error", role: "alert", id: uniqueId("inside") }), h("p", { class: "help", role: "status" })];
  const text = h("textarea", {
    class: "input", id: uniqueId("inside"), rows: 2, maxlength: MOST_CHARACTERS, spellcheck: "false", "aria-describedby": error.id,
  }); // prettier-ignore
  const go = h("button", { class: "button primary", type: "submit" }, "Look inside");
  const examples = h(
    "div",
    { class: "row", role: "group", "aria-label": "Examples" },
    h("span", { class: "help" }, "Or try"),
    EXAMPLES.map((example) => h("button", { class: "button small inside-example", type: "button" }, example)),
  );
  const form = h(
    "form",
    { class: "stack" },
    h("div", { class: "field" }, h("label", { for: text.id }, "A short text, up to 128 tokens"), text, error),
    h("div", { class: "row" }, go, h("span", { class: "help" }, "Enter looks, Shift+Enter makes a new line.")),
    examples,
    status,
  );
  const results = h("div", { class: "stack", hidden: true });
  const element = h(
    "div",
    { class: "page stack inside" },
    h("h2", null, "Look inside"),
    h("p", { class: "muted" }, "A language model does one thing: it reads a text and says how likely every possible next token is. Here you see how it gets there."),
    explanation(),
    form,
    results,
  ); // prettier-ignore
  return { element, form, text, go, examples, error, status, results };
}

function explanation() {
  const item = (name, text) => [h("dt", null, name), h("dd", null, text)];
  return h(
    "details",
    { class: "card more" },
    h("summary", null, "How a transformer works, in six steps"),
    h(
      "dl",
      { class: "inside-steps" },
      item("Tokens", "The text is cut into pieces that the model knows: common words are one token, rare ones several. A space belongs to the word behind it; here it is shown as ␣."),
      item("Embedding", "Each token becomes a list of numbers, its meaning as far as it is known without the others. This list is what the layers work on."),
      item("Attention", "In each layer every token may look back at the tokens before it, never ahead, and take over some of what they hold. Several heads do so side by side, each looking for something else."),
      item("The rest of a layer", "Then each token’s list of numbers is worked on by itself: this is where most of what the model has learned is kept."),
      item("Layer after layer", "The result is added to the list and goes to the next layer: what a token stands for gets richer with every step."),
      item("Prediction", "Behind the last layer the list is compared with every token of the vocabulary: the better the match, the likelier that token comes next. One is drawn, put behind the text, and it all begins again."),
    ),
  ); // prettier-ignore
}
