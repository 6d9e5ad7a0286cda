/** Where each token looks: one head's attention as a tinted text, as bars and as a map, and all heads side by side. */

import { createBigMap } from "./bigmap.js";
import { h, replace, uniqueId } from "./dom.js";
import { createHeadGrid, headName } from "./headgrid.js";
import { habits, meanOf, sharpness, strongest } from "./heads.js";
import { onColours, reallyMoved, shade } from "./heatmap.js";
import { roving } from "./roving.js";
import { label, percent, spell, spoken } from "./tokens.js";

const MOST_BARS = 6;

/**
 * @typedef {Object} Inspected an answer of POST /inspect
 * @property {{id: number, bytes: number[]}[]} tokens
 * @property {number} layers
 * @property {number} heads
 * @property {number[]} attention_layers
 * @property {number[][][][]} attention
 *
 * @typedef {import("./headgrid.js").Pick} Pick
 */

/** Shows the attention of one answer after the other in `element`. */
export class Attention {
  #parts = createParts();
  #grid = createHeadGrid({ choose: (pick) => this.#choose(pick) });
  #map = createBigMap({ point: (query) => this.#look(query) });
  #load;
  /** @type {Inspected|null} */
  #seen = null;
  /** @type {Map<number, number[][][]>} by layer: the mean of its heads, then each of them */
  #maps = new Map();
  /** @type {Pick|null} what is shown */
  #pick = null;
  #wanted = null; // what was chosen last: it may have to be fetched first
  #query = 0;

