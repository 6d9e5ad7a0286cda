/** Results of many rows: what is counted of them, and the file that holds them all. */

import { toCsv } from "../../lib/csv.js";
import { freeName } from "../../lib/tables.js";

/**
 * Whether a row's label is the right one; null where nobody has said which that is, or there is no label.
 * @param {import("./many.js").JobBody} body
 * @param {number} place
 * @param {import("../../lib/bulk.js").Answer|import("../../lib/bulk.js").Failure|undefined} result
 * @returns {boolean|null}
 */
export function isRight(body, place, result) {
  const known = body.right === null ? "" : body.rows[place].cells[body.right].trim();
  return known === "" || !result || result.error ? null : result.label.trim() === known;
}

/**
 * @param {import("./many.js").JobBody} body
 * @param {(import("../../lib/bulk.js").Answer|import("../../lib/bulk.js").Failure|undefined)[]} results
 * @returns {{labels: [string, number][], failed: number, truncated: number, right: number, wrong: number}} labels: the most
 *   frequent first; right, wrong: of the rows of which that is known
 */
export function countResults(body, results) {
  const labels = new Map();
  const counts = { failed: 0, truncated: 0, right: 0, wrong: 0 };
  for (const [place, result] of results.entries()) {
    if (!result) continue;
    if (result.error) {
      counts.failed += 1;
      continue;
    }
    labels.set(result.label, (labels.get(result.label) ?? 0) + 1);
    counts.truncated += Number(result.truncated);
    const right = isRight(body, place, result);
    if (right !== null) counts[right ? "right" : "wrong"] += 1;
  }
  return { labels: [...labels].sort((a, b) => b[1] - a[1]), ...counts };
}

/**
 * All rows as CSV: their own columns, then the label, its probability, each label's probability, whether the text was cut
 * off, and the error. Rows without a result yet have nothing in these. Where a spreadsheet would read a text as a formula, a
 * ' stands before it: others may have written these texts.
 * @param {import("./many.js").JobBody} body
 * @param {(import("../../lib/bulk.js").Answer|import("../../lib/bulk.js").Failure|undefined)[]} results
 * @returns {string}
 */
export function resultsAsCsv(body, results) {
  const labels = new Set(body.setup.labels ?? []);
  for (const result of results) for (const [label] of result?.scores ?? []) labels.add(label);
  const names = [...labels];
  if (!body.setup.labels) names.sort();
  const used = new Set(body.columns);
  const added = ["label", "probability", ...names.map((name) => `p(${name})`), "cut off", "error"].map((name) => freeName(name, used));
  const records = body.rows.map((row, place) => [...row.cells, ...cellsOf(results[place], names)].map(harmless));
  const mark = body.marked ? "\ufeff" : ""; // whoever wrote the file with one (Excel does) needs it to read it
  return mark + toCsv([[...body.columns, ...added].map(harmless), ...records]);
}

const FORMULA = /^[=+\-@\t\r]/;
const NUMBER = /^[+-]?[\d.,]+(e[+-]?\d+)?\s?%?$/i;

function harmless(text) {
  return FORMULA.test(text) && !NUMBER.test(text) ? `'${text}` : text;
}

function cellsOf(result, names) {
  if (!result || result.error) return ["", "", ...names.map(() => ""), "", result?.error ?? ""];
  const scores = new Map(result.scores);
  const shares = names.map((name) => (scores.has(name) ? scores.get(name).toFixed(6) : ""));
  return [result.label, result.scores[0][1].toFixed(6), ...shares, result.truncated ? "yes" : "no", ""];
}
