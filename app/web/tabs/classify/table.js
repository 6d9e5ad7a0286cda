/** The table of a job's rows: all, or only some, a page at a time. */

import { formatNumber, h, replace, uniqueId } from "../../lib/dom.js";
import { formatShare } from "../../lib/units.js";
import { isRight } from "./results.js";

const PAGE = 50;
const LONGEST = 300; // characters of a text

/**
 * @param {import("./many.js").JobBody} body
 * @param {(import("../../lib/bulk.js").Answer|import("../../lib/bulk.js").Failure|undefined)[]} results
 */
export function createResultTable(body, results) {
  const view = createView();
  const { select, more } = view;
  let shown = PAGE;
  let counts = null; // that were told last

  function draw() {
    const wanted = FILTERS[select.value.slice(0, 1)] ?? FILTERS.a;
    const label = select.value.slice(1);
    const rows = [];
    let found = 0;
    for (const [place, result] of results.entries()) {
      if (!result || !wanted(result, label, isRight(body, place, result))) continue;
      found += 1;
      if (rows.length < shown) rows.push(rowOf(body, place, result));
    }
    replace(view.rows, rows);
    more.hidden = found <= shown;
    more.textContent = `Show more (${formatNumber(found - rows.length)} left)`;
    view.none.textContent = found ? "" : "No row yet.";
    view.table.hidden = found === 0;
  }

  function update(latest) {
    counts = latest;
    const options = optionsOf(counts, body);
    const value = select.value || "a";
    // A list that someone has open must not change under the pointer.
    if (document.activeElement !== select) replace(select, options.map(([key, text]) => h("option", { value: key }, text)));
    select.value = options.some(([key]) => key === value) ? value : "a";
    draw();
  }

  select.addEventListener("change", () => {
    shown = PAGE;
    draw();
  });
  select.addEventListener("blur", () => counts && update(counts));
  more.addEventListener("click", () => {
    shown += 4 * PAGE;
    draw();
  });
  return {
    element: view.element,
    /** Results have come. `counts` as countResults gives them. */
    update,
  };
}

function createView() {
  const select = h("select", { class: "select", id: uniqueId("filter") });
  const rows = h("tbody");
  const head = h("tr", null, ["Line", "Text", "Label", "Probability"].map((name) => h("th", { scope: "col" }, name)));
  const table = h("table", { class: "table results" }, h("thead", null, head), rows);
  const more = h("button", { class: "button small", type: "button" }, "Show more");
  const none = h("p", { class: "muted" });
  const element = h(
    "div",
    { class: "stack" },
    h("div", { class: "row" }, h("label", { class: "label", for: select.id }, "Rows"), select),
    h("div", { class: "scroll-x", tabindex: "0", role: "group", "aria-label": "Rows with their labels" }, table),
    none,
    h("div", null, more),
  );
  return { element, select, rows, table, more, none };
}

/** The filters that make sense for these counts: value and text. */
function optionsOf(counts, body) {
  const options = [["a", "All that are done"]];
  if (counts.failed) options.push(["e", `With an error (${formatNumber(counts.failed)})`]);
  if (counts.truncated) options.push(["t", `Cut off (${formatNumber(counts.truncated)})`]);
  if (counts.wrong) options.push(["w", `Not as in “${body.columns[body.right]}” (${formatNumber(counts.wrong)})`]);
  for (const [label, count] of counts.labels) options.push([`l${label}`, `${label} (${formatNumber(count)})`]);
  return options;
}

/** @type {Object<string, (result: any, label: string, right: boolean|null) => boolean>} by the first letter of an option's value */
const FILTERS = {
  a: () => true,
  e: (result) => Boolean(result.error),
  t: (result) => Boolean(result.truncated),
  w: (_result, _label, right) => right === false,
  l: (result, label) => result.label === label,
};

function rowOf(body, place, result) {
  const row = body.rows[place];
  const text = row.cells[body.column];
  const clipped = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
  const known = isRight(body, place, result) === false && h("span", { class: "help" }, ` (not ${row.cells[body.right].trim()})`);
  const answer = result.error
    ? [h("td", { class: "error", colspan: 2 }, result.error)]
    : [h("td", null, result.label, known, result.truncated && h("span", { class: "help" }, " (cut off)")), h("td", null, formatShare(result.scores[0][1]))];
  return h("tr", null, h("td", { class: "muted" }, row.line), h("td", { class: "results-text" }, clipped), answer);
}