  /**
   * @param {{load: (layer: number) => Promise<number[][][]|null>}} options `load` fetches the heads of a layer that the answer
   *   left out; null when that failed, of which it tells the person itself
   */
  constructor({ load }) {
    this.#load = load;
    const { map, all, text, layer, head } = this.#parts;
    map.append(this.#map.element);
    all.append(this.#grid.element);
    roving(text, ".look-token", (item) => this.#look(Number(item.dataset.index)));
    text.addEventListener("pointermove", (event) => {
      const item = event.target.closest(".look-token");
      if (item && !item.hasAttribute("aria-current") && reallyMoved(event)) this.#look(Number(item.dataset.index));
    });
    // A tap does not focus everywhere.
    text.addEventListener("click", (event) => {
      const item = event.target.closest(".look-token");
      if (item) this.#look(Number(item.dataset.index));
    });
    const select = () => this.#choose({ layer: Number(layer.value), head: head.value === "" ? null : Number(head.value) });
    layer.addEventListener("change", select);
    head.addEventListener("change", select);
    onColours(() => {
      this.#grid.paint();
      this.#map.paint();
    });
  }

  /** @returns {HTMLElement} */
  get element() {
    return this.#parts.element;
  }

  /**
   * Show another answer; the head stays the same where there is such a one.
   * @param {Inspected} seen
   */
  show(seen) {
    this.#seen = seen;
    this.#maps = new Map();
    this.#query = seen.tokens.length - 1;
    this.#grid.build(seen.layers, seen.heads);
    for (const [index, layer] of seen.attention_layers.entries()) this.#keep(layer, seen.attention[index]);
    const there = this.#pick && this.#maps.has(this.#pick.layer) && (this.#pick.head ?? 0) < seen.heads;
    this.#pick = this.#wanted = there ? this.#pick : mostTelling(seen);
    const { layer, head, text } = this.#parts;
    options(layer, [...Array(seen.layers).keys()].map((number) => [number, String(number + 1)]));
    options(head, [["", "mean of all"], ...[...Array(seen.heads).keys()].map((number) => [number, String(number + 1)])]);
    replace(text, textItems(seen.tokens));
    this.#draw();
  }

  #keep(layer, heads) {
    const maps = [meanOf(heads), ...heads];
    this.#maps.set(layer, maps);
    this.#grid.fill(layer, maps);
  }

  /** @param {Pick} pick */
  async #choose(pick) {
    const seen = this.#seen;
    this.#wanted = pick; // what is shown stays until this can be
    if (!this.#maps.has(pick.layer)) {
      const heads = await this.#load(pick.layer);
      if (this.#seen !== seen) return;
      if (heads !== null) this.#keep(pick.layer, heads);
    }
    if (this.#wanted === pick && this.#maps.has(pick.layer)) this.#pick = pick;
    this.#draw();
  }

  get #matrix() {
    return this.#maps.get(this.#pick.layer)[this.#pick.head === null ? 0 : this.#pick.head + 1];
  }

  #draw() {
    const { tokens } = this.#seen;
    const { layer, head } = this.#pick;
    this.#parts.layer.value = String(layer);
    this.#parts.head.value = head === null ? "" : String(head);
    this.#grid.mark(this.#pick);
    const where = `Layer ${layer + 1}, ${headName(head)}`;
    this.#map.show(tokens, this.#matrix, `Map of attention: ${where}. Choose tokens in the text above to hear what each looks at.`);
    this.#parts.habits.textContent = describeHabits(where, habits(this.#matrix, tokens.map((token) => token.id)));
    this.#look(this.#query);
  }

  /** Let the token in place `query` be the one that looks. */
  #look(query) {
    this.#query = query;
    const row = this.#matrix[query];
    for (const [index, item] of [...this.#parts.text.children].entries()) {
      item.style.setProperty("--weight", String(shade(row[index])));
      item.classList.toggle("later", index > query);
      if (index === query) item.setAttribute("aria-current", "true");
      else item.removeAttribute("aria-current");
    }
    this.#map.mark(query);
    replace(this.#parts.bars, bars(this.#seen.tokens, query, row));
  }
}

/** The head to begin with: the one that most clearly looks at something. */
function mostTelling({ attention_layers: layers, attention }) {
  const heads = attention.flatMap((maps, index) => maps.map((map, head) => ({ layer: layers[index], head, score: sharpness(map) })));
  const { layer, head } = heads.reduce((best, one) => (one.score > best.score ? one : best));
  return { layer, head };
}

function createParts() {
  const select = () => h("select", { class: "select", id: uniqueId("look") });
  const parts = {
    layer: select(),
    head: select(),
    text: h("div", { class: "look-text", role: "group", "aria-label": "The text: choose the token that looks", translate: "no" }),
    bars: h("div", { class: "look-bars", role: "status" }),
    habits: h("p", { class: "help" }),
    map: h("div"),
    all: h("div", { class: "scroll-x" }),
  };
  const picker = (text, control) => h("span", { class: "row" }, h("label", { for: control.id, class: "label" }, text), control);
  parts.element = h(
    "section",
    { class: "card stack" },
    h("h3", null, "Where each token looks"),
    h("p", { class: "muted" }, "Attention is how a token gathers what it needs from those before it. Every layer has several heads, and each looks for something else. Point at a token, or go to it with the arrow keys: the tokens it takes from are tinted."),
    h("div", { class: "row look-pick" }, picker("Layer", parts.layer), picker("Head", parts.head)),
    parts.habits,
    h("div", { class: "look-columns" }, h("div", { class: "stack" }, parts.text, parts.bars), parts.map),
    h("h4", null, "All heads at a glance"),
    h("p", { class: "help" }, "A strong first column: the head rests on the first token, which mostly means that it found nothing to do. A line just below the edge: it looks at the token before. Single marks further left: it found something. Choose one to see it large."),
    parts.all,
  ); // prettier-ignore
  return parts;
}

function textItems(tokens) {
  const texts = spell(tokens);
  return tokens.map((token, index) => {
    const { text, partial } = texts[index];
    return h(
      "span",
      {
        class: "look-token", role: "button", tabindex: index === tokens.length - 1 ? 0 : -1, dataset: { index },
        "aria-label": text.trim() === "" ? spoken(token) : null,
      },
      partial ? "·" : text.replace(/\n/g, "↵\n"),
    ); // prettier-ignore
  });
}

function bars(tokens, query, row) {
  return [
    h("p", null, h("strong", null, `“${label(tokens[query])}”`), " looks at"),
    h(
      "ol",
      { class: "look-list" },
      strongest(row, MOST_BARS).map(({ key, weight }) =>
        h(
          "li",
          null,
          h("span", { class: "mono look-name" }, label(tokens[key]), key === query && h("span", { class: "help" }, " (itself)")),
          h("span", { class: "look-bar", "aria-hidden": "true" }, h("span", { style: { "--share": weight } })),
          h("span", { class: "look-share" }, percent(weight)),
        ),
      ),
    ),
  ];
}

function describeHabits(where, found) {
  if (!found) return "";
  const parts = [
    `${percent(found.first)} to the first token`,
    `${percent(found.previous)} to the one just before`,
    `${percent(found.itself)} to itself`,
  ];
  if (found.repeat !== null) parts.push(`and, where a token was there before, ${percent(found.repeat)} to what followed it then`);
  return `${where}, on average gives ${parts.join(", ")}.`;
}

function options(select, entries) {
  replace(select, entries.map(([value, text]) => h("option", { value: String(value) }, text)));
}
