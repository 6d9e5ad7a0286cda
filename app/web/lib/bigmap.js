/** One head's map with its tokens at the edges; pointing at it tells what looks at what. */

import { h, replace } from "./dom.js";
import { createHeatmap, reallyMoved } from "./heatmap.js";
import { label, percent } from "./tokens.js";

const MOST_LABELS = 48; // more would be too small to read

/**
 * @param {{point: (query: number) => void}} options `point`: the person points at a row
 * @returns {{element: HTMLElement, show: (tokens: {bytes: number[]}[], matrix: number[][], name: string) => void,
 *   mark: (query: number) => void, paint: () => void}}
 */
export function createBigMap({ point }) {
  const map = createHeatmap("Attention");
  const row = h("div", { class: "bigmap-row" });
  const field = h("div", { class: "bigmap-field" }, map.element, row);
  const queries = h("ol", { class: "bigmap-queries", "aria-hidden": "true" });
  const keys = h("ol", { class: "bigmap-keys", "aria-hidden": "true" });
  const reading = h("p", { class: "help bigmap-reading", "aria-hidden": "true" });
  const element = h("div", { class: "bigmap" }, h("div", { class: "bigmap-grid" }, keys, queries, field), reading);
  let shown = { tokens: [], matrix: [] };

  const rest = () => {
    reading.textContent = "Each row is a token that looks; the columns are the tokens it may look at: itself and those before. The stronger the colour, the more.";
  };
  const read = (event) => {
    const cell = cellAt(field, event, shown.tokens.length);
    if (cell.key > cell.query) return rest();
    point(cell.query);
    const [query, key] = [shown.tokens[cell.query], shown.tokens[cell.key]].map(label);
    reading.textContent = `“${query}” looks at “${key}”: ${percent(shown.matrix[cell.query][cell.key])}`;
  };
  field.addEventListener("pointerdown", read);
  field.addEventListener("pointermove", (event) => reallyMoved(event) && read(event));
  field.addEventListener("pointerleave", rest);
  rest();

  return {
    element,
    show(tokens, matrix, name) {
      shown = { tokens, matrix };
      element.style.setProperty("--n", String(tokens.length));
      const labelled = tokens.length <= MOST_LABELS;
      element.classList.toggle("dense", !labelled);
      replace(queries, labelled && tokens.map((token) => h("li", null, label(token))));
      replace(keys, labelled && tokens.map((token) => h("li", null, label(token))));
      map.element.setAttribute("aria-label", name);
      map.paint(matrix);
    },
    mark: (query) => row.style.setProperty("--query", String(query)),
    paint: () => map.paint(),
  };
}

function cellAt(field, event, size) {
  const box = field.getBoundingClientRect();
  const at = (share) => Math.min(size - 1, Math.max(0, Math.floor(share * size)));
  return { query: at((event.clientY - box.top) / box.height), key: at((event.clientX - box.left) / box.width) };
}
