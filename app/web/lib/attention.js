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
 * @param {{load: (layer: number) => Promise<number[][][]|null>}} options `load` fetches the heads of a layer that the answer
 *   left out; null when that failed, of which it tells the person itself
 * @returns {{element: HTMLElement, show: (seen: Inspected) => void}}
 */
export function createAttention({ load }) {
  const parts = createParts();
  const state = { seen: null, maps: new Map(), pick: null, wanted: null, query: 0 };
  const grid = createHeadGrid({ choose: (pick) => choose(pick) });
  const map = createBigMap({ point: (query) => look(query) });
  parts.map.append(map.element);
  parts.all.append(grid.element);
  roving(parts.text, ".look-token", (item) => look(Number(item.dataset.index)));
  parts.text.addEventListener("pointermove", (event) => {
    const item = event.target.closest(".look-token");
    if (item && !item.hasAttribute("aria-current") && reallyMoved(event)) look(Number(item.dataset.index));
  });
  onColours(() => {
    grid.paint();
    map.paint();
  });
  for (const select of [parts.layer, parts.head]) {
    select.addEventListener("change", () =>
      choose({ layer: Number(parts.layer.value), head: parts.head.value === "" ? null : Number(parts.head.value) }),
    );
  }

  function keep(layer, heads) {
    const maps = [meanOf(heads), ...heads];
    state.maps.set(layer, maps);
    grid.fill(layer, maps);
  }

  async function choose(pick) {
    const { seen } = state;
    state.wanted = pick; // what is shown stays until this can be
    if (!state.maps.has(pick.layer)) {
      const heads = await load(pick.layer);
      if (state.seen !== seen) return;
      if (heads !== null) keep(pick.layer, heads);
    }
    if (state.wanted === pick && state.maps.has(pick.layer)) state.pick = pick;
    draw();
  }

  const matrix = () => state.maps.get(state.pick.layer)[state.pick.head === null ? 0 : state.pick.head + 1];

  function draw() {
    const { seen, pick } = state;
    parts.layer.value = String(pick.layer);
    parts.head.value = pick.head === null ? "" : String(pick.head);
    grid.mark(pick);
    const where = `Layer ${pick.layer + 1}, ${headName(pick.head)}`;
    map.show(seen.tokens, matrix(), `Map of attention: ${where}. Choose tokens in the text above to hear what each looks at.`);
    parts.habits.textContent = describeHabits(where, habits(matrix(), seen.tokens.map((token) => token.id)));
    look(state.query);
  }

  function look(query) {
    state.query = query;
    const row = matrix()[query];
    for (const [index, item] of [...parts.text.children].entries()) {
      item.style.setProperty("--weight", String(shade(row[index])));
      item.classList.toggle("later", index > query);
      if (index === query) item.setAttribute("aria-current", "true");
      else item.removeAttribute("aria-current");
    }
    map.mark(query);
    replace(parts.bars, bars(state.seen.tokens, query, row));
  }

  return {
    element: parts.element,
    show(seen) {
      state.seen = seen;
      state.maps = new Map();
      state.query = seen.tokens.length - 1;
      if (state.pick && (state.pick.head ?? 0) >= seen.heads) state.pick = null;
      grid.build(seen.layers, seen.heads);
      for (const [index, layer] of seen.attention_layers.entries()) keep(layer, seen.attention[index]);
      if (!state.pick || !state.maps.has(state.pick.layer)) state.pick = mostTelling(seen);
      options(parts.layer, [...Array(seen.layers).keys()].map((layer) => [layer, String(layer + 1)]));
      options(parts.head, [["", "mean of all"], ...[...Array(seen.heads).keys()].map((head) => [head, String(head + 1)])]);
      replace(parts.text, textItems(seen.tokens));
      draw();
    },
  };
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
